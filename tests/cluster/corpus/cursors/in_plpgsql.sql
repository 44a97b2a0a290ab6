CREATE TABLE t (id int PRIMARY KEY, v int);
INSERT INTO t SELECT g, g * 2 FROM generate_series(1, 5) g;
CREATE FUNCTION total() RETURNS int LANGUAGE plpgsql AS $$
DECLARE c CURSOR FOR SELECT v FROM t ORDER BY id; x int; s int := 0;
BEGIN
    OPEN c;
    LOOP FETCH c INTO x; EXIT WHEN NOT FOUND; s := s + x; END LOOP;
    CLOSE c;
    RETURN s;
END $$;
-- run
SELECT total();
