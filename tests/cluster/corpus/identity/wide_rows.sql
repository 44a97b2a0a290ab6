-- The trigger keeps all other columns of a row.
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a numeric(20, 5), b timestamptz, c jsonb, d text[], e bytea, f int4range, g float8, h char(5));
-- run
INSERT INTO t (a, b, c, d, e, f, g, h) VALUES
    (1.50000, '2024-02-29 12:00:00.123456+02', '{"b": [1, 2.50], "a": null}', '{a,NULL,"b c"}', '\x00ff', '[1,9)', 0.1, 'ab'),
    (-0, 'infinity', '"x"', '{}', '', 'empty', 'NaN', '');
SELECT * FROM t ORDER BY id;
