//! A log read by somebody else while it is written.

use std::sync::Arc;
use steeldb_ordering::{Claim, Decision, InstanceNumber, Proof, Proposal, Record, Regency, Request};
use steeldb_ordering_log::{Disk, History, Log, LogError, Options, SimulatedDisk};
use steeldb_types::{Digest, Timestamp};

fn decision(number: u64) -> Arc<Decision> {
    let request = Request::Certified { key: Digest([number as u8; 32]), payload: vec![7; 300] };
    let (instance, timestamp) = (InstanceNumber(number), Timestamp(number as i64));
    let proposal = Arc::new(Proposal { instance, timestamp, requests: vec![Arc::new(request)] });
    let claim = Claim { regency: Regency::new(0, 0), value: proposal.digest() };
    Arc::new(Decision { proposal, proof: Proof { instance, claim, accepts: vec![] } })
}

fn held(history: &History) -> Vec<u64> {
    (1..100).take_while(|number| history.decision(InstanceNumber(*number)).unwrap().is_some()).collect()
}

#[test]
fn what_is_written_is_seen_once_it_is_looked_for_over_many_segments() {
    let disk = SimulatedDisk::new();
    let empty: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(matches!(History::open(Arc::clone(&empty)), Err(LogError::Lost { .. })));
    let options = Options { segment_bytes: 2000, ..Options::default() };
    let (mut log, _) = Log::open(empty, options).unwrap();
    let mut history = History::open(Arc::new(disk.clone())).unwrap();
    assert_eq!((held(&history), history.first()), (vec![], None));
    for number in 1..=20 {
        let decision = decision(number);
        let (regency, proposal) = (Regency::new(0, 0), Arc::clone(&decision.proposal));
        log.append(&Record::Write { regency, proposal }).unwrap();
        log.commit().unwrap();
        log.append(&Record::Decision(Arc::clone(&decision))).unwrap();
        assert_eq!(held(&history).len() as u64, number - 1, "not looked for, or not written");
        history.look_again().unwrap();
        assert_eq!(held(&history).len() as u64, number - 1);
        log.commit().unwrap();
        history.look_again().unwrap();
        assert_eq!(history.decision(InstanceNumber(number)).unwrap(), Some(decision));
    }
    assert_eq!(held(&History::open(Arc::new(disk.clone())).unwrap()).len(), 20);
    log.truncate(InstanceNumber(10)).unwrap();
    let later = History::open(Arc::new(disk)).unwrap();
    assert!(later.first() > Some(InstanceNumber(1)));
}
