CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE t (m mood);
ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy';
INSERT INTO t VALUES ('ok'), ('happy'), ('sad');
SELECT m FROM t ORDER BY m;
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
SELECT m FROM t ORDER BY m;
