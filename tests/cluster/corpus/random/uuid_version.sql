CREATE TABLE t (id uuid DEFAULT gen_random_uuid());
-- run
INSERT INTO t SELECT FROM generate_series(1, 50);
SELECT count(DISTINCT id), bool_and(substr(id::text, 15, 1) = '4'), bool_and(substr(id::text, 20, 1) IN ('8', '9', 'a', 'b')) FROM t;
