//! The log over real files: killed processes, dropped segments, readers beside the writer.

mod common;

use common::{Author, Model, observe};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use steeldb_ordering::{InstanceNumber, Record};
use steeldb_ordering_log::{Directory, Journal, Log, LogError, Options};

const OPTIONS: Options = Options { segment_bytes: 100_000, sync: true };
const CHILD: &str = "STEELDB_ORDERING_LOG_CHILD";

fn directory(path: &Path) -> Arc<Directory> {
    Arc::new(Directory::open(path).unwrap())
}

/// The records of a run: the same for the child that writes them and the parent that looks for them.
fn records(seed: u64, from: &Model) -> impl Iterator<Item = Record> + use<> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut author = Author::new();
    author.resume(from);
    std::iter::from_fn(move || Some(author.record(&mut rng)))
}

fn look(path: &Path, last: u64) -> Model {
    let (log, recovered) = Log::open(directory(path), OPTIONS).unwrap();
    assert_eq!(recovered.damage, []);
    observe(recovered, &log.reader(), last).1
}

/// Not a test of its own: the process that is killed. It writes without end, and says what is durable.
#[test]
fn child() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let (seed, path) = place.split_once(':').unwrap();
    let before = look(Path::new(path), 10_000);
    let (said, heard) = mpsc::channel();
    let (journal, _) = Journal::open(directory(Path::new(path)), OPTIONS, move |upto| {
        let _ = said.send(upto.unwrap());
    })
    .unwrap();
    let mut durable = 0;
    for (record, sequence) in records(seed.parse().unwrap(), &before).zip(1..) {
        journal.append(sequence, record);
        while durable + 50 < sequence {
            durable = heard.recv().unwrap();
            println!("durable {durable}");
        }
    }
}

#[test]
fn what_a_killed_process_reported_durable_is_there() {
    let place = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut model = Model::default();
    for seed in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, format!("{seed}:{}", place.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reports = rng.random_range(1..60);
        let number = |line: String| line.strip_prefix("durable ").and_then(|upto| upto.parse::<usize>().ok());
        let mut durable = lines.by_ref().filter_map(number).take(reports).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        durable = lines.filter_map(number).last().unwrap_or(durable);

        // Everything reported, and perhaps some more.
        let mut with_more = model.clone();
        let mut written = records(seed, &model);
        written.by_ref().take(durable).for_each(|record| with_more.apply(&record));
        let found = look(place.path(), with_more.decided() + 100);
        let mut more = 0;
        while found != with_more {
            more += 1;
            assert!(more < 1000, "seed {seed}: {durable} were durable; found {}", found.summary());
            with_more.apply(&written.next().unwrap());
        }
        model = found;
        // The next process decides anew what was not decided.
        model.votes.clear();
        let (mut log, _) = Log::open(directory(place.path()), OPTIONS).unwrap();
        let undecided = common::proposal(model.decided() + 1, 10);
        log.append(&common::decision(model.regency.number, &undecided)).unwrap();
        log.commit().unwrap();
        model.apply(&common::decision(model.regency.number, &undecided));
    }
    assert!(model.decided() > 50);
}

#[test]
fn whole_segments_are_dropped_and_a_reader_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(directory(place.path()), OPTIONS).unwrap();
    let reader = log.reader();
    let write = |log: &mut Log, instances: std::ops::RangeInclusive<u64>| {
        for instance in instances {
            let value = common::proposal(instance, 1000);
            for record in [common::write(0, &value), common::decision(0, &value)] {
                log.append(&record).unwrap();
            }
            log.commit().unwrap();
        }
    };
    let bytes = || -> u64 {
        let files = std::fs::read_dir(place.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    write(&mut log, 1..=1000);
    let before = bytes();
    assert!(before < 1000 * 1450, "{before}: a decision repeats its value");
    log.append(&common::checkpoint(900)).unwrap();
    log.commit().unwrap();
    log.truncate(InstanceNumber(800)).unwrap();
    assert!(bytes() < before / 3);
    assert!(reader.decisions(InstanceNumber(1), 1, 1).unwrap().is_empty());
    let kept = reader.decisions(InstanceNumber(800), usize::MAX, usize::MAX).unwrap();
    assert_eq!(kept.len(), 201);
    assert_eq!(reader.decisions(InstanceNumber(900), 3000, 100).unwrap().len(), 3);
    write(&mut log, 1001..=1100);
    drop(log);
    let (log, recovered) = Log::open(directory(place.path()), OPTIONS).unwrap();
    let (given, model) = observe(recovered, &log.reader(), 1101);
    assert_eq!((given, model.checkpoint, model.decided(), model.passive), (1100, 900, 1100, 0));
}

#[test]
fn an_application_behind_the_checkpoint_gets_decisions_while_there_are_all() {
    let place = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 3000, sync: false };
    let (mut log, _) = Log::open(directory(place.path()), options).unwrap();
    for instance in 1..=20 {
        log.append(&common::decision(0, &common::proposal(instance, 500))).unwrap();
        log.commit().unwrap();
    }
    log.append(&common::checkpoint(10)).unwrap();
    log.commit().unwrap();
    let first = |delivered| {
        let (_, recovered) = Log::open(directory(place.path()), options).unwrap();
        let found = recovered
            .records(InstanceNumber(delivered))
            .find(|record| !matches!(record, Record::Regency(_)))
            .unwrap();
        match found {
            Record::Decision(decision) => decision.instance().0,
            Record::Checkpoint(_) => 0,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((first(3), first(10), first(15)), (1, 0, 0));
    let (mut log, _) = Log::open(directory(place.path()), options).unwrap();
    log.truncate(InstanceNumber(8)).unwrap();
    drop(log);
    assert_eq!(first(3), 0, "the core fetches the state");
}

#[test]
fn a_journal_reports_a_disk_that_fails() {
    let place = tempfile::tempdir().unwrap();
    let (said, heard) = mpsc::channel();
    let (journal, _) =
        Journal::open(directory(place.path()), OPTIONS, move |done| said.send(done).unwrap()).unwrap();
    journal.append(1, common::decision(0, &common::proposal(1, 10)));
    assert_eq!(heard.recv().unwrap().unwrap(), 1);
    // The next segment cannot be made.
    std::fs::remove_dir_all(place.path()).unwrap();
    for sequence in 2.. {
        journal.append(sequence, common::decision(0, &common::proposal(sequence, 100_000)));
        if let Err(error) = heard.recv().unwrap() {
            assert!(matches!(error, LogError::Io { .. }) && error.to_string().contains("segment"), "{error}");
            break;
        }
    }
}
