-- run
BEGIN;
SET LOCAL work_mem = '5MB';
SAVEPOINT a;
SET LOCAL work_mem = '6MB';
SHOW work_mem;
ROLLBACK TO a;
SHOW work_mem;
COMMIT;
SHOW work_mem;
