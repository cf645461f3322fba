-- The same check, told by comparisons: to look something up in a list of more than two values SQLite makes a table in memory,
-- and does so for each row that is written. Nothing that is stored changes, so the definition alone is written anew, the
-- way https://sqlite.org/lang_altertable.html (7) has it; `reset` reads it again.
pragma writable_schema = on;
update sqlite_schema
    set sql = replace(
        sql,
        'status in (''due'', ''sent'', ''failed'', ''skipped'')',
        'status = ''due'' or status = ''sent'' or status = ''failed'' or status = ''skipped''')
    where type = 'table' and name = 'deliveries';
pragma writable_schema = reset;
