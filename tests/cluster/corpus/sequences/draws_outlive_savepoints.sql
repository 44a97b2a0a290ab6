CREATE TABLE t (id serial PRIMARY KEY, v int);
-- run
BEGIN;
INSERT INTO t (v) VALUES (1);
SAVEPOINT a;
INSERT INTO t (v) VALUES (2);
ROLLBACK TO a;
INSERT INTO t (v) VALUES (3) RETURNING id;
SAVEPOINT b;
SELECT nextval('t_id_seq'), currval('t_id_seq');
ROLLBACK TO b;
SELECT currval('t_id_seq');
INSERT INTO t (v) VALUES (4) RETURNING id;
COMMIT;
SELECT * FROM t ORDER BY id;
