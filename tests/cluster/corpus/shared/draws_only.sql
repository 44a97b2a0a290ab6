-- compare: shape (several scripts draw from one sequence)
-- run
SELECT nextval('corpus_shared.s');
SELECT nextval('corpus_shared.s') FROM generate_series(1, 15);
BEGIN;
SELECT nextval('corpus_shared.s'), nextval('corpus_shared.t_id_seq');
SELECT currval('corpus_shared.t_id_seq'), lastval();
COMMIT;
