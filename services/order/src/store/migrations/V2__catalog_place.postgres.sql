-- How far the copy of the catalog has followed the bucket: a bucket that does not come as far has lost changes, and is not
-- followed back to old prices. `lost_behind` is the revision behind which they are lost, while it is so.
create table catalog_place (
    id                bigint  not null primary key check (id = 1),
    bucket_created_ms bigint  not null,
    revision          bigint  not null,
    lost_behind       bigint
);
