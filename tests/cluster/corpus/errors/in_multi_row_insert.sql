CREATE TABLE t (id serial PRIMARY KEY, k int UNIQUE);
-- run
INSERT INTO t (k) VALUES (1), (2), (1);
INSERT INTO t (k) VALUES (3) RETURNING id;
INSERT INTO t (k) SELECT 10 / (3 - g) FROM generate_series(1, 5) g;
INSERT INTO t (k) VALUES (4) RETURNING id;
SELECT * FROM t ORDER BY id;
