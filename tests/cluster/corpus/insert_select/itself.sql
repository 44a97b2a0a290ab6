CREATE TABLE t (id serial, v int);
INSERT INTO t (v) VALUES (1), (2), (3);
-- run
INSERT INTO t (v) SELECT v + 10 FROM t ORDER BY id;
INSERT INTO t (v) SELECT v + 100 FROM t ORDER BY id LIMIT 2;
SELECT * FROM t ORDER BY id;
