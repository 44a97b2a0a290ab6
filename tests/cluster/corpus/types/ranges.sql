CREATE TABLE t (id int PRIMARY KEY, r int4range, d daterange, m nummultirange);
-- run
INSERT INTO t VALUES (1, '[1,5]', '[2024-01-01,2024-02-01)', '{[1,2),[3,4)}'), (2, 'empty', NULL, '{}');
SELECT r, d, m, isempty(r), upper(r), lower(d) FROM t ORDER BY id;
SELECT r && '[5,9)', r @> 3, r * int4range(4, 10) FROM t ORDER BY id;
SELECT range_agg(r) FROM t;
