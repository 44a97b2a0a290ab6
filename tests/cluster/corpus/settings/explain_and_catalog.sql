CREATE TABLE t (id int PRIMARY KEY, v text);
-- run
EXPLAIN (COSTS OFF) SELECT * FROM t WHERE id = 1;
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 't' AND table_schema = current_schema() ORDER BY 1;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum;
