CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0);
INSERT INTO t SELECT i, repeat(md5(i::text), 400) FROM generate_series(1, 3) i;
-- run
INSERT INTO t VALUES (2, 'short') ON CONFLICT (id) DO UPDATE SET n = t.n + 1 RETURNING length(t.v), n;
INSERT INTO t VALUES (3, repeat('z', 9000)) ON CONFLICT (id) DO UPDATE SET v = excluded.v || t.v RETURNING length(v);
INSERT INTO t SELECT id + 10, v FROM t;
SELECT id, length(v), md5(v), n FROM t ORDER BY id;
