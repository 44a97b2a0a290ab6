//! The log over a disk that forgets, tears, rots, loses files and fills up.

mod common;

use common::{Author, Model, observe};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::sync::Arc;
use steeldb_ordering::{InstanceNumber, Record};
use steeldb_ordering_log::{Disk, Log, LogError, Options, Recovered, SimulatedDisk};

const OPTIONS: Options = Options { segment_bytes: 6000, sync: true };

fn open(disk: &SimulatedDisk) -> Result<(Log, Recovered), LogError> {
    Log::open(Arc::new(disk.clone()), OPTIONS)
}

/// A log with some segments, everything in it committed, and what it holds.
fn written(seed: u64, batches: usize) -> (SimulatedDisk, Model) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let disk = SimulatedDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    let (mut author, mut model) = (Author::new(), Model::default());
    for _ in 0..batches {
        for _ in 0..rng.random_range(1..4) {
            let record = author.record(&mut rng);
            log.append(&record).unwrap();
            model.apply(&record);
        }
        log.commit().unwrap();
        if rng.random_bool(0.2) {
            log.confirm().unwrap();
        }
    }
    log.confirm().unwrap();
    disk.write_back();
    (disk, model)
}

#[test]
fn what_was_committed_is_there_after_any_crash() {
    let (mut torn, mut survived, mut dropped) = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let disk = SimulatedDisk::new();
        let (mut author, mut model, mut first) = (Author::new(), Model::default(), 1);
        let (mut log, _) = open(&disk).unwrap();
        for _ in 0..rng.random_range(1..6) {
            for _ in 0..rng.random_range(0..40) {
                for _ in 0..rng.random_range(1..4) {
                    let record = author.record(&mut rng);
                    log.append(&record).unwrap();
                    model.apply(&record);
                }
                log.commit().unwrap();
                if rng.random_bool(0.3) {
                    log.confirm().unwrap();
                }
                if rng.random_bool(0.05) && model.checkpoint > 0 {
                    first = first.max(model.checkpoint);
                    log.truncate(InstanceNumber(first)).unwrap();
                }
            }
            // The last batch is under way when power is cut.
            let mut with_last = model.clone();
            let capacity = rng.random_bool(0.5).then(|| disk.used() + rng.random_range(0..3000));
            for _ in 0..rng.random_range(0..4) {
                let record = author.record(&mut rng);
                log.append(&record).unwrap();
                with_last.apply(&record);
            }
            disk.set_capacity(capacity);
            // In the middle of the commit, or after it.
            let in_the_middle = rng.random_bool(0.5);
            if in_the_middle {
                disk.stop_syncing();
            }
            if log.commit().is_ok() && !in_the_middle {
                model = with_last.clone();
            }
            let crashed = disk.copy();
            crashed.set_capacity(None);
            crashed.cut_power(&mut |n| rng.random_range(0..n));
            let (again, recovered) = open(&crashed).unwrap();
            torn += u64::from(recovered.torn_bytes > 0);
            assert_eq!(recovered.damage, [], "seed {seed}");
            let (_, found) = observe(recovered, &again.reader(), author.next + 1);
            let found = found.from(first);
            let (less, more) = (model.clone().from(first), with_last.clone().from(first));
            assert!(
                found == less || found == more,
                "seed {seed}: found {}\nwithout the last batch {}\nwith it {}",
                found.summary(),
                less.summary(),
                more.summary()
            );
            if found == more {
                survived += u64::from(less != more);
                model = with_last;
            }
            author.resume(&model);
            if model.votes.contains_key(&author.next) {
                // The vote stands: only what it is for may be decided.
                let votes = &model.votes[&author.next];
                let value = votes.iter().find_map(|vote| match vote {
                    Record::Write { proposal, .. } => Some(proposal.clone()),
                    Record::Accept { proposal, .. } => proposal.clone(),
                    _ => None,
                });
                log = again;
                let record = common::decision(author.regency, &value.unwrap());
                log.append(&record).unwrap();
                log.commit().unwrap();
                model.apply(&record);
                author.resume(&model);
            } else {
                log = again;
            }
            replace(&disk, &crashed, &mut log);
            dropped += u64::from(first > 1);
        }
    }
    assert!(torn > 20 && survived > 20 && dropped > 20, "{torn} {survived} {dropped}");
}

