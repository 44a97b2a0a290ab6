CREATE TABLE t (id int PRIMARY KEY, b bytea, j jsonb);
-- run
INSERT INTO t SELECT 1, decode(repeat('00ff10', 5000), 'hex'), jsonb_object_agg('k' || g, repeat('v', 100)) FROM generate_series(1, 200) g;
SELECT length(b), md5(b), (SELECT count(*) FROM jsonb_object_keys(j)) FROM t;
UPDATE t SET j = j - 'k1' || '{"new": [1, 2]}';
SELECT j -> 'new', j ? 'k1', j ->> 'k2' = repeat('v', 100) FROM t;
