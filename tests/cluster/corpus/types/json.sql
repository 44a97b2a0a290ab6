CREATE TABLE t (id int PRIMARY KEY, j json, b jsonb);
-- run
INSERT INTO t VALUES (1, '{"b": 1, "a": [1, 2, {"c": null}]}', '{"b": 1, "a": [1, 2, {"c": null}]}'), (2, '"s"', '[]');
SELECT j, b, b -> 'a' -> 2, b #>> '{a,0}' FROM t ORDER BY id;
UPDATE t SET b = jsonb_set(b, '{a,1}', '"two"') WHERE id = 1 RETURNING b;
SELECT key, value FROM t, jsonb_each(b) WHERE id = 1 ORDER BY key;
SELECT b @> '{"b": 1}', b ? 'a', jsonb_path_query_array(b, '$.a[*]') FROM t WHERE id = 1;
SELECT jsonb_build_object('x', 1, 'y', jsonb_build_array(1, 'z')), to_jsonb(row(1, 'a'));
INSERT INTO t VALUES (3, '{bad', NULL);
