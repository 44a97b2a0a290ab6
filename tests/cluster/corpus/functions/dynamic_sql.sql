CREATE SEQUENCE s;
CREATE FUNCTION draw(name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    EXECUTE format('SELECT nextval(%L)', name) INTO n;
    RETURN n;
END $$;
-- run
SELECT draw('s'), draw('s');
SELECT currval('s');
