-- Which run of a NATS server acknowledged a row: between two of them it may have lost what it acknowledged last.
alter table outbox add column broker text;
