CREATE TABLE t (id int PRIMARY KEY, a text, b varchar(5), c char(5), d name);
-- run
INSERT INTO t VALUES (1, 'žluť', 'abc', 'ab', 'n'), (2, '', NULL, '', 'x');
INSERT INTO t VALUES (3, 'x', 'toolong', 'y', 'z');
SELECT id, a, b, c, d, length(a), octet_length(a), length(c) FROM t ORDER BY id;
SELECT upper('straße'), initcap('hello world'), E'\u00e4', U&'\0441', 'it''s', $$dollar$$;
SELECT string_agg(a, '|' ORDER BY id), format('%s %I %L', 1, 'A b', 'c''d') FROM t;
SELECT a ~ '^ž', regexp_replace('aXbX', 'X', '-', 'g'), split_part('a,b,c', ',', 2) FROM t WHERE id = 1;
