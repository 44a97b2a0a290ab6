CREATE TABLE t (id int PRIMARY KEY, v text, n int);
-- run
INSERT INTO t SELECT g, repeat(md5(g::text), 2000), 0 FROM generate_series(1, 3) g;
SELECT id, length(v), md5(v) FROM t ORDER BY id;
UPDATE t SET n = n + 1;
UPDATE t SET v = v || 'x' WHERE id = 2;
SELECT id, length(v), md5(v), n FROM t ORDER BY id;
