CREATE TABLE t (id serial, v int);
-- run
BEGIN; INSERT INTO t (v) VALUES (1); INSERT INTO t (v) VALUES (2); COMMIT;
INSERT INTO t (v) VALUES (3); SELECT currval('t_id_seq'); SELECT count(*) FROM t;
SELECT * FROM t ORDER BY id;
