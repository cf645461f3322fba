-- What is known of an order that its notices need. The columns up to items are empty until orders.created arrived.
-- items: [{"product_id", "quantity", "unit_price_minor"}]
create table orders (
    order_id       uuid    not null primary key,
    correlation_id text    not null,
    email          text,
    phone          text,
    total_minor    bigint,
    currency       text,
    items          text,
    confirmed      boolean not null,
    cancelled      text
);

-- One notice over one channel. due is the only status that anything follows from.
create table deliveries (
    order_id        uuid   not null references orders (order_id),
    notice          text   not null,
    channel         text   not null,
    status          text   not null check (status in ('due', 'sent', 'failed', 'skipped')),
    attempts        bigint not null,
    due_since       bigint not null,
    next_attempt_at bigint not null,
    detail          text,
    primary key (order_id, notice, channel)
);
create index deliveries_due on deliveries (next_attempt_at) where status = 'due';
