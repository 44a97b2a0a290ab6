CREATE TABLE o (id int PRIMARY KEY, customer int, amount numeric);
CREATE TABLE totals (customer int PRIMARY KEY, total numeric, n bigint);
INSERT INTO o SELECT g, g % 4, g * 1.25 FROM generate_series(1, 40) g;
-- run
INSERT INTO totals SELECT customer, sum(amount), count(*) FROM o GROUP BY customer;
SELECT * FROM totals ORDER BY customer;
