CREATE SEQUENCE s;
CREATE FUNCTION several(n int) RETURNS SETOF bigint LANGUAGE plpgsql AS $$BEGIN FOR i IN 1..n LOOP RETURN NEXT nextval('s'); END LOOP; END$$;
CREATE FUNCTION pair(OUT a bigint, OUT b uuid) LANGUAGE plpgsql AS $$BEGIN a := nextval('s'); b := gen_random_uuid(); END$$;
-- run
SELECT * FROM several(4);
SELECT a, b IS NOT NULL FROM pair();
