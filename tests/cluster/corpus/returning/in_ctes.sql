CREATE TABLE a (id serial PRIMARY KEY, v int);
CREATE TABLE b (a int, note text);
-- run
WITH new AS (INSERT INTO a (v) VALUES (5), (6) RETURNING id, v) INSERT INTO b SELECT id, 'v' || v FROM new RETURNING *;
WITH gone AS (DELETE FROM a WHERE v = 5 RETURNING id) UPDATE b SET note = 'gone' FROM gone WHERE b.a = gone.id RETURNING b.a, note;
SELECT * FROM b ORDER BY a;
