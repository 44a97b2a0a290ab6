CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, name text);
INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, 'a'), (3, 1, 'b'), (4, 2, 'c'), (5, 4, 'd');
-- run
WITH RECURSIVE down AS (SELECT id, name, 0 AS depth, name AS path FROM tree WHERE parent IS NULL
    UNION ALL SELECT t.id, t.name, depth + 1, path || '/' || t.name FROM tree t JOIN down ON t.parent = down.id)
SELECT * FROM down ORDER BY path;
