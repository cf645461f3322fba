-- What is to be published. A row stays for a while after the broker confirmed it, with its place in the stream, so that
-- it can be published again should the broker lose it.
create table outbox (
    id           integer primary key autoincrement,
    message_id   text    not null unique,
    subject      text    not null,
    lane         text    not null,
    headers      text    not null,
    body         blob    not null,
    created_at   integer not null,
    stream       text,
    stream_seq   integer,
    published_at integer
);
create index outbox_unpublished on outbox (id) where published_at is null;

-- Which consumer has handled which event.
create table inbox (
    id         integer primary key autoincrement,
    consumer   text    not null,
    event_id   text    not null,
    handled_at integer not null,
    unique (consumer, event_id)
);
