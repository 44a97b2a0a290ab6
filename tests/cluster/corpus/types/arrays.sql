CREATE TABLE t (id int PRIMARY KEY, a int[], b text[][]);
-- run
INSERT INTO t VALUES (1, '{1,2,3}', '{{a,b},{c,d}}'), (2, ARRAY[]::int[], NULL), (3, '[0:1]={5,6}', '{{NULL,"x y"}}');
UPDATE t SET a = a || 9, b[1][1] = 'z' WHERE id = 1;
SELECT id, a, b, cardinality(a), array_dims(a), a[1:2] FROM t ORDER BY id;
SELECT unnest(a) AS x FROM t ORDER BY x;
SELECT id FROM t WHERE 6 = ANY (a);
SELECT array_agg(id ORDER BY id DESC), array_to_string(ARRAY[1, NULL, 3], ',', '-') FROM t;
