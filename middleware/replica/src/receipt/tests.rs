use super::*;
use crate::effects::{Effects, Kind, Options, Writing};
use std::time::Duration;
use steeldb_postgres::write_set::{Order, Part};
use steeldb_postgres::{Identity, Operation, Row, WriteSet};

const KEPT: Options = Options { bytes_max: 1 << 30, age_max: Duration::from_secs(3600), sync: false };

fn insert(value: &str) -> Change {
    let new = Row::new(vec![("a".to_string(), Some(value.to_string()))]).unwrap();
    let (identity, operation) = (Identity::Row, Operation::Insert { new });
    Change { schema: "public".into(), table: "t".into(), identity, operation }
}

fn truncate(table: &str) -> Change {
    let operation = Operation::Truncate { restart_identity: false };
    Change { schema: "public".into(), table: table.into(), identity: Identity::Row, operation }
}

/// What a peer keeps of `changes`, and its digest.
struct Peer {
    body: Vec<u8>,
    write_set: Digest,
    _kept: (tempfile::TempDir, Effects, Writing),
}

fn peer(changes: &[Change]) -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let (effects, writing) = Effects::open(dir.path(), KEPT).unwrap();
    let gid = Digest::of("test", &[]).to_string();
    let mut spill = effects.spill();
    let mut order = Order::default();
    for changes in changes.chunks(100) {
        let mut part = Part::default();
        changes.iter().for_each(|change| part.push(change.clone(), &mut order));
        spill.add(part);
    }
    let spilled = spill.finish(&gid).unwrap();
    assert_eq!(spilled.write_set, WriteSet::new(changes.to_vec()).digest().unwrap());
    assert_eq!(spilled.changes, changes.len() as u64);
    effects.keep_bulk(spilled.rows.unwrap());
    let part = effects.part(&gid, 0, usize::MAX).unwrap();
    assert_eq!((part.kind, part.total), (Kind::Bulk, part.bytes.len() as u64));
    Peer { body: part.bytes, write_set: spilled.write_set, _kept: (dir, effects, writing) }
}

fn receipt(dir: &tempfile::TempDir, write_set: Digest) -> Receipt {
    Receipt::new(dir.path(), write_set, 1 << 30, Arc::default()).unwrap()
}

/// Hands all of a body over from where it goes on; whether it is whole.
fn hand(receipt: &mut Receipt, body: &[u8], piece: usize) -> Result<bool, Refused> {
    let mut whole = false;
    for piece in body[receipt.at() as usize..].chunks(piece) {
        assert!(!whole, "more comes behind the whole");
        whole = receipt.add(body.len() as u64, piece)?;
    }
    Ok(whole)
}

fn read(received: Received, bytes_max: usize) -> Vec<Vec<Change>> {
    let mut reader = Arc::new(received).reader();
    let mut pieces = Vec::new();
    loop {
        match reader.next(bytes_max).unwrap() {
            changes if changes.is_empty() => return pieces,
            changes => pieces.push(changes),
        }
    }
}

/// Many rows, of which some come very often: more than between two digests in memory.
fn changes() -> Vec<Change> {
    let number = |number: usize| if number.is_multiple_of(3) { 0 } else { number };
    (0..500).map(|at| insert(&format!("row {}", number(at)))).collect()
}

