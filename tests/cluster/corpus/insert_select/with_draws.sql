CREATE SEQUENCE s;
CREATE TABLE t (id int, u uuid, r float8, at timestamptz);
-- run
INSERT INTO t SELECT nextval('s'), gen_random_uuid(), random(), now() FROM generate_series(1, 25);
SELECT count(DISTINCT id), count(DISTINCT u), count(DISTINCT r), count(DISTINCT at), max(id) FROM t;
