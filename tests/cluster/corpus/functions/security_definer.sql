CREATE SEQUENCE s;
CREATE FUNCTION as_owner() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$SELECT nextval('s')$$;
-- run
SELECT as_owner();
SELECT as_owner(), currval('s');
