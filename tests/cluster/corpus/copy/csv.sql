CREATE TABLE t (a int, b text, c numeric);
-- run
COPY t FROM STDIN WITH (FORMAT csv, HEADER, NULL '-');
a,b,c
1,"x, ""y""",1.50
2,-,-
\.
SELECT * FROM t ORDER BY a;
COPY t TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE (b));
