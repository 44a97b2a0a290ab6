-- run
LISTEN a;
NOTIFY a;
SELECT pg_notify('a', 'b');
