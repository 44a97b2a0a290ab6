CREATE TABLE t (id int PRIMARY KEY, v text, w bytea);
ALTER TABLE t ALTER COLUMN v SET STORAGE EXTERNAL, ALTER COLUMN w SET STORAGE EXTENDED;
-- run
INSERT INTO t VALUES (1, repeat('a', 20000), decode(repeat('00ff', 5000), 'hex'));
UPDATE t SET v = substr(v, 1, 10) || 'b' WHERE id = 1 RETURNING v;
UPDATE t SET v = repeat(v, 1000);
UPDATE t SET w = w || '\xaa';
SELECT length(v), length(w), md5(v), md5(w) FROM t;
