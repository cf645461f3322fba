-- Where the broker has a message is learnt later than the message is stored. Each has a row of its own now, so that what
-- is learnt does not write headers and body once more. Read together they are what they were: `outbox`.
drop index outbox_unpublished;
alter table outbox rename to outbox_message;

create table outbox_place (
    id           integer primary key,
    stream       text    not null,
    stream_seq   integer not null,
    published_at integer not null,
    broker       text
);
insert into outbox_place (id, stream, stream_seq, published_at, broker)
    select id, coalesce(stream, ''), coalesce(stream_seq, 0), published_at, broker
    from outbox_message where published_at is not null;

-- Messages without a place.
create table outbox_waiting (
    id integer primary key
);
insert into outbox_waiting (id) select id from outbox_message where published_at is null;

alter table outbox_message drop column stream;
alter table outbox_message drop column stream_seq;
alter table outbox_message drop column published_at;
alter table outbox_message drop column broker;

create view outbox as
    select m.id, m.message_id, m.subject, m.lane, m.headers, m.body, m.created_at,
           p.stream, p.stream_seq, p.published_at, p.broker
    from outbox_message m left join outbox_place p on p.id = m.id;
