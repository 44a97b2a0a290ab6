CREATE TABLE t (id serial PRIMARY KEY, k int UNIQUE);
CREATE FUNCTION put(int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t (k) VALUES ($1);
    RETURN 'new ' || currval('t_id_seq');
EXCEPTION WHEN unique_violation THEN
    RETURN 'known after ' || currval('t_id_seq');
END $$;
-- run
SELECT put(1);
SELECT put(1);
SELECT put(2);
SELECT put(2), put(3);
SELECT * FROM t ORDER BY id;
