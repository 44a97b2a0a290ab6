-- A session that caches values still has consecutive ones.
CREATE SEQUENCE s CACHE 20;
-- run
SELECT nextval('s') FROM generate_series(1, 25);
SELECT currval('s'), lastval();
