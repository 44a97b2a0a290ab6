CREATE FUNCTION next_code() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'code'$$;
CREATE TABLE t (id int PRIMARY KEY, c text DEFAULT next_code(), l int DEFAULT length('four'));
-- run
INSERT INTO t (id) VALUES (1), (2);
SELECT * FROM t ORDER BY id;
