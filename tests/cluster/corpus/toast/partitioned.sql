CREATE TABLE t (k int, v text, n int) PARTITION BY LIST (k);
CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
-- run
INSERT INTO t SELECT 1, repeat(md5(i::text), 300), i FROM generate_series(1, 4) i;
UPDATE t SET k = 2 WHERE n = 2;
UPDATE t SET n = n + 10;
SELECT k, n, length(v), md5(v) FROM t ORDER BY n;
DELETE FROM t WHERE n = 13 RETURNING md5(v);
