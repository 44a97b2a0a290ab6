CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'permanent');
-- run
CREATE TEMP TABLE t (id int, v text);
INSERT INTO t VALUES (1, 'temporary'), (2, 'too');
SELECT * FROM t ORDER BY id;
UPDATE t SET v = 'changed' WHERE id = 1 RETURNING *;
SELECT count(*) FROM pg_temp.t;
DELETE FROM t WHERE id = 2;
DROP TABLE t;
SELECT * FROM t ORDER BY id;
