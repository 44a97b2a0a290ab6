CREATE TABLE t (id int PRIMARY KEY, r float8 DEFAULT random());
-- run
INSERT INTO t (id) SELECT generate_series(1, 100);
SELECT count(*), bool_and(r >= 0 AND r < 1), count(DISTINCT r) FROM t;