#[test]
fn b13_what_comes_in_pieces_is_whole_however_it_is_cut() {
    let (dir, changes) = (tempfile::tempdir().unwrap(), changes());
    let peer = peer(&changes);
    for piece in [1, 7, 32, 4096, peer.body.len()] {
        let mut receipt = receipt(&dir, peer.write_set);
        assert!(hand(&mut receipt, &peer.body, piece).unwrap(), "pieces of {piece}");
        let received = receipt.finish().unwrap();
        assert_eq!(received.changes(), 500);
        assert_eq!(read(received, 1000).concat(), changes);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn b13_a_wrong_byte_anywhere_is_told_and_nothing_is_taken_for_whole_before_the_end() {
    let (dir, changes) = (tempfile::tempdir().unwrap(), [insert("1"), insert("2"), insert("2")]);
    let peer = peer(&changes);
    for at in 0..peer.body.len() {
        let mut body = peer.body.clone();
        body[at] ^= 1;
        let mut receipt = receipt(&dir, peer.write_set);
        assert!(hand(&mut receipt, &body, 10).is_err(), "byte {at}");
        assert!(receipt.finish().is_none());
    }
    for length in 0..peer.body.len() {
        let mut cut = receipt(&dir, peer.write_set);
        assert!(!matches!(hand(&mut cut, &peer.body[..length], 10), Ok(true)), "{length} bytes");
        assert!(cut.finish().is_none());
    }
}

#[test]
fn b13_a_wrong_row_is_told_with_its_own_piece_and_another_peers_rows_go_on_behind_the_digests() {
    let (dir, changes) = (tempfile::tempdir().unwrap(), changes());
    let peer = peer(&changes);
    let digests_end = 8 + 32 * 500;
    let mut receipt = receipt(&dir, peer.write_set);
    let total = peer.body.len() as u64;
    assert!(!receipt.add(total, &peer.body[..digests_end]).unwrap());
    // The first row twice: one of its kind comes 167 times, so take one that comes once.
    let row = borsh::to_vec(&insert("row 1")).unwrap();
    let framed = [&(row.len() as u32).to_le_bytes()[..], &row].concat();
    assert!(!receipt.add(total, &framed).unwrap());
    let error = receipt.add(total, &framed).unwrap_err();
    assert_eq!(error.to_string(), "a row that the certificate does not cover");
    receipt.begin_again();
    assert_eq!(receipt.at() as usize, digests_end, "the digests are the same for all");
    // Its rows are in another order.
    let mut turned = changes.clone();
    turned.reverse();
    let other = self::peer(&turned);
    assert_eq!(other.write_set, peer.write_set);
    assert!(hand(&mut receipt, &other.body, 1000).unwrap());
    assert_eq!(read(receipt.finish().unwrap(), usize::MAX), [turned]);
}

#[test]
fn what_cannot_be_is_refused_before_it_is_taken() {
    let (dir, changes) = (tempfile::tempdir().unwrap(), changes());
    let peer = peer(&changes);
    let total = peer.body.len() as u64;
    let on_disk = Arc::new(AtomicU64::new(0));
    for (bytes_max, fits) in [(total, true), (total - 1, false)] {
        let mut receipt = Receipt::new(dir.path(), peer.write_set, bytes_max, Arc::clone(&on_disk)).unwrap();
        assert_eq!(receipt.add(total, &peer.body[..100]).is_ok(), fits);
        assert_eq!(on_disk.load(Ordering::Relaxed), if fits { 100 } else { 0 });
    }
    assert_eq!(on_disk.load(Ordering::Relaxed), 0);
    // More digests than there can be, none, another total in the middle, another transaction's digests.
    let mut many = receipt(&dir, peer.write_set);
    assert!(many.add(total, &u64::MAX.to_le_bytes()).is_err());
    many.begin_again();
    assert!(many.add(total, &(total / 33).to_le_bytes()).is_err());
    many.begin_again();
    assert!(many.add(total, &0u64.to_le_bytes()).is_err());
    many.begin_again();
    assert!(!many.add(total, &peer.body[..8]).unwrap());
    assert!(many.add(total + 1, &peer.body[8..40]).is_err());
    let mut other = receipt(&dir, Digest::of("test", &[b"other"]));
    let error = hand(&mut other, &peer.body, 1000).unwrap_err();
    assert_eq!(error.to_string(), "other digests than those of the certificate");
    other.begin_again();
    assert_eq!(other.at(), 0);
}

#[test]
fn a_truncate_of_several_tables_is_read_in_one_piece() {
    let dir = tempfile::tempdir().unwrap();
    let changes = [insert("1"), truncate("t"), truncate("u"), insert("2"), insert("3")];
    let peer = peer(&changes);
    let mut receipt = receipt(&dir, peer.write_set);
    assert!(hand(&mut receipt, &peer.body, 1000).unwrap());
    let pieces = read(receipt.finish().unwrap(), 1);
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 1]);
    assert_eq!(pieces.concat(), changes);
}

fn keyed(operation: Operation) -> Change {
    Change { schema: "public".into(), table: "t".into(), identity: Identity::Key(vec![0]), operation }
}

fn row(id: &str, value: Option<&str>) -> Row {
    let value = value.map(|value| ("v".to_string(), Some(value.to_string())));
    Row::new(std::iter::once(("id".to_string(), Some(id.to_string()))).chain(value).collect()).unwrap()
}

fn update(id: &str, value: &str) -> Change {
    keyed(Operation::Update { old: row(id, None), new: row(id, Some(value)) })
}

/// What is in other order than *w* covers is nobody's whole; the digests stay good, and another peer's rows are taken.
#[test]
fn b13_rows_in_an_order_that_would_make_other_rows_are_refused_once_they_have_come() {
    let dir = tempfile::tempdir().unwrap();
    let many = (0..300).map(|id| update(&id.to_string(), "1"));
    let twice: Vec<Change> = many.chain([update("7", "2"), update("8", "1")]).collect();
    let mut turned = twice.clone();
    turned.swap(7, 300);
    let behind = vec![insert("1"), truncate("t"), insert("2")];
    let before = vec![insert("2"), truncate("t"), insert("1")];
    for (changes, permuted) in [(twice, turned), (behind, before)] {
        let right = peer(&changes);
        let wrong = {
            // The same digests, the rows permuted.
            let digests =
                &right.body[..COUNT_BYTES as usize + 32 * WriteSet::new(changes.clone()).entries().len()];
            let mut body = digests.to_vec();
            for change in &permuted {
                let row = borsh::to_vec(change).unwrap();
                body.extend((row.len() as u32).to_le_bytes());
                body.extend(row);
            }
            body
        };
        let mut receipt = receipt(&dir, right.write_set);
        let error = hand(&mut receipt, &wrong, 1000).unwrap_err();
        assert_eq!(error.to_string(), "rows in another order than the certificate covers");
        receipt.begin_again();
        assert!(receipt.at() > COUNT_BYTES);
        assert!(hand(&mut receipt, &right.body, 1000).unwrap());
        assert_eq!(read(receipt.finish().unwrap(), usize::MAX).concat(), changes);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
