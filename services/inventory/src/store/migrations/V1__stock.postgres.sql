-- Units of a product by what they are doing. The checks are the last line of defence: the code decides before.
create table stock (
    product_id text    not null primary key,
    available  bigint not null check (available >= 0),
    reserved   bigint not null check (reserved >= 0),
    committed  bigint not null check (committed >= 0)
);

-- What each order asked for and what became of it. items: [{"product_id", "quantity"}], one line per product.
create table reservations (
    order_id   uuid    not null primary key,
    status     text    not null
        check (status in ('held', 'rejected', 'committed', 'released', 'expected', 'tombstone')),
    items      text    not null,
    changed_at bigint not null
);

-- Units that came in or went out other than by an order; per product they add up to its stock.
create table stock_adjustments (
    adjustment_id uuid    not null primary key,
    product_id    text    not null references stock (product_id),
    delta         bigint not null,
    reason        text    not null,
    made_at       bigint not null
);
create index stock_adjustments_product on stock_adjustments (product_id);
