CREATE TABLE t (id serial, v int);
CREATE FUNCTION fill(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE got int; total int := 0;
BEGIN
    FOR i IN 1 .. n LOOP
        INSERT INTO t (v) VALUES (i * i) RETURNING id INTO got;
        total := total + got;
    END LOOP;
    RETURN total;
END $$;
-- run
SELECT fill(5);
SELECT fill(3);
SELECT count(*), sum(v) FROM t;
