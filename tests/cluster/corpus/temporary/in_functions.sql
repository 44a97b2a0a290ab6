CREATE TABLE t (k int PRIMARY KEY, v int);
INSERT INTO t SELECT i, i * i FROM generate_series(1, 9) i;
CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(v) FROM t); END';
CREATE FUNCTION dynamic(name text) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint; BEGIN EXECUTE format('SELECT sum(v) FROM %I', name) INTO n; RETURN n; END $$;
-- run
SELECT total(), dynamic('t');
CREATE TEMP TABLE u AS SELECT k, v + 1 AS v FROM t;
SELECT dynamic('u');
CREATE TEMP TABLE t AS SELECT 1 AS k, 7 AS v;
SELECT dynamic('t');
DO $$ BEGIN INSERT INTO u SELECT k + 100, v FROM t; END $$;
SELECT count(*), max(v) FROM u;
