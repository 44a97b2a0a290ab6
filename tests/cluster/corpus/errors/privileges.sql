-- run
SELECT * FROM pg_authid;
CREATE TABLE pg_catalog.mine (a int);
SELECT pg_read_file('/etc/passwd');
