use super::*;
use std::os::unix::fs::FileExt as _;

fn gid(number: u64) -> String {
    Digest::of("test", &[&number.to_be_bytes()]).to_string()
}

fn body(number: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u64 * 31 + number) as u8).collect()
}

fn options(bytes_max: u64) -> Options {
    Options { bytes_max, age_max: Duration::from_secs(3600), sync: true }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_is_kept_is_there_before_it_is_written_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
    for number in 0..100 {
        effects.keep(Kind::WriteSet, &gid(number), body(number, 1000)).await;
    }
    let ticket = effects.keep(Kind::Script, &gid(7), body(7, 3)).await;
    assert_eq!(effects.whole(Kind::WriteSet, &gid(99)), Some(body(99, 1000)));
    effects.until_durable(ticket).await;
    assert!(effects.durable() >= ticket);
    drop((effects, writing));
    let (effects, _writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
    for number in 0..100 {
        assert_eq!(effects.whole(Kind::WriteSet, &gid(number)), Some(body(number, 1000)));
    }
    // A script goes before a write set.
    assert_eq!(effects.part(&gid(7), 0, 100).unwrap().kind, Kind::Script);
    assert_eq!(effects.part(&gid(8), 0, 100).unwrap().kind, Kind::WriteSet);
    assert_eq!(effects.part(&gid(100), 0, 100), None);
    assert_eq!(effects.keep(Kind::WriteSet, "somebody else's", vec![1]).await, 0);
}

#[tokio::test]
async fn what_comes_again_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
    for _ in 0..3 {
        let ticket = effects.keep(Kind::WriteSet, &gid(1), body(1, 1000)).await;
        effects.until_durable(ticket).await;
    }
    drop((effects, writing));
    let bytes: u64 = files(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(bytes, 1000 + segment::HEAD_BYTES as u64);
}

#[tokio::test]
async fn large_ones_are_read_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (effects, _writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
    let whole = body(1, 5_000_001);
    let ticket = effects.keep(Kind::WriteSet, &gid(1), whole.clone()).await;
    for _ in 0..2 {
        let mut read = Vec::new();
        while read.len() < whole.len() {
            let part = effects.part(&gid(1), read.len() as u64, 1_000_000).unwrap();
            assert_eq!(part.total, whole.len() as u64);
            read.extend(part.bytes);
        }
        assert!(read == whole);
        assert_eq!(effects.part(&gid(1), u64::MAX, 10).unwrap().bytes, Vec::<u8>::new());
        effects.until_durable(ticket).await;
    }
}

#[tokio::test]
async fn the_oldest_go_past_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let (effects, writing) = Effects::open(dir.path(), options(1 << 20)).unwrap();
    for number in 0..400 {
        let ticket = effects.keep(Kind::WriteSet, &gid(number), body(number, 10_000)).await;
        effects.until_durable(ticket).await;
    }
    let bytes: u64 = files(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= (1 << 20) + (1 << 16) + 10_060, "{bytes}");
    assert_eq!(effects.whole(Kind::WriteSet, &gid(0)), None);
    assert!(effects.whole(Kind::WriteSet, &gid(399)).is_some());
    assert!(effects.whole(Kind::WriteSet, &gid(320)).is_some());
    drop((effects, writing));
    // Too old: all but the newest file goes.
    let old = Options { age_max: Duration::ZERO, ..options(1 << 20) };
    let (effects, _writing) = Effects::open(dir.path(), old).unwrap();
    assert!(effects.files() > 2);
    for file in files(dir.path()) {
        // As if all had been kept long ago: every head says when.
        rewrite_times(&file);
    }
    drop((effects, _writing));
    let (effects, _writing) = Effects::open(dir.path(), old).unwrap();
    let ticket = effects.keep(Kind::WriteSet, &gid(1000), body(0, 10)).await;
    effects.until_durable(ticket).await;
    assert_eq!(effects.files(), 1);
}

