CREATE TABLE a (id int PRIMARY KEY, v int);
CREATE TABLE b (pos serial, id int, v int);
INSERT INTO a SELECT i, i * 7 % 11 FROM generate_series(1, 30) i;
-- run
INSERT INTO b (id, v) SELECT id, v FROM a ORDER BY v DESC, id LIMIT 5 RETURNING pos, id;
INSERT INTO b (id, v) SELECT id, v FROM a WHERE v = (SELECT min(v) FROM a) ORDER BY id;
INSERT INTO b (id, v) SELECT max(id), sum(v) FROM a GROUP BY v % 3 ORDER BY 1 RETURNING pos, id, v;
SELECT count(*), sum(id) FROM b;
