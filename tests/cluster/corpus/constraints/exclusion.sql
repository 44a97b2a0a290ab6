CREATE TABLE t (id int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&));
-- run
INSERT INTO t VALUES (1, '[1,5)'), (2, '[5,9)');
INSERT INTO t VALUES (3, '[4,6)');
UPDATE t SET during = '[2,6)' WHERE id = 1;
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (4, '[5,100)');
SELECT * FROM t ORDER BY id;
