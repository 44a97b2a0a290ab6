//! Votes held back until another replica has voted against. Then there are enough of both kinds, and both outcomes of the
//! transaction come to be ordered, one right behind the other. The first one counts.

use super::{Adversary, Stage, request};
use crate::world::PeerMessage;
use std::collections::BTreeMap;
use steeldb_ordering::Request;
use steeldb_types::{ReplicaId, Slot, TxId};
use steeldb_wire::transaction::{AbortCertificate, Ordered, SignedVote, Vote, VoteBundle, VoteKind};

/// What can be proved of a transaction, and is not said.
#[derive(Default)]
struct Kept {
    commit: Option<Ordered>,
    against: BTreeMap<ReplicaId, SignedVote>,
}

/// Keeps its votes to itself, and with them every Commit that needs one of them.
#[derive(Default)]
pub(crate) struct VoteDelayer {
    kept: BTreeMap<(TxId, Slot), Kept>,
}

impl VoteDelayer {
    /// Both outcomes, once there is what each needs.
    fn both(&mut self, stage: &Stage<'_>, (tx, slot): (TxId, Slot)) -> Vec<Ordered> {
        let Some(kept) = self.kept.get_mut(&(tx, slot)) else { return vec![] };
        let Some(Ordered::Commit(certificate)) = &kept.commit else { return vec![] };
        // f + 1, where a Commit needs 2f + 1.
        let enough = certificate.votes.len().div_ceil(2);
        let votes: Vec<SignedVote> = kept.against.values().cloned().chain(own(stage, tx, slot)).collect();
        if votes.len() < enough {
            return vec![];
        }
        let abort = Ordered::Abort(AbortCertificate { tx, slot, votes });
        kept.commit.take().into_iter().chain([abort]).collect()
    }
}

/// A vote against in its own name.
fn own(stage: &Stage<'_>, tx: TxId, slot: Slot) -> Option<SignedVote> {
    let vote = Vote { tx, slot, kind: VoteKind::Expired };
    let bundle = VoteBundle::new(vec![(vote, None)], stage.key)?;
    bundle.open_own(stage.me).pop().map(|(vote, _)| vote)
}

impl Adversary for VoteDelayer {
    fn to_peer(&mut self, _: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::Votes(_) => vec![],
            other => vec![other],
        }
    }

    fn to_order(&mut self, stage: &mut Stage<'_>, ordered: Ordered) -> Vec<Ordered> {
        let Ordered::Commit(certificate) = &ordered else { return vec![ordered] };
        let of = (certificate.tx, certificate.slot);
        self.kept.entry(of).or_default().commit = Some(ordered);
        self.both(stage, of)
    }

    fn hear(&mut self, stage: &mut Stage<'_>, from: ReplicaId, message: &PeerMessage) -> Vec<Request> {
        let PeerMessage::Votes(bundle) = message else { return vec![] };
        let mut requests = Vec::new();
        for (vote, _) in bundle.clone().open_own(from) {
            if vote.vote.kind.is_against() {
                let of = (vote.vote.tx, vote.vote.slot);
                self.kept.entry(of).or_default().against.insert(from, vote);
                requests.extend(self.both(stage, of).iter().filter_map(request));
            }
        }
        requests
    }
}
