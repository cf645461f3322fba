-- The same rows, told by comparisons: to look something up in a list of more than two values SQLite makes a table in memory,
-- and a payment that is written is looked up as it was and as it is. Queries have to say it in the same words.
drop index payments_failed;
create index payments_failed on payments (updated_at)
    where state = 'authorize_unknown' or state = 'capture_failed' or state = 'void_failed' or state = 'refund_failed';
