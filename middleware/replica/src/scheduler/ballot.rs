//! A ballot: the votes on one transaction, and what they prove.

use std::collections::BTreeMap;
use steeldb_types::{ReplicaId, Slot, View};
use steeldb_wire::transaction::{AbortCertificate, CommitCertificate, SignedVote, VoteKind};

/// Votes of one slot. Each replica's first vote for and first vote against count.
pub(super) struct Ballot {
    slot: Slot,
    prepared: BTreeMap<ReplicaId, SignedVote>,
    against: BTreeMap<ReplicaId, SignedVote>,
    /// When the certificates were last submitted, microseconds.
    commit_submitted_us: Option<u64>,
    abort_submitted_us: Option<u64>,
}

/// Whether something submitted at `submitted_us` may be submitted again: the order may have turned it away.
fn is_due(submitted_us: Option<u64>, now_us: u64, again_us: u64) -> bool {
    submitted_us.is_none_or(|at| now_us.saturating_sub(at) >= again_us)
}

impl Ballot {
    pub(super) fn new(slot: Slot) -> Ballot {
        Ballot {
            slot,
            prepared: BTreeMap::new(),
            against: BTreeMap::new(),
            commit_submitted_us: None,
            abort_submitted_us: None,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Adds a vote; one of another slot is none of this ballot's.
    pub(super) fn add(&mut self, vote: SignedVote) {
        if vote.vote.slot != self.slot {
            return;
        }
        let votes = if vote.vote.kind.is_against() { &mut self.against } else { &mut self.prepared };
        votes.entry(vote.replica).or_insert(vote);
    }

    /// The Commit certificate, at most once in `again_us`. `few`: a planted bug, f + 1 votes are enough.
    pub(super) fn commit_certificate(
        &mut self,
        view: &View,
        now_us: u64,
        again_us: u64,
        few: bool,
    ) -> Option<CommitCertificate> {
        if !is_due(self.commit_submitted_us, now_us, again_us) {
            return None;
        }
        if few {
            let group =
                self.groups().into_iter().find(|group| view.has_correct(group.iter().map(|v| v.replica)))?;
            let certificate = planted_certificate(&group);
            self.commit_submitted_us = Some(now_us);
            return certificate;
        }
        let group =
            self.groups().into_iter().find(|group| view.is_quorum(group.iter().map(|v| v.replica)))?;
        let certificate = CommitCertificate::gather(view, &group).ok()?;
        self.commit_submitted_us = Some(now_us);
        Some(certificate)
    }

    /// Whether a Commit certificate was gathered: it can be submitted again from the votes that are here.
    pub(super) fn has_commit_certificate(&self) -> bool {
        self.commit_submitted_us.is_some()
    }

    /// The Abort certificate, at most once in `again_us`. `few`: a planted bug, one vote is enough.
    pub(super) fn abort_certificate(
        &mut self,
        view: &View,
        now_us: u64,
        again_us: u64,
        few: bool,
    ) -> Option<AbortCertificate> {
        if !is_due(self.abort_submitted_us, now_us, again_us)
            || !(view.has_correct(self.against.keys().copied()) || few)
        {
            return None;
        }
        self.abort_submitted_us = Some(now_us);
        let votes: Vec<SignedVote> = self.against.values().cloned().collect();
        let tx = votes.first()?.vote.tx;
        Some(AbortCertificate { tx, slot: self.slot, votes })
    }

    /// Whether no set of equal Prepared votes can reach a quorum any more, whatever the silent replicas say: a
    /// transaction whose effects differ need not wait for T_vote.
    pub(super) fn is_hopeless(&self, view: &View) -> bool {
        let silent: Vec<ReplicaId> = view
            .replicas()
            .filter(|replica| !self.prepared.contains_key(replica) && !self.against.contains_key(replica))
            .collect();
        let groups = self.groups();
        !groups.is_empty()
            && !groups.iter().any(|group| {
                view.is_quorum(group.iter().map(|vote| vote.replica).chain(silent.iter().copied()))
            })
    }

    /// Whether `replica` voted against.
    pub(super) fn is_against(&self, replica: ReplicaId) -> bool {
        self.against.contains_key(&replica)
    }

    /// Whether `replica` has voted.
    pub(super) fn has_vote_of(&self, replica: ReplicaId) -> bool {
        self.prepared.contains_key(&replica) || self.against.contains_key(&replica)
    }

    /// Whether replicas prepared different effects.
    pub(super) fn differs_in_effects(&self) -> bool {
        self.groups().len() > 1
    }

    fn groups(&self) -> Vec<Vec<&SignedVote>> {
        let mut groups: Vec<(&VoteKind, Vec<&SignedVote>)> = Vec::new();
        for vote in self.prepared.values() {
            match groups.iter_mut().find(|(kind, _)| **kind == vote.vote.kind) {
                Some((_, group)) => group.push(vote),
                None => groups.push((&vote.vote.kind, vec![vote])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

/// What too few votes are made into: a planted bug.
fn planted_certificate(group: &[&SignedVote]) -> Option<CommitCertificate> {
    let first = group.first()?;
    let VoteKind::Prepared { operations, transcript, write_set, wall } = first.vote.kind else { return None };
    let votes = group.iter().map(|vote| (vote.replica, vote.path.clone(), vote.signature)).collect();
    let (tx, slot) = (first.vote.tx, first.vote.slot);
    Some(CommitCertificate { tx, slot, operations, transcript, write_set, wall, votes })
}
