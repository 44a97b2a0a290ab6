CREATE TABLE t (id int PRIMARY KEY, v int);
INSERT INTO t SELECT g, g FROM generate_series(1, 20) g;
ALTER TABLE t ALTER v TYPE text USING 'n' || v;
ALTER TABLE t ADD COLUMN at timestamptz DEFAULT clock_timestamp();
SELECT v, at IS NOT NULL FROM t WHERE id IN (1, 20) ORDER BY id;
ALTER TABLE t SET LOGGED;
SELECT count(*) FROM t;
