//! Histories with one anomaly each, planted by hand: the checker names it, names the transactions, and nothing else.

use steeldb_isolation::{History, Kind, Operation, Outcome, Report, Transaction, check};

/// A transaction that is built step by step. Unless told otherwise it overlaps with all others.
struct Builder(Transaction);

fn t(id: u64) -> Builder {
    let client = u32::try_from(id).unwrap();
    let operations = Vec::new();
    Builder(Transaction { id, client, begin_us: 0, end_us: 1000, outcome: Outcome::Committed, operations })
}

impl Builder {
    fn at(mut self, begin_us: u64, end_us: u64) -> Builder {
        (self.0.begin_us, self.0.end_us) = (begin_us, end_us);
        self
    }

    fn ends(mut self, outcome: Outcome) -> Builder {
        self.0.outcome = outcome;
        self
    }

    fn append(mut self, key: &str, value: u64) -> Builder {
        self.0.operations.push(Operation::Append { key: key.into(), value });
        self
    }

    fn read(mut self, key: &str, values: &[u64]) -> Builder {
        self.0.operations.push(Operation::Read { key: key.into(), values: values.into() });
        self
    }

    fn get(mut self, key: &str, value: u64) -> Builder {
        self.0.operations.push(Operation::Get { key: key.into(), value });
        self
    }

    fn set(mut self, key: &str, value: u64) -> Builder {
        self.0.operations.push(Operation::Set { key: key.into(), value });
        self
    }
}

fn history<const N: usize>(transactions: [Builder; N]) -> History {
    History::new(transactions.into_iter().map(|builder| builder.0).collect()).unwrap()
}

/// Checks that this anomaly is found, with these transactions, and no other.
#[track_caller]
fn found<const N: usize>(kind: Kind, transactions: &[u64], planted: [Builder; N]) -> Report {
    let report = check(&history(planted));
    assert_eq!(report.kinds(), [kind], "{report}");
    let mut named = report.anomalies[0].transactions.clone();
    named.sort_unstable();
    assert_eq!(named, transactions, "{report}");
    let text = report.to_string();
    assert!(text.contains(&format!("ANOMALIES: {}", kind.name())), "{text}");
    for id in transactions {
        assert!(text.contains(&format!("T{id} ")), "{text}");
    }
    report
}

#[track_caller]
fn clean<const N: usize>(transactions: [Builder; N]) -> Report {
    let report = check(&history(transactions));
    assert!(report.is_clean(), "{report}");
    report
}

#[test]
fn g0_writes_of_two_transactions_are_interleaved() {
    let report = found(
        Kind::G0,
        &[1, 2],
        [
            t(1).append("a", 1).append("b", 1),
            t(2).append("a", 2).append("b", 2),
            t(3).read("a", &[1, 2]).read("b", &[2, 1]).at(2000, 3000),
        ],
    );
    let text = report.to_string();
    assert!(text.contains("T1 -ww-> T2: T2 wrote 2 to \"a\" right after 1 of T1"), "{text}");
    assert!(text.contains("T2 -ww-> T1: T1 wrote 1 to \"b\" right after 2 of T2"), "{text}");
}

#[test]
fn g1a_what_was_rolled_back_is_read() {
    let aborted = || t(1).append("a", 1).ends(Outcome::Aborted);
    found(Kind::G1a, &[1, 2], [aborted(), t(2).read("a", &[1])]);
    found(Kind::G1a, &[1, 2], [t(1).get("r", 0).set("r", 1).ends(Outcome::Aborted), t(2).get("r", 1)]);
    // What an aborted transaction was shown proves nothing.
    clean([aborted(), t(2).read("a", &[1]).ends(Outcome::Aborted)]);
}

#[test]
fn g1b_a_transaction_is_seen_half_done() {
    found(
        Kind::G1b,
        &[1, 2],
        [t(1).append("a", 1).append("a", 2), t(2).read("a", &[1]), t(3).read("a", &[1, 2]).at(2000, 3000)],
    );
    found(Kind::G1b, &[1, 2], [t(1).get("r", 0).set("r", 1).set("r", 2), t(2).get("r", 1)]);
}

#[test]
fn g1c_each_reads_what_the_other_wrote() {
    let report =
        found(Kind::G1c, &[1, 2], [t(1).append("a", 1).read("b", &[2]), t(2).append("b", 2).read("a", &[1])]);
    assert!(report.to_string().contains("T1 -wr-> T2: T2 read \"a\" up to 1, which T1 wrote"), "{report}");
    // One wr and one ww.
    found(
        Kind::G1c,
        &[1, 2],
        [
            t(1).append("a", 1).append("b", 1),
            t(2).append("a", 2).read("b", &[]),
            t(3).read("a", &[2, 1]).at(2000, 3000),
            t(4).get("r", 0).set("r", 4),
        ]
        .map(|builder| match builder.0.id {
            // T2 comes first in the list, yet has read T1's other write.
            2 => {
                let mut builder = builder;
                builder.0.operations[1] = Operation::Read { key: "b".into(), values: vec![1] };
                builder
            }
            _ => builder,
        }),
    );
}

#[test]
fn g_single_a_transaction_sees_half_of_another() {
    let report = found(
        Kind::GSingle,
        &[1, 2],
        [
            t(1).append("a", 1).append("b", 1),
            t(2).read("a", &[1]).read("b", &[]),
            t(3).read("b", &[1]).at(2000, 3000),
        ],
    );
    let text = report.to_string();
    assert!(
        text.contains("T2 -rw-> T1: T2 read \"b\" up to nothing, and so without 1, which T1 wrote"),
        "{text}"
    );
    // Registers, too.
    found(
        Kind::GSingle,
        &[1, 2],
        [t(1).get("r", 0).set("r", 1).get("q", 0).set("q", 2), t(2).get("r", 1).get("q", 0)],
    );
}

