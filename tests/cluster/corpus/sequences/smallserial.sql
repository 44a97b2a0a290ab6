-- SMALLSERIAL ends at 32767.
CREATE TABLE t (id smallserial, v int);
-- run
SELECT setval('t_id_seq', 32766);
INSERT INTO t (v) VALUES (1) RETURNING id;
INSERT INTO t (v) VALUES (2) RETURNING id;
SELECT * FROM t ORDER BY v;
