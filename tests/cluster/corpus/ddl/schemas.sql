CREATE SCHEMA corpus_inner CREATE TABLE t (id serial, at timestamptz DEFAULT now());
INSERT INTO corpus_inner.t DEFAULT VALUES RETURNING id;
ALTER SCHEMA corpus_inner RENAME TO corpus_renamed;
INSERT INTO corpus_renamed.t DEFAULT VALUES RETURNING id;
DROP SCHEMA corpus_renamed CASCADE;
SELECT * FROM corpus_renamed.t;
