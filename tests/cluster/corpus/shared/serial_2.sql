-- compare: shape (several scripts draw from one sequence)
-- run
BEGIN;
INSERT INTO corpus_shared.t (who) VALUES ('serial_2') RETURNING id;
INSERT INTO corpus_shared.t (who) VALUES ('serial_2') RETURNING id;
ROLLBACK;
INSERT INTO corpus_shared.t (who) VALUES ('serial_2') RETURNING id;
INSERT INTO corpus_shared.i (who) SELECT 'serial_2' FROM generate_series(1, 30) RETURNING id;
