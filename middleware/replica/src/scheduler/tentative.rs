//! Tentative replies (WHEAT, section 3.3; rule 8, A7): a COMMIT is answered when the order is bound to say so, a message
//! delay before it has said so.
//!
//! Invariants:
//! - What is told is what the order will say if the batch is decided: the batch is judged in its order, against the state
//!   behind the decision before it. Where something in front in the batch may matter, nothing is told: silence costs a
//!   message delay.
//! - It is told of what is prepared here alone, with the certificate's k, h_k and w. So what a client believes on a
//!   quorum is durable at that quorum, as it is after COMMIT PREPARED.
//! - Nothing is done: prepared effects wait for the decision, so nothing is taken back (rule 8). Snapshots and all else
//!   follow decisions alone.
//! - Definitions are told when they are applied: sessions are opened without the order, by the roles that are there.

use super::Scheduler;
use super::open::{OPEN_PER_CLIENT_MAX, OpenTransactions};
use super::planted::PlantedBug;
use super::transaction::Phase;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{ClientId, Digest, Position, SessionKey, TxId, ViewNumber};
use steeldb_wire::transaction::{CommitCertificate, Ordered, ReplicaMessage, Wall};

/// The batch that most likely comes next.
#[derive(Default)]
pub(super) struct Ahead {
    /// The view that decides it, and the digest of instance, regency and value.
    claim: Option<(ViewNumber, Digest)>,
    /// The commits in it that are not told yet.
    commits: BTreeMap<TxId, Told>,
}

/// What is to be prepared here before it is told.
struct Told {
    position: Position,
    transcript: Digest,
    write_set: Digest,
}

impl Scheduler {
    /// A batch is bound, or bound again in a later regency. `requests` are all that it delivers; none: a change of the
    /// membership.
    pub(super) fn bound(
        &mut self,
        view: ViewNumber,
        claim: Digest,
        requests: &[(Position, Option<Ordered>)],
    ) {
        let commits = match self.config.has(PlantedBug::TentativeOutOfTurn) {
            false => commits(&self.open, requests),
            true => requests.iter().filter_map(commit).collect(),
        };
        let told = |(position, certificate): (Position, &CommitCertificate)| {
            let (transcript, write_set) = (certificate.transcript, certificate.write_set);
            (certificate.tx, Told { position, transcript, write_set })
        };
        self.ahead = Ahead { claim: Some((view, claim)), commits: commits.into_iter().map(told).collect() };
        let bound: Vec<TxId> = self.ahead.commits.keys().copied().collect();
        for tx in bound {
            self.tell_ahead(tx);
        }
    }

    /// The batch is decided, or another one takes its place: what is not told by now is told when it is applied.
    pub(super) fn nothing_ahead(&mut self) {
        self.ahead = Ahead::default();
    }

    /// Tells a client that its transaction will be committed, once it is bound and prepared here.
    pub(super) fn tell_ahead(&mut self, tx: TxId) {
        let Some((view, claim)) = self.ahead.claim else { return };
        let Some(told) = self.ahead.commits.get(&tx) else { return };
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let same = transaction.transcript.as_ref().map(|transcript| transcript.head())
            == Some(told.transcript)
            && transaction.phase == Phase::Prepared { write_set: Some(told.write_set) };
        if !same || !self.may_vouch() {
            return;
        }
        let position = told.position;
        self.ahead.commits.remove(&tx);
        self.reply(tx.session, ReplicaMessage::Tentative { tx, position, view, claim });
    }
}

fn commit((position, request): &(Position, Option<Ordered>)) -> Option<(Position, &CommitCertificate)> {
    match request {
        Some(Ordered::Commit(certificate)) => Some((*position, certificate)),
        _ => None,
    }
}

/// The commits that will be the outcome of their transactions for sure.
fn commits<'a>(
    open: &OpenTransactions,
    requests: &'a [(Position, Option<Ordered>)],
) -> Vec<(Position, &'a CommitCertificate)> {
    let mut commits = Vec::new();
    // Transactions that have their outcome in front, and sessions whose open transaction has ended there.
    let mut settled: BTreeSet<TxId> = BTreeSet::new();
    let mut ended: BTreeSet<SessionKey> = BTreeSet::new();
    let mut begun: BTreeMap<ClientId, usize> = BTreeMap::new();
    for (position, request) in requests {
        // A change of the membership ends all that is open.
        let Some(request) = request else { break };
        match request {
            Ordered::Begin { tx, .. } => {
                ended.insert(tx.session);
                *begun.entry(tx.session.client).or_default() += 1;
            }
            Ordered::Rollback { tx, .. } => {
                settled.insert(*tx);
            }
            Ordered::Abort(certificate) => {
                settled.insert(certificate.tx);
            }
            Ordered::SessionOver(word) => {
                ended.insert(word.session);
            }
            // A definition is told when it is applied. It may make another session of its client end for its own.
            Ordered::Commit(certificate) if certificate.wall != Wall::None => break,
            Ordered::Commit(certificate) => {
                let client = certificate.tx.session.client;
                // Past the bound a client's oldest transaction ends with its next BEGIN.
                let begun = begun.get(&client).copied().unwrap_or_default();
                let crowded = begun > 0 && open.open_of(client) + begun > OPEN_PER_CLIENT_MAX;
                let is_open = open.slot(certificate.tx) == Some(certificate.slot);
                if is_open
                    && !crowded
                    && !ended.contains(&certificate.tx.session)
                    && settled.insert(certificate.tx)
                {
                    commits.push((*position, certificate));
                }
            }
            Ordered::Depose(_)
            | Ordered::Move(_)
            | Ordered::Maintain { .. }
            | Ordered::Verify { .. }
            | Ordered::Outcome { .. } => {}
        }
    }
    commits
}
