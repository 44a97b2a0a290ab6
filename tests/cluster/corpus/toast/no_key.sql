CREATE TABLE t (v text, n int);
-- run
INSERT INTO t SELECT repeat('long ', 3000) || g, g FROM generate_series(1, 4) g;
UPDATE t SET n = n * 2 WHERE n > 2;
DELETE FROM t WHERE n = 1;
SELECT n, length(v) FROM t ORDER BY n;
