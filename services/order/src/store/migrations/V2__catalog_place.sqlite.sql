-- How far the copy of the catalog has followed the bucket: a bucket that does not come as far has lost changes, and is not
-- followed back to old prices. `lost_behind` is the revision behind which they are lost, while it is so.
create table catalog_place (
    id                integer not null primary key check (id = 1),
    bucket_created_ms integer not null,
    revision          integer not null,
    lost_behind       integer
);
