CREATE TABLE t (id serial PRIMARY KEY, v int);
INSERT INTO t SELECT g, g FROM generate_series(1, 20) g;
-- run
SELECT setval(pg_get_serial_sequence('t', 'id'), (SELECT max(id) FROM t));
INSERT INTO t (v) VALUES (0) RETURNING id;
SELECT setval('t_id_seq', coalesce(max(id), 1)) FROM t;
SELECT nextval('t_id_seq');
