CREATE TYPE v2 AS (x int, y int);
CREATE FUNCTION add2(v2, v2) RETURNS v2 LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1.x + $2.x, $1.y + $2.y)::v2';
CREATE OPERATOR +++ (LEFTARG = v2, RIGHTARG = v2, FUNCTION = add2);
SELECT ROW(1, 2)::v2 +++ ROW(3, 4)::v2;
CREATE COLLATION c (provider = libc, locale = 'C');
SELECT 'a' < 'B' COLLATE "C";
