CREATE TABLE t (token uuid, r float8);
CREATE FUNCTION fresh() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';
CREATE FUNCTION roll() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1 + floor(random() * 6); END';
-- run
INSERT INTO t SELECT fresh(), roll() FROM generate_series(1, 30);
SELECT count(DISTINCT token), bool_and(r BETWEEN 1 AND 6) FROM t;
