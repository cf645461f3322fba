-- One row per order. Status `unknown`: only facts about the order arrived so far, not the order itself; then everything
-- that comes with the order is null. Times are Unix milliseconds.
create table orders (
    order_id       uuid   not null primary key,
    status         text   not null,
    cancel_reason  text,
    payment        text   not null,
    stock          text   not null,
    entries        bigint not null,
    customer_id    text,
    total_minor    bigint,
    currency       text,
    items          text,
    payment_method text,
    email          text,
    phone          text,
    is_foreign     boolean,
    created_at     bigint,
    accepted_at    bigint,
    deadline_at    bigint,
    ended_at       bigint
);
create index orders_newest on orders (accepted_at, order_id) where status <> 'unknown';
create index orders_of_customer on orders (customer_id, accepted_at, order_id) where status <> 'unknown';
create index orders_processing on orders (deadline_at) where status = 'processing';

-- What happened to an order, in the order this service learnt of it.
create table order_timeline (
    order_id   uuid   not null,
    seq        bigint not null,
    at         bigint not null,
    event_type text   not null,
    service    text   not null,
    event_id   text   not null,
    detail     text   not null,
    primary key (order_id, seq),
    unique (order_id, event_id)
);

create table idempotency_keys (
    key          text   not null primary key,
    request_hash text   not null,
    order_id     uuid   not null,
    used_at      bigint not null
);
create index idempotency_keys_oldest on idempotency_keys (used_at);

-- The catalog as it was last seen, so that orders can be priced before NATS answers.
create table catalog_products (
    product_id    text   not null primary key,
    name          text   not null,
    price_minor   bigint not null,
    currency      text   not null,
    opening_stock bigint not null
);
