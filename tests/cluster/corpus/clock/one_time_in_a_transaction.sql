CREATE TABLE t (id int PRIMARY KEY, a timestamptz, b timestamptz);
-- run
BEGIN;
INSERT INTO t VALUES (1, now(), CURRENT_TIMESTAMP);
INSERT INTO t VALUES (2, transaction_timestamp(), now());
COMMIT;
SELECT count(DISTINCT a), bool_and(a = b) FROM t;
