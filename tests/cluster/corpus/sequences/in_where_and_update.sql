CREATE SEQUENCE s;
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, 0 FROM generate_series(1, 10) g;
-- run
UPDATE t SET n = nextval('s') WHERE id <= 3;
SELECT count(DISTINCT n), min(n), max(n) FROM t WHERE n > 0;
UPDATE t SET n = nextval('s') WHERE id = 9 RETURNING n;
SELECT * FROM t WHERE id > 8 ORDER BY id;