/// The process was killed between a write and its sync, and power is cut after the next start: what that one read, and may
/// have spoken of, is there.
#[test]
fn what_a_killed_process_had_written_outlives_a_power_cut_once_it_was_read() {
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (disk, mut model) = written(seed, 10);
        let mut author = Author::new();
        author.resume(&model);
        let unsynced = Options { sync: false, ..OPTIONS };
        let (mut log, _) = Log::open(Arc::new(disk.clone()), unsynced).unwrap();
        let record = author.record(&mut rng);
        log.append(&record).unwrap();
        model.apply(&record);
        log.commit().unwrap();
        drop(log);
        for start in ["after the kill", "after the power cut"] {
            let (log, recovered) = open(&disk).unwrap();
            let (_, found) = observe(recovered, &log.reader(), author.next + 1);
            assert!(found == model, "seed {seed}, {start}: {} {}", found.summary(), model.summary());
            disk.cut_power(&mut |_| 0);
        }
    }
}

/// Goes on with the crashed disk under the name of the first.
fn replace(disk: &SimulatedDisk, crashed: &SimulatedDisk, log: &mut Log) {
    disk.become_copy_of(crashed);
    *log = open(disk).unwrap().0;
}

#[test]
fn a_bit_that_rots_is_found_wherever_it_is_and_costs_no_promise() {
    let (mut lost, mut passive, mut harmless) = (0, 0, 0);
    for seed in 0..600 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (disk, model) = written(seed % 20, 40);
        let file = disk.list().unwrap().choose(&mut rng).unwrap().clone();
        let offset = rng.random_range(0..disk.read(&file).unwrap().len());
        disk.rot(&file, offset, 1 << rng.random_range(0..8));
        let what = format!("seed {seed}: {file} byte {offset}");
        match check_damaged(&disk, &model, &what) {
            Outcome::Lost => lost += 1,
            Outcome::Passive => passive += 1,
            Outcome::Harmless => harmless += 1,
        }
    }
    assert!(passive > 5 && harmless > 50, "{passive} {harmless}");
    assert!(lost < 20, "{lost}: one bit hardly ever costs everything");
}

#[derive(PartialEq, Debug)]
enum Outcome {
    Lost,
    Passive,
    Harmless,
}

fn check_damaged(disk: &SimulatedDisk, model: &Model, what: &str) -> Outcome {
    let (log, recovered) = match open(disk) {
        Ok(opened) => opened,
        Err(LogError::Lost { .. }) => return Outcome::Lost,
        Err(error) => panic!("{what}: {error}"),
    };
    let told = !recovered.damage.is_empty();
    let (given, found) = observe(recovered, &log.reader(), model.decided() + 2);
    check_promises(model, given, &found, what);
    assert!(told || (found == *model && found.passive == 0), "{what}: nothing was said");
    // Once made good, it stays good: what must not be voted for still must not.
    drop(log);
    let (mut log, recovered) = open(disk).unwrap();
    let (given, again) = observe(recovered, &log.reader(), model.decided() + 2);
    check_promises(model, given, &again, what);
    assert!(again.passive >= found.passive.min(again.passive.max(given)), "{what}");
    // And it goes on: the missing ones come from others.
    for decision in model.decisions.values() {
        log.append(&Record::Decision(Arc::clone(decision))).unwrap();
    }
    log.commit().unwrap();
    let (log, recovered) = open(disk).unwrap();
    let (given, whole) = observe(recovered, &log.reader(), model.decided() + 2);
    assert_eq!((given, &whole.decisions), (model.decided(), &model.decisions), "{what}");
    check_promises(model, given, &whole, what);
    if found.passive > 0 { Outcome::Passive } else { Outcome::Harmless }
}

fn check_promises(model: &Model, given: u64, found: &Model, what: &str) {
    assert!(found.regency >= model.regency, "{what}: the regency is forgotten");
    for (instance, decision) in &found.decisions {
        assert_eq!(Some(decision), model.decisions.get(instance), "{what}: another decision");
    }
    let may_vote_from = given.max(found.passive) + 1;
    assert!(found.decided() < may_vote_from, "{what}: votes where something is decided");
    // The votes of what was decided are gone, so the decision must be here, or nothing be voted for again.
    assert!(
        model.decided() < may_vote_from,
        "{what}: {} was decided, and may be voted for again",
        model.decided()
    );
    for (instance, votes) in model.votes.range(may_vote_from..) {
        assert_eq!(Some(votes), found.votes.get(instance), "{what}: votes are forgotten");
    }
}

