CREATE TABLE t (id serial PRIMARY KEY, v int);
-- run
INSERT INTO t (v) SELECT g FROM generate_series(1, 2000) g;
SELECT count(*), min(id), max(id), sum(id - v) FROM t;
