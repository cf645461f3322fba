-- What is to be published. A row stays for a while after the broker confirmed it, with its place in the stream, so that
-- it can be published again should the broker lose it.
create table outbox (
    id           bigint generated always as identity primary key,
    message_id   text   not null unique,
    subject      text   not null,
    lane         text   not null,
    headers      text   not null,
    body         bytea  not null,
    created_at   bigint not null,
    stream       text,
    stream_seq   bigint,
    published_at bigint
);
create index outbox_unpublished on outbox (id) where published_at is null;

-- Which consumer has handled which event.
create table inbox (
    id         bigint generated always as identity primary key,
    consumer   text   not null,
    event_id   text   not null,
    handled_at bigint not null,
    unique (consumer, event_id)
);