#[test]
fn a_lost_file_is_missed() {
    for seed in 0..20 {
        let (disk, model) = written(seed, 40);
        let segments: Vec<String> =
            disk.list().unwrap().into_iter().filter(|file| file.starts_with("segment")).collect();
        assert!(segments.len() > 3);
        for (index, file) in segments.iter().enumerate() {
            let disk = disk.copy();
            disk.lose(file);
            let outcome = check_damaged(&disk, &model, file);
            assert_eq!(outcome == Outcome::Lost, index + 1 == segments.len(), "{file}");
        }
        for copy in ["manifest-a", "manifest-b"] {
            let disk = disk.copy();
            disk.lose(copy);
            assert_eq!(check_damaged(&disk, &model, copy), Outcome::Harmless);
        }
        disk.lose("manifest-a");
        disk.lose("manifest-b");
        let refused = open(&disk).err().unwrap().to_string();
        assert!(refused.contains("manifest") && refused.contains("rebuild this replica"), "{refused}");
    }
}

#[test]
fn a_zeroed_or_shortened_file_is_noticed() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (disk, model) = written(seed % 20, 40);
        let mut files = disk.list().unwrap();
        // Of the last segment a lost end looks like a torn tail: nothing says that it was there.
        files.retain(|file| file.starts_with("segment"));
        files.pop();
        let file = files.choose(&mut rng).unwrap().clone();
        let length = disk.read(&file).unwrap().len();
        let at = rng.random_range(0..length);
        if rng.random_bool(0.5) {
            disk.set_len(&file, at as u64).unwrap();
        } else {
            disk.write_at(&file, at as u64, &vec![0; (length - at).min(700)]).unwrap();
        }
        disk.write_back();
        check_damaged(&disk, &model, &format!("seed {seed}: {file} from {at}"));
    }
}

#[test]
fn zeros_in_the_last_segment_cost_votes_and_say_so() {
    let mut passive = 0;
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (disk, model) = written(seed % 20, 40);
        let file = disk.list().unwrap().pop().unwrap();
        let length = disk.read(&file).unwrap().len();
        if length < 300 {
            continue;
        }
        let at = rng.random_range(0..length - 200);
        disk.write_at(&file, at as u64, &[0; 100]).unwrap();
        disk.write_back();
        let outcome = check_damaged(&disk, &model, &format!("seed {seed}: {file} from {at}"));
        passive += u64::from(outcome == Outcome::Passive);
    }
    assert!(passive > 10);
}

#[test]
fn a_full_disk_is_said_and_costs_nothing() {
    let (disk, mut model) = written(1, 20);
    let (mut log, _) = open(&disk).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut author = Author::new();
    author.resume(&model);
    disk.set_capacity(Some(disk.used() + 5000));
    let error = loop {
        let mut tried = model.clone();
        let record = author.record(&mut rng);
        tried.apply(&record);
        match log.append(&record).and_then(|()| log.commit()) {
            Ok(()) => model = tried,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { .. }) && error.to_string().contains("disk is full"), "{error}");
    assert!(matches!(log.commit(), Err(LogError::Failed)));
    disk.set_capacity(None);
    let (log, recovered) = open(&disk).unwrap();
    let (_, found) = observe(recovered, &log.reader(), model.decided() + 2);
    assert_eq!(found, model);
}

#[test]
fn rot_after_the_start_is_no_other_decision() {
    let (disk, model) = written(3, 40);
    let (log, _) = open(&disk).unwrap();
    let reader = log.reader();
    for file in disk.list().unwrap().iter().filter(|file| file.starts_with("segment")) {
        for offset in (0..disk.read(file).unwrap().len()).step_by(7) {
            disk.rot(file, offset, 4);
        }
    }
    let mut errors = 0;
    for instance in 1..=model.decided() {
        match reader.decisions(InstanceNumber(instance), 1 << 20, 10) {
            Ok(decisions) => {
                for decision in decisions {
                    assert_eq!(&decision, &model.decisions[&decision.instance().0]);
                }
            }
            Err(error) => {
                assert!(error.to_string().contains("segment-"), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 0);
}
