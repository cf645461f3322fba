-- One row per order. What the order service said is remembered in whatever order it arrived.
create table payments (
    order_id        text    primary key,
    state           text    not null,
    confirmed       integer not null,
    cancelled       integer not null,
    -- Null until the order itself is known.
    amount_minor    integer,
    currency        text,
    payment_method  text,
    -- The gateway's name for the payment.
    payment_id      text,
    refusal_code    text,
    refusal_message text,
    -- When the sweep has to see to a step that is due; null when none is.
    due_at          integer,
    -- Attempts at that step that got no answer, and why the last one did not.
    attempts        integer not null,
    last_problem    text,
    correlation_id  text    not null,
    created_at      integer not null,
    updated_at      integer not null
) without rowid;
create index payments_due on payments (due_at) where due_at is not null;
create index payments_failed on payments (updated_at)
    where state in ('authorize_unknown', 'capture_failed', 'void_failed', 'refund_failed');
