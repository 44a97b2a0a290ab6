CREATE TABLE t (id serial PRIMARY KEY, v int);
-- run
BEGIN;
INSERT INTO t (v) VALUES (1), (2), (3);
ROLLBACK;
INSERT INTO t (v) VALUES (4) RETURNING id;
SELECT count(*), max(id) FROM t;
