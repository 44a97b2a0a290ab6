//! What signing, verifying, certificates and the codec cost: `cargo bench -p steeldb-wire`.

#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use steeldb_types::{Digest, ReplicaId, Slot, TxId, View};
use steeldb_wire::auth::{Namespace, PublicKey, SecretKey};
use steeldb_wire::codec::{decode, encode};
use steeldb_wire::transaction::{
    ClientMessage, CommitCertificate, Operation, OperationKind, ResultDigest, SignatureMemo, SignedVote,
    StatementId, Vote, VoteBundle, VoteKind,
};

fn signed_votes() -> (Vec<SignedVote>, Vec<PublicKey>) {
    let keys: Vec<SecretKey> = (1..=4).map(|seed| SecretKey::from_seed(&[seed; 32])).collect();
    let vote = Vote {
        tx: TxId::default(),
        slot: Slot::default(),
        kind: VoteKind::Prepared {
            operations: 9,
            transcript: Digest([1; 32]),
            write_set: Digest([2; 32]),
            wall: steeldb_wire::transaction::Wall::None,
        },
    };
    let votes = keys.iter().zip(0u16..).take(3).filter_map(|(key, id)| {
        let bundle = VoteBundle::new(vec![(vote.clone(), None)], key)?;
        bundle
            .open(ReplicaId(id), &key.public(), &mut SignatureMemo::new(1))
            .ok()?
            .pop()
            .map(|(vote, _)| vote)
    });
    (votes.collect(), keys.iter().map(SecretKey::public).collect())
}

fn cryptography(c: &mut Criterion) {
    let key = SecretKey::from_seed(&[7; 32]);
    let message = [0u8; 128];
    let signature = key.sign(Namespace::Votes, &message);
    let public = key.public();
    c.bench_function("sign", |b| b.iter(|| key.sign(Namespace::Votes, black_box(&message))));
    c.bench_function("verify", |b| {
        b.iter(|| public.verify(Namespace::Votes, black_box(&message), &signature))
    });

    let (votes, keys) = signed_votes();
    let view = View::of_size(4).expect("four replicas are a view");
    let certificate =
        CommitCertificate::gather(&view, &votes.iter().collect::<Vec<_>>()).expect("three equal votes");
    c.bench_function("certificate of three, none seen", |b| {
        b.iter(|| black_box(&certificate).check(&view, &keys, &mut SignatureMemo::new(16)))
    });
    let mut memo = SignatureMemo::new(16);
    c.bench_function("certificate of three, all seen", |b| {
        b.iter(|| black_box(&certificate).check(&view, &keys, &mut memo))
    });
}

fn codec(c: &mut Criterion) {
    let operation = ClientMessage::Operation(Operation {
        tx: TxId::default(),
        number: 3,
        statement: StatementId(4),
        leading: false,
        row_order: true,
        must_vote: false,
        verify: false,
        kind: OperationKind::Execute { bind: vec![1; 200] },
    });
    let bytes = encode(&operation);
    c.bench_function("encode an operation", |b| b.iter(|| encode(black_box(&operation))));
    c.bench_function("decode an operation", |b| {
        b.iter(|| decode::<ClientMessage>(black_box(&bytes), 1024).is_ok())
    });
    let row = [7u8; 100];
    for (name, in_order) in [("digest 100 rows in sequence", true), ("digest 100 rows as a multiset", false)]
    {
        c.bench_function(name, |b| {
            b.iter(|| {
                let mut digest = ResultDigest::new(in_order);
                for _ in 0..100 {
                    digest.message(b'D', black_box(&row)).expect("a row");
                }
                digest.finish()
            })
        });
    }
}

criterion_group!(benches, cryptography, codec);
criterion_main!(benches);
