-- run
SELEC 1;
SELECT FROM WHERE;
SELECT nothing_like_it;
SELECT * FROM not_a_table;
SELECT no_function(1);
SELECT 1 +;
SELECT 'a' + 1;
