CREATE TABLE a (id int PRIMARY KEY, v int);
CREATE TABLE b (id serial PRIMARY KEY, a int, v int, at timestamptz DEFAULT now());
INSERT INTO a SELECT g, g * g FROM generate_series(1, 10) g;
-- run
INSERT INTO b (a, v) SELECT id, v FROM a ORDER BY id;
INSERT INTO b (a, v) SELECT a, -v FROM b WHERE v > 50 ORDER BY id;
SELECT id, a, v, at IS NOT NULL FROM b ORDER BY id;
