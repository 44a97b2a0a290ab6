//! Archives of a ledger: what is exported holds, and whatever is changed in it is found.

use std::path::Path;
use std::sync::Arc;
use steeldb_ordering::{
    Claim, Decision, InstanceNumber, Ledger, Proof, Proposal, Regency, Request, RequestId, Roster,
};
use steeldb_ordering_server::{Archive, ArchiveError, verify_archive};
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::{Namespace, SecretKey};
use steeldb_wire::codec::encode;

fn key(replica: u8) -> SecretKey {
    SecretKey::from_seed(&[replica; 32])
}

fn genesis() -> Roster {
    let keys = (0..4).map(|replica| key(replica).public()).collect();
    Roster::of_keys(View::of_size(4).unwrap(), keys).unwrap()
}

/// The n-th decision of a history, signed by some quorum in some regency.
fn decision(number: u64, regency: u64, signers: [u8; 3]) -> Arc<Decision> {
    let session = SessionKey { client: ClientId(1), session: SessionId(1) };
    let id = RequestId { session, sequence: number };
    let request = Request::signed(id, number.to_le_bytes().to_vec(), &key(9));
    let instance = InstanceNumber(number);
    let timestamp = Timestamp(number as i64);
    let proposal = Arc::new(Proposal { instance, timestamp, requests: vec![Arc::new(request)] });
    let claim = Claim { regency: Regency::new(0, regency), value: proposal.digest() };
    let bytes = encode(&(claim.regency, instance, claim.value));
    let accept = |signer: u8| (ReplicaId(signer.into()), key(signer).sign(Namespace::Accept, &bytes));
    Arc::new(Decision { proposal, proof: Proof { instance, claim, accepts: signers.map(accept).to_vec() } })
}

fn export(path: &Path, decisions: &[Arc<Decision>]) -> Vec<u8> {
    let mut archive = Archive::open(path, genesis()).unwrap();
    for decision in decisions {
        archive.append(decision).unwrap();
    }
    archive.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn check(bytes: &[u8]) -> Result<Ledger, ArchiveError> {
    verify_archive(bytes, genesis(), |_, _| {})
}

#[test]
fn what_is_exported_holds_and_can_be_continued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive");
    let decisions: Vec<_> = (1..=5).map(|number| decision(number, 0, [0, 1, 2])).collect();
    export(&path, &decisions[..2]);
    let whole = export(&path, &decisions[2..]);
    let ledger = check(&whole).unwrap();
    assert_eq!(ledger.next(), InstanceNumber(6));
    assert_eq!(whole, export(&dir.path().join("at once"), &decisions));
}

#[test]
fn the_chain_is_the_same_whichever_quorum_proved_it() {
    let mut chains = [Ledger::new(genesis()), Ledger::new(genesis())];
    for number in 1..=3 {
        chains[0].append(&decision(number, 0, [0, 1, 2])).unwrap();
        chains[1].append(&decision(number, number, [1, 2, 3])).unwrap();
    }
    assert_eq!(chains[0].tip(), chains[1].tip());
}

#[test]
fn a_change_of_any_byte_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let decisions: Vec<_> = (1..=2).map(|number| decision(number, 0, [0, 1, 3])).collect();
    let whole = export(&dir.path().join("archive"), &decisions);
    let second = 16 + 4 + u32::from_le_bytes(whole[16..20].try_into().unwrap()) as usize;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let said = check(&bytes).err().unwrap_or_else(|| panic!("byte {at}")).to_string();
        if (20..second).contains(&at) {
            assert!(said.contains("block 1"), "byte {at}: {said}");
        } else if (second + 4..whole.len() - 44).contains(&at) {
            assert!(said.contains("block 2"), "byte {at}: {said}");
        }
    }
}

#[test]
fn an_end_that_is_missing_or_too_long_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let whole = export(&dir.path().join("archive"), &[decision(1, 0, [0, 1, 2])]);
    for length in 0..whole.len() {
        assert!(check(&whole[..length]).is_err(), "cut to {length}");
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(matches!(check(&longer), Err(ArchiveError::Trailing { after: 1 })));
}

#[test]
fn blocks_that_are_left_out_reordered_or_proved_by_too_few_are_refused() {
    let mut ledger = Ledger::new(genesis());
    assert!(
        ledger.append(&decision(2, 0, [0, 1, 2])).unwrap_err().to_string().contains("block 1 is missing")
    );
    let mut few = (*decision(1, 0, [0, 1, 2])).clone();
    few.proof.accepts.pop();
    assert!(ledger.append(&Arc::new(few)).unwrap_err().to_string().contains("no quorum"));
    let mut foreign = (*decision(1, 0, [0, 1, 2])).clone();
    foreign.proof.accepts[2].1 = foreign.proof.accepts[1].1;
    assert!(ledger.append(&Arc::new(foreign)).unwrap_err().to_string().contains("ACCEPT of r2"));
    ledger.append(&decision(1, 0, [0, 1, 2])).unwrap();
    ledger.append(&decision(2, 0, [0, 1, 2])).unwrap();
}
