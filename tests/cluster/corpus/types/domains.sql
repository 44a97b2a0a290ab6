CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN code AS text NOT NULL DEFAULT 'none' CHECK (VALUE ~ '^[a-z]+$');
CREATE TABLE t (id serial, n positive, c code);
-- run
INSERT INTO t (n, c) VALUES (1, 'abc') RETURNING id;
INSERT INTO t (n) VALUES (2) RETURNING c;
INSERT INTO t (n) VALUES (0);
INSERT INTO t (n, c) VALUES (1, 'A1');
INSERT INTO t (n, c) VALUES (1, NULL);
SELECT * FROM t ORDER BY id;
