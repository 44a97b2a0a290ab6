CREATE TABLE unused (a int);
-- compare: shape
-- run
CREATE TEMP TABLE t (id uuid DEFAULT gen_random_uuid(), r float8 DEFAULT random(), at timestamptz DEFAULT now(), d date DEFAULT CURRENT_DATE);
INSERT INTO t DEFAULT VALUES RETURNING id, r, at, d;
INSERT INTO t SELECT FROM generate_series(1, 3);
SELECT count(DISTINCT id), count(DISTINCT r) FROM t;
CREATE TEMP TABLE u AS SELECT id, now() AS at, random() AS r FROM t;
SELECT count(*) FROM u;
