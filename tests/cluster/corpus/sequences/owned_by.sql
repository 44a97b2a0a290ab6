CREATE TABLE t (a int, b int);
CREATE SEQUENCE s OWNED BY t.a;
ALTER TABLE t ALTER a SET DEFAULT nextval('s');
INSERT INTO t (b) VALUES (1), (2) RETURNING a;
SELECT pg_get_serial_sequence('t', 'a') IS NOT NULL;
ALTER TABLE t DROP COLUMN a;
SELECT nextval('s');
