-- A conflict uses a value up.
CREATE TABLE t (id serial, k int UNIQUE, v int);
-- run
INSERT INTO t (k, v) VALUES (1, 1) RETURNING id;
INSERT INTO t (k, v) VALUES (1, 2) ON CONFLICT DO NOTHING RETURNING id;
INSERT INTO t (k, v) VALUES (1, 3) ON CONFLICT (k) DO UPDATE SET v = excluded.v, id = excluded.id RETURNING id;
INSERT INTO t (k, v) VALUES (2, 4) RETURNING id;
SELECT * FROM t ORDER BY k;
