-- run
SELECT lo_create(0);
SELECT lo_from_bytea(0, 'x');
SELECT lo_unlink(1);
