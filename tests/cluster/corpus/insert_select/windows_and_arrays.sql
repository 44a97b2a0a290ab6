CREATE TABLE a (id int PRIMARY KEY, tags text[], at timestamptz DEFAULT now());
CREATE TABLE b (id int, tag text, nth int);
INSERT INTO a (id, tags) VALUES (1, '{x,y}'), (2, '{}'), (3, '{z,x,w}');
-- run
INSERT INTO b SELECT id, tag, nth FROM a, unnest(tags) WITH ORDINALITY AS u (tag, nth);
INSERT INTO b SELECT id, 'rank', rank() OVER (ORDER BY cardinality(tags), id) FROM a;
SELECT * FROM b ORDER BY id, tag, nth;
INSERT INTO a (id, tags) SELECT id + 10, array_agg(tag ORDER BY tag) FROM b GROUP BY id;
SELECT id, tags FROM a ORDER BY id;
