CREATE TABLE a (id int, v text);
CREATE TABLE b (id int, w text);
INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'z');
INSERT INTO b VALUES (2, 'p'), (3, 'q'), (3, 'r'), (4, 's');
-- run
SELECT * FROM a FULL JOIN b USING (id) ORDER BY id, w;
SELECT a.v, l.w FROM a LEFT JOIN LATERAL (SELECT w FROM b WHERE b.id = a.id ORDER BY w DESC LIMIT 1) l ON true ORDER BY a.v;
SELECT v FROM a WHERE EXISTS (SELECT FROM b WHERE b.id = a.id) ORDER BY v;
SELECT id FROM a EXCEPT SELECT id FROM b;
SELECT id FROM a INTERSECT SELECT id FROM b ORDER BY id;