fn rewrite_times(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut at = 0;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let body = &bytes[at + segment::HEAD_BYTES..at + segment::HEAD_BYTES + length];
        let gid = Digest(bytes[at + 20..at + 52].try_into().unwrap());
        let head = Head::new(Kind::WriteSet, gid, 1000, body);
        file.write_all_at(&head.encode(), at as u64).unwrap();
        at += segment::HEAD_BYTES + length;
    }
}

#[tokio::test]
async fn rot_is_found_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
    for number in 0..3 {
        effects.keep(Kind::WriteSet, &gid(number), body(number, 100)).await;
    }
    drop(writing);
    let file = std::fs::OpenOptions::new().write(true).open(&files(dir.path())[0]).unwrap();
    file.write_all_at(&[0xff], 160 + segment::HEAD_BYTES as u64 + 5).unwrap();
    assert_eq!(effects.whole(Kind::WriteSet, &gid(0)), Some(body(0, 100)));
    assert_eq!(effects.whole(Kind::WriteSet, &gid(1)), None);
    assert_eq!(effects.whole(Kind::WriteSet, &gid(2)), Some(body(2, 100)));
}

/// Every length that a crash may leave the last file with.
#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
    for number in 0..3 {
        effects.keep(Kind::WriteSet, &gid(number), body(number, 20)).await;
    }
    drop((effects, writing));
    let path = files(dir.path())[0].clone();
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
        let whole = length / (20 + segment::HEAD_BYTES);
        for number in 0..3 {
            let there = effects.whole(Kind::WriteSet, &gid(number)).is_some();
            assert_eq!(there, (number as usize) < whole, "{length} bytes, {number}");
        }
        let ticket = effects.keep(Kind::WriteSet, &gid(50), body(50, 20)).await;
        effects.until_durable(ticket).await;
        assert_eq!(effects.whole(Kind::WriteSet, &gid(50)), Some(body(50, 20)));
        drop((effects, writing));
        for file in files(dir.path()).into_iter().skip(1) {
            std::fs::remove_file(file).unwrap();
        }
    }
}

mod bulk {
    use super::*;
    use steeldb_postgres::write_set::{Order, Part};
    use steeldb_postgres::{Change, Identity, Operation, Row};

    fn changes(length: usize) -> Vec<Change> {
        let row = |number: usize| {
            let new = Row::new(vec![("a".to_string(), Some(format!("{number:06}")))]).unwrap();
            let (identity, operation) = (Identity::Row, Operation::Insert { new });
            Change { schema: "s".into(), table: "t".into(), identity, operation }
        };
        (0..length).map(row).collect()
    }

    fn spill(effects: &Effects, number: u64, length: usize) -> Spilled {
        spill_into(effects.spill(), number, length)
    }

    fn spill_into(mut spill: Spill, number: u64, length: usize) -> Spilled {
        let mut order = Order::default();
        for changes in changes(length).chunks(60) {
            let mut part = Part::default();
            changes.iter().for_each(|change| part.push(change.clone(), &mut order));
            spill.add(part);
        }
        spill.finish(&gid(number)).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn b13_a_bulk_transactions_rows_are_given_at_once_and_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
        let spilled = spill(&effects, 1, 200);
        assert_eq!(spilled.write_set, steeldb_postgres::WriteSet::new(changes(200)).digest().unwrap());
        let ticket = effects.keep_bulk(spilled.rows.unwrap());
        let whole = effects.part(&gid(1), 0, usize::MAX).unwrap();
        assert_eq!(whole.kind, Kind::Bulk);
        // Cut anywhere, it is the same.
        for from in 0..whole.bytes.len() {
            let part = effects.part(&gid(1), from as u64, 100).unwrap();
            let upto = whole.bytes.len().min(from + 100);
            assert!(part.total == whole.total && part.bytes == whole.bytes[from..upto], "from {from}");
        }
        assert_eq!(effects.part(&gid(1), u64::MAX, 100).unwrap().bytes, Vec::<u8>::new());
        effects.until_durable(ticket).await;
        assert!(effects.keeps_rows(&gid(1)) && !effects.keeps_rows(&gid(2)));
        let bytes = effects.bulk_bytes();
        // What a crash leaves of others.
        let _abandoned = spill(&effects, 2, 100);
        std::fs::write(dir.path().join(format!("{}.bulk", gid(3))), b"torn").unwrap();
        std::fs::write(dir.path().join(".tmpx.unfinished"), b"torn").unwrap();
        drop((effects, writing));
        let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
        assert_eq!(names(dir.path()), [format!("{}.bulk", gid(1))]);
        assert_eq!(effects.part(&gid(1), 0, usize::MAX), Some(whole.clone()));
        assert_eq!((effects.bulk_bytes(), effects.bytes()), (bytes, bytes));
        // Decoding shows it again.
        let again = spill(&effects, 1, 200);
        assert_eq!(effects.keep_bulk(again.rows.unwrap()), 0);
        assert_eq!(names(dir.path()), [format!("{}.bulk", gid(1))]);
        // And that it was rolled back.
        effects.drop_bulk(&gid(1));
        assert_eq!((effects.part(&gid(1), 0, 1), names(dir.path()).len()), (None, 0));
        let unfinished = spill(&effects, 4, 100);
        effects.keep_bulk(unfinished.rows.unwrap());
        effects.drop_bulk(&gid(4));
        drop((effects, writing));
        assert_eq!(names(dir.path()).len(), 0, "nor is one found that was not on disk for good yet");
    }

