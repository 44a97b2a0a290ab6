-- Created, drawn from and altered in one transaction.
BEGIN;
CREATE SEQUENCE s;
SELECT nextval('s'), nextval('s');
CREATE TABLE t (id int DEFAULT nextval('s'), v int);
INSERT INTO t (v) VALUES (1) RETURNING id;
ALTER SEQUENCE s RESTART WITH 50;
INSERT INTO t (v) VALUES (2) RETURNING id;
COMMIT;
INSERT INTO t (v) VALUES (3) RETURNING id;
