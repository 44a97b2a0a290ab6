-- run
SELECT 1 / 0;
SELECT 2147483647 + 1;
SELECT 'x'::int;
SELECT '2024-02-30'::date;
SELECT 100000::smallint;
SELECT sqrt(-1);
SELECT substring('abc' FROM 1 FOR -1);
SELECT array[1, 2][5];
