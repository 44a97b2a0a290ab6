//! Decoders: no panic, no memory beyond what the input fills, and only canonical encodings are taken.

use crate::world::genesis;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::BytesMut;
use std::sync::Arc;
use steeldb_ordering::{Change, InstanceNumber, Message, Record, Roster};
use steeldb_ordering_log::{Disk as _, Log, Options, SimulatedDisk};
use steeldb_ordering_server::{ClientMessage, ServerMessage, verify_archive};
use steeldb_postgres::write_set::WriteSet;
use steeldb_replica::agent::PeerMessage;
use steeldb_replica::receipt::Receipt;
use steeldb_replica::script::Script;
use steeldb_transport::take_frame;
use steeldb_types::{Digest, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction;

pub(crate) fn ordering_message(input: &[u8]) {
    if let Ok(message) = Message::decode(input) {
        assert_eq!(message.encode(), input, "not canonical");
    }
}

pub(crate) fn record(input: &[u8]) {
    if let Ok(record) = Record::decode(input) {
        assert_eq!(record.encode(), input, "not canonical");
    }
}

/// Whatever an administrator signs is decoded and judged: what comes out of it is a roster that decodes.
pub(crate) fn change(input: &[u8]) {
    let Ok(change) = Change::decode(input) else { return };
    assert_eq!(codec::encode(&change), input, "not canonical");
    let mut change = change;
    (change.from, change.of) = (genesis().view().number(), genesis().digest());
    if let Ok(next) = genesis().changed(&change) {
        let bytes = codec::encode(&next);
        assert_eq!(codec::decode::<Roster>(&bytes, bytes.len()).as_ref(), Ok(&next));
        assert!(next.view().is_quorum(next.view().replicas()), "a view that cannot decide");
    }
}

/// The first byte says in pieces of what size the bytes arrive; that makes no difference.
pub(crate) fn link_frame(input: &[u8]) {
    const FRAME_BYTES_MAX: usize = 300;
    let Some((piece, bytes)) = input.split_first() else { return };
    let (mut buffer, mut frames, mut taken) = (BytesMut::new(), Vec::new(), 0);
    for piece in bytes.chunks(usize::from(*piece).max(1)) {
        buffer.extend_from_slice(piece);
        while let Ok(Some(frame)) = take_frame(&mut buffer, FRAME_BYTES_MAX) {
            assert!(frame.len() <= FRAME_BYTES_MAX, "a frame past the bound");
            taken += 4 + frame.len();
            frames.push(frame);
        }
    }
    let written: Vec<u8> =
        frames.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes(), &f[..]].concat()).collect();
    assert_eq!(written, bytes[..taken], "other bytes than came");
    assert_eq!(buffer, bytes[taken..], "bytes that are lost");
}

pub(crate) fn client_frame(input: &[u8]) {
    if let Ok(message) = ClientMessage::decode(input) {
        assert_eq!(&message.encode()[..], input, "not canonical");
    }
}

pub(crate) fn server_frame(input: &[u8]) {
    if let Ok(message) = ServerMessage::decode(input) {
        assert_eq!(&message.encode()[..], input, "not canonical");
    }
}

/// The first byte chooses the type.
pub(crate) fn transaction_message(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 8 {
        0 => canonical::<transaction::ClientMessage>(rest),
        1 => canonical::<transaction::ReplicaMessage>(rest),
        2 => canonical::<transaction::Ordered>(rest),
        3 => canonical::<transaction::CommitCertificate>(rest),
        4 => canonical::<transaction::AbortCertificate>(rest),
        5 => canonical::<transaction::VoteBundle>(rest),
        6 => canonical::<transaction::SignedFinish>(rest),
        _ => canonical::<transaction::Stream>(rest),
    }
}

/// What agents say to each other.
pub(crate) fn peer_frame(input: &[u8]) {
    if let Ok(message) = PeerMessage::decode(input) {
        assert_eq!(&message.encode()[..], input, "not canonical");
    }
}

