CREATE TABLE unused (a int);
-- run
CREATE TEMP TABLE t (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text);
INSERT INTO t (v) VALUES ('a'), ('b') RETURNING id, n;
INSERT INTO t (v) SELECT v FROM t ORDER BY id RETURNING id, n, v;
SELECT currval('t_id_seq'), lastval();
INSERT INTO t (id, v) VALUES (1, 'twice');
CREATE TEMP SEQUENCE s INCREMENT 10;
SELECT nextval('s'), nextval('s'), currval('s');
SELECT setval('s', 100), nextval('s');
