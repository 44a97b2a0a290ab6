CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, v text);
-- run
COPY t (v) FROM STDIN;
one
two
\.
COPY t (id, v) FROM STDIN;
50	fifty
\.
INSERT INTO t (v) VALUES ('three') RETURNING id;
SELECT * FROM t ORDER BY id;
