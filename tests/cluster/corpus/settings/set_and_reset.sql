-- run
SET work_mem = '7MB';
SHOW work_mem;
SET LOCAL work_mem = '8MB';
SHOW work_mem;
RESET work_mem;
SHOW work_mem;
SET datestyle = 'German';
SELECT DATE '2024-03-09';
SET intervalstyle = 'iso_8601';
SELECT interval '1 day 2 hours';
SET bytea_output = 'escape';
SELECT '\x41ff'::bytea;
RESET ALL;
