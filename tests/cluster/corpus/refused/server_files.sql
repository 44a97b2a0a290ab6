CREATE TABLE t (a int);
-- run
COPY t FROM '/etc/passwd';
COPY t TO '/tmp/x';
COPY t FROM PROGRAM 'true';
COPY (SELECT 1) TO PROGRAM 'cat';