#[test]
fn lost_update_two_write_on_the_strength_of_one_version() {
    found(Kind::LostUpdate, &[1, 2], [t(1).get("r", 0).set("r", 1), t(2).get("r", 0).set("r", 2)]);
    // A list whose second append came from a version without the first, which then is gone.
    found(
        Kind::LostUpdate,
        &[1, 2],
        [
            t(1).read("a", &[]).append("a", 1),
            t(2).read("a", &[]).append("a", 2),
            t(3).read("a", &[1, 2]).at(2000, 3000),
        ],
    );
    found(
        Kind::LostUpdate,
        &[1, 2],
        [t(1).read("a", &[]).append("a", 1), t(2).read("a", &[]).append("a", 2), t(3).read("a", &[2])],
    );
}

#[test]
fn long_fork_two_see_two_writes_in_different_orders() {
    found(
        Kind::LongFork,
        &[1, 2, 3, 4],
        [
            t(1).append("a", 1),
            t(2).append("b", 2),
            t(3).read("a", &[1]).read("b", &[]),
            t(4).read("a", &[]).read("b", &[2]),
        ],
    );
}

#[test]
fn real_time_an_acknowledged_commit_is_not_seen() {
    let report = found(
        Kind::RealTime,
        &[1, 2],
        [t(1).append("a", 1).at(0, 10), t(2).read("a", &[]).at(11, 20), t(3).read("a", &[1]).at(30, 40)],
    );
    let text = report.to_string();
    let words = "T1 was acknowledged at 0.000010 s, before the first statement of T2 at 0.000011 s";
    assert!(text.contains(words), "{text}");
    // Through a third one, whose commit cannot have been before either.
    found(
        Kind::RealTime,
        &[1, 2, 3],
        [
            t(1).append("a", 1).append("b", 1).at(0, 100),
            t(2).read("a", &[1]).at(50, 60),
            t(3).read("b", &[]).at(70, 80),
            t(4).read("b", &[1]).at(200, 210),
        ],
    );
    // At the same moment there is no order.
    clean([t(1).append("a", 1).at(0, 10), t(2).read("a", &[]).at(10, 20), t(3).read("a", &[1]).at(30, 40)]);
}

#[test]
fn an_acknowledged_write_that_no_later_read_shows_is_lost() {
    let planted =
        [t(1).append("a", 1).at(0, 10), t(2).append("a", 2).at(0, 10), t(3).read("a", &[2]).at(20, 30)];
    let report = found(Kind::RealTime, &[1, 3], planted);
    assert_eq!(report.lost, [(1, "a".to_string(), 1)]);
    // It is there again for a while, and gone at the end.
    let seen =
        [t(1).append("a", 1).at(0, 10), t(2).read("a", &[1]).at(20, 30), t(3).read("a", &[]).at(40, 50)];
    let report = check(&history(seen));
    assert_eq!(report.lost, []);
    assert_eq!(report.kinds(), [Kind::RealTime]);
}

#[test]
fn internal_a_transaction_contradicts_itself() {
    found(Kind::Internal, &[1], [t(1).append("a", 1).read("a", &[])]);
    found(Kind::Internal, &[2], [t(1).append("a", 1), t(2).read("a", &[]).read("a", &[1])]);
    found(Kind::Internal, &[1], [t(1).get("r", 0).set("r", 1).get("r", 0)]);
}

#[test]
fn incompatible_order_a_list_has_two_histories() {
    let planted = [t(1).append("a", 1), t(2).append("a", 2), t(3).read("a", &[1]), t(4).read("a", &[2])];
    found(Kind::IncompatibleOrder, &[3, 4], planted);
}

#[test]
fn duplicate_and_unwritten_values_are_found() {
    found(Kind::Duplicate, &[2], [t(1).append("a", 1), t(2).read("a", &[1, 1])]);
    found(Kind::Unwritten, &[2], [t(1).append("a", 1), t(2).read("a", &[1, 9])]);
    found(Kind::Unwritten, &[1], [t(1).get("r", 9)]);
}

#[test]
fn write_skew_is_allowed() {
    let report = clean([
        t(1).read("a", &[]).append("b", 1),
        t(2).read("b", &[]).append("a", 2),
        t(3).read("a", &[2]).read("b", &[1]).at(2000, 3000),
    ]);
    assert_eq!(report.dependencies[2], 2);
}

#[test]
fn an_unknown_outcome_may_be_either_but_not_both() {
    let unknown = || t(1).append("a", 1).append("b", 1).at(0, 10).ends(Outcome::Unknown);
    assert_eq!(clean([unknown(), t(2).read("a", &[]).at(20, 30)]).revealed, 0);
    assert_eq!(clean([unknown(), t(2).read("a", &[1]).read("b", &[1]).at(20, 30)]).revealed, 1);
    // It may also take effect late: nobody was told that it had.
    clean([unknown(), t(2).read("a", &[]).at(20, 30), t(3).read("a", &[1]).at(40, 50)]);
    // But not by halves, and what it was shown counts once it has taken effect.
    found(Kind::GSingle, &[1, 2], [unknown(), t(2).read("a", &[1]).read("b", &[]), t(3).read("b", &[1])]);
    found(
        Kind::GSingle,
        &[1, 2],
        [
            t(1).append("a", 1).append("b", 1),
            t(2).read("a", &[1]).read("b", &[]).append("c", 2).ends(Outcome::Unknown),
            t(3).read("c", &[2]).read("b", &[1]),
        ],
    );
}
