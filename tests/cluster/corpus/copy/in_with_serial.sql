CREATE TABLE t (id serial PRIMARY KEY, v text);
-- run
COPY t (v) FROM STDIN;
one
two
\N
\.
SELECT * FROM t ORDER BY id;
SELECT currval('t_id_seq');
