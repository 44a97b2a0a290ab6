CREATE TABLE t (id serial, v int);
CREATE PROCEDURE put(a int, INOUT b int) LANGUAGE plpgsql AS $$BEGIN INSERT INTO t (v) VALUES (a) RETURNING id INTO b; END$$;
-- run
CALL put(10, NULL);
CALL put(20, NULL);
SELECT * FROM t ORDER BY id;
