-- compare: shape (several scripts draw from one sequence)
-- run
SELECT nextval('corpus_shared.ring') BETWEEN 1 AND 5 FROM generate_series(1, 12);
SELECT currval('corpus_shared.ring') = lastval();
