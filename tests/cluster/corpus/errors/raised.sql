CREATE FUNCTION fail(code text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = code; END$$;
-- run
SELECT fail('P0001');
SELECT fail('58030');
SELECT fail('53100');
SELECT fail('XX001');
SELECT fail('23505');
SELECT 1;
