-- One row per order. What the order service said is remembered in whatever order it arrived.
create table payments (
    order_id        uuid    primary key,
    state           text    not null,
    confirmed       boolean not null,
    cancelled       boolean not null,
    -- Null until the order itself is known.
    amount_minor    bigint,
    currency        text,
    payment_method  text,
    -- The gateway's name for the payment.
    payment_id      text,
    refusal_code    text,
    refusal_message text,
    -- When the sweep has to see to a step that is due; null when none is.
    due_at          bigint,
    -- Attempts at that step that got no answer, and why the last one did not.
    attempts        bigint  not null,
    last_problem    text,
    correlation_id  text    not null,
    created_at      bigint  not null,
    updated_at      bigint  not null
);
create index payments_due on payments (due_at) where due_at is not null;
create index payments_failed on payments (updated_at)
    where state in ('authorize_unknown', 'capture_failed', 'void_failed', 'refund_failed');
