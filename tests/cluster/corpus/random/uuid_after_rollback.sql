CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), v int);
-- run
BEGIN;
SAVEPOINT a;
INSERT INTO t (v) VALUES (1);
ROLLBACK TO a;
INSERT INTO t (v) VALUES (2), (3);
COMMIT;
SELECT count(DISTINCT id), count(*) FROM t;
