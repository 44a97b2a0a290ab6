CREATE SEQUENCE s;
CREATE TABLE t (a int DEFAULT nextval('s'), b int DEFAULT nextval('s'), c int);
-- run
INSERT INTO t (c) VALUES (1), (2) RETURNING a, b;
SELECT nextval('s');
SELECT * FROM t ORDER BY c;
