CREATE TABLE unused (a int);
-- run
CREATE TEMP TABLE t (id int PRIMARY KEY, v text, n int);
INSERT INTO t SELECT i, repeat(md5(i::text), 500), 0 FROM generate_series(1, 5) i;
UPDATE t SET n = 1 WHERE id = 2;
SELECT id, length(v), md5(v), n FROM t ORDER BY id;
