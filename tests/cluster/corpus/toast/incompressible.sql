CREATE TABLE t (id int PRIMARY KEY, v text, n int);
ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
-- run
INSERT INTO t SELECT 1, string_agg(md5(g::text), '' ORDER BY g), 0 FROM generate_series(1, 1000) g;
UPDATE t SET n = 5;
SELECT id, length(v), n, md5(v) FROM t;
DELETE FROM t WHERE length(v) = 32000;
SELECT count(*) FROM t;
