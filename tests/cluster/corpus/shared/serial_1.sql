-- compare: shape (several scripts draw from one sequence)
-- run
INSERT INTO corpus_shared.t (who) SELECT 'serial_1' FROM generate_series(1, 20) RETURNING id;
BEGIN;
INSERT INTO corpus_shared.t (who) VALUES ('serial_1') RETURNING id;
INSERT INTO corpus_shared.i (who) VALUES ('serial_1') RETURNING id;
COMMIT;
SELECT lastval() = currval('corpus_shared.i_id_seq');
