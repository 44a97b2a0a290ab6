CREATE TABLE a (id serial PRIMARY KEY, v int);
CREATE TABLE archive (id int, v int, at timestamptz DEFAULT now());
INSERT INTO a (v) SELECT generate_series(1, 6);
-- run
WITH moved AS (DELETE FROM a WHERE v % 2 = 0 RETURNING id, v) INSERT INTO archive (id, v) SELECT * FROM moved;
WITH up AS (UPDATE a SET v = v * 10 RETURNING *), n AS (INSERT INTO a (v) VALUES (77) RETURNING *) SELECT * FROM up UNION ALL SELECT * FROM n ORDER BY id;
SELECT id, v FROM archive ORDER BY id;
SELECT * FROM a ORDER BY id;
