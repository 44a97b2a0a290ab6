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