/// What a peer sends to a replica that was away: rows, which have a digest or are incomplete, scripts, which are judged
/// before anything is executed, and the rows of bulk transactions, which are checked as they come. The first byte chooses
/// which.
pub(crate) fn kept_effects(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    if kind % 3 == 2 {
        bulk_rows(rest);
    } else if kind % 3 == 0 {
        canonical::<WriteSet>(rest);
        if let Ok(rows) = codec::decode::<WriteSet>(rest, limits::FRAME_BYTES_MAX) {
            let _ = rows.digest();
        }
    } else {
        canonical::<Script>(rest);
        if let Ok(script) = codec::decode::<Script>(rest, limits::FRAME_BYTES_MAX) {
            let (tx, slot, operations) = (script.tx, script.slot, script.steps.len() as u32);
            let transcript = script.transcript().unwrap_or_default();
            if let Ok(opened) = Script::open(rest, tx, slot, operations, transcript) {
                assert_eq!(opened, script, "another script than it holds");
            }
        }
    }
}

/// The digest that a certificate names, how the body is cut, the body.
fn bulk_rows(input: &[u8]) {
    let Some((write_set, rest)) = input.split_first_chunk::<32>() else { return };
    let Some((piece, body)) = rest.split_first() else { return };
    let write_set = Digest(*write_set);
    let total = body.len() as u64;
    let receipt = Receipt::new(&std::env::temp_dir(), write_set, total, Arc::default());
    let Ok(mut receipt) = receipt else { return };
    let pieces = body.chunks(usize::from(*piece) + 1);
    let mut taken =
        pieces.map(|piece| receipt.add(total, piece)).take_while(Result::is_ok).filter_map(Result::ok);
    if !taken.by_ref().any(|whole| whole) {
        drop(taken);
        receipt.begin_again();
        return assert!(receipt.finish().is_none(), "nothing is whole");
    }
    drop(taken);
    let Some(received) = receipt.finish() else { panic!("it was whole") };
    if let Ok(changes) = Arc::new(received).reader().next(usize::MAX) {
        assert_eq!(WriteSet::new(changes).digest(), Ok(write_set), "other rows than the certificate names");
    }
}

fn canonical<T: BorshSerialize + BorshDeserialize>(input: &[u8]) {
    if let Ok(value) = codec::decode::<T>(input, limits::FRAME_BYTES_MAX) {
        assert_eq!(codec::encode(&value), input, "not canonical");
    }
}

/// What holds encodes the history it says: its end cannot be changed unnoticed.
pub(crate) fn ledger_archive(input: &[u8]) {
    let mut blocks = 0;
    if let Ok(ledger) = verify_archive(input, genesis(), |_, _| blocks += 1) {
        assert_eq!(ledger.next(), InstanceNumber(blocks + 1));
    }
}

/// A log whose files are damaged anyhow opens and can be written, or says why not.
pub(crate) fn log_on_disk(input: &[u8]) {
    let disk = SimulatedDisk::new();
    let Ok((mut log, _)) = Log::open(Arc::new(disk.clone()), Options::default()) else {
        panic!("an empty disk makes a log");
    };
    for record in crate::samples::records() {
        log.append(&record).expect("a good disk");
        log.commit().expect("a good disk");
    }
    drop(log);
    // Three bytes say where what is changed; the rest is written over the end of the last file.
    let files = disk.list().expect("a good disk");
    let (places, tail) = input.split_at(input.len().min(24));
    for place in places.chunks_exact(4) {
        let file = &files[usize::from(place[0]) % files.len()];
        let length = disk.read(file).map_or(0, |bytes| bytes.len()).max(1);
        disk.rot(file, usize::from(u16::from_le_bytes([place[1], place[2]])) % length, place[3]);
    }
    if let Some(last) = files.last()
        && !tail.is_empty()
    {
        let length = disk.read(last).map_or(0, |bytes| bytes.len()) as u64;
        disk.write_at(last, length / 2, tail).expect("a good disk");
    }
    let Ok((mut log, recovered)) = Log::open(Arc::new(disk), Options::default()) else {
        return;
    };
    let known = crate::samples::records();
    for record in recovered.records(InstanceNumber(0)) {
        let is_word_of_damage = matches!(record, Record::Passive { .. });
        assert!(is_word_of_damage || known.contains(&record), "a record nobody wrote: {record:?}");
    }
    log.append(&known[0]).expect("a log that opened");
    log.commit().expect("a log that opened");
}