    #[tokio::test]
    async fn b13_rows_are_kept_up_to_the_bound_and_the_digest_past_it() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes_max| spill_into(Spill::new(dir.path(), bytes_max), 1, 200);
        let (w, rows) = (of(u64::MAX).write_set, of(u64::MAX).rows.unwrap());
        let length = rows.0.bytes();
        drop(rows);
        for (bytes_max, kept) in [(length, true), (length - 1, false), (0, false)] {
            let spilled = of(bytes_max);
            assert_eq!((spilled.write_set, spilled.rows.is_some()), (w, kept), "{bytes_max}");
        }
        assert_eq!(names(dir.path()).len(), 0);
        // A disk that takes nothing is no reason not to vote.
        let spilled = spill_into(Spill::new(&dir.path().join("missing"), u64::MAX), 1, 200);
        assert_eq!((spilled.write_set, spilled.rows.is_none()), (w, true));
    }

    #[tokio::test]
    async fn the_oldest_go_past_the_bound_whether_bulk_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let (effects, writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
        let mut ticket = 0;
        for number in 0..3 {
            ticket = effects.keep_bulk(spill(&effects, number, 200).rows.unwrap());
        }
        effects.until_durable(ticket).await;
        let one = effects.bulk_bytes() / 3;
        effects.set_bounds(2 * one + 200, Duration::from_secs(3600));
        let ticket = effects.keep(Kind::WriteSet, &gid(9), body(9, 100)).await;
        effects.until_durable(ticket).await;
        let kept = |number| effects.part(&gid(number), 0, 1).is_some();
        assert_eq!((kept(0), kept(1), kept(2), kept(9)), (false, true, true, true));
        assert_eq!(effects.bulk_bytes(), 2 * one);
        drop((effects, writing));
        // Too old: as if they had been kept long ago.
        for file in
            files(dir.path()).into_iter().filter(|file| file.extension().is_some_and(|end| end == "bulk"))
        {
            let mut bytes = std::fs::read(&file).unwrap();
            let foot = bytes.len() - 68;
            bytes[foot + 24..foot + 32].copy_from_slice(&1000u64.to_le_bytes());
            let crc = crc32fast::hash(&bytes[foot..foot + 64]);
            bytes[foot + 64..].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&file, bytes).unwrap();
        }
        let (effects, _writing) = Effects::open(dir.path(), options(1 << 30)).unwrap();
        assert_eq!(effects.bulk_bytes(), 2 * one);
        let ticket = effects.keep(Kind::WriteSet, &gid(10), body(10, 100)).await;
        effects.until_durable(ticket).await;
        assert_eq!((effects.bulk_bytes(), effects.part(&gid(1), 0, 1)), (0, None));
    }
}
