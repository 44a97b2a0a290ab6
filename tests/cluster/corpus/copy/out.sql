CREATE TABLE t (a int, b text);
INSERT INTO t VALUES (1, E'tab\there'), (2, NULL), (3, E'back\\slash');
-- run
COPY (SELECT * FROM t ORDER BY a) TO STDOUT;
COPY (SELECT a, length(b) FROM t ORDER BY a DESC) TO STDOUT (DELIMITER '|', NULL 'none');
