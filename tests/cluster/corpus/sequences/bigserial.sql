-- BIGSERIAL, past the end of an int.
CREATE TABLE t (id bigserial PRIMARY KEY, v int);
-- run
SELECT setval('t_id_seq', 3000000000);
INSERT INTO t (v) VALUES (1), (2) RETURNING id;
SELECT max(id) - min(id) FROM t;
