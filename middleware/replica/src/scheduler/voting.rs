//! Voting: casting, signing and collecting votes, and submitting what they prove (rules 6 and 7).

use super::ballot::Ballot;
use super::planted::PlantedBug;
use super::{Effect, GATHER_US, Scheduler};
use steeldb_types::{Execution, ReplicaId, TxId, limits};
use steeldb_wire::transaction::{Ordered, SignedFinish, SignedVote, Vote, VoteBundle, VoteKind};

impl Scheduler {
    /// Votes against a transaction, once. What is prepared stays prepared.
    pub(super) fn cast_against(&mut self, tx: TxId, kind: VoteKind) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(slot) = transaction.slot else { return };
        if transaction.against_vote.is_some() || transaction.outcome.is_some() || transaction.superseded {
            return;
        }
        tracing::info!(%tx, %slot, ?kind, "vote against");
        let vote = Vote { tx, slot, kind };
        transaction.against_vote = Some(vote.clone());
        let finish = transaction.finish.clone();
        self.cast.push((vote, finish));
    }

    /// Signs and sends the votes and the stream entries that gathered, and counts this replica's own votes. Call after
    /// each batch of events.
    pub fn flush(&mut self) {
        // One signature for many operations: the others run none of them before its client has finished, or, if they
        // do, a moment later is early enough.
        let gathered = self.config.execution == Execution::Speculative
            && self.streaming_since_us.is_some_and(|since| self.now_us >= since + GATHER_US);
        if std::mem::take(&mut self.stream_due) || gathered {
            self.send_gathered();
        }
        while !self.cast.is_empty() {
            let rest = self.cast.split_off(self.cast.len().min(limits::VOTE_BATCH_MAX));
            let batch = std::mem::replace(&mut self.cast, rest);
            let Some(bundle) = VoteBundle::new(batch, &self.config.key) else { return };
            self.push(Effect::SendVotes(bundle.clone()));
            self.votes(bundle.open_own(self.config.me));
        }
    }

    /// Whether a batch of votes can still tell this replica anything, so that its signature is worth verifying. What has
    /// its outcome here, or a commit certificate whose Finish is here, needs no more votes.
    pub fn wants(&self, bundle: &VoteBundle) -> bool {
        bundle.votes.iter().any(|(vote, finish)| match self.open.slot(vote.tx) {
            Some(slot) if slot == vote.slot => {
                let certified = self.ballots.get(&vote.tx).is_some_and(Ballot::has_commit_certificate);
                let transaction = self.transactions.get(&vote.tx);
                let lacks_finish = finish.is_some() && transaction.is_some_and(|t| t.finish.is_none());
                !certified || lacks_finish
            }
            Some(_) => false,
            None => vote.slot > self.open.delivered(),
        })
    }

    /// Votes arrive; their signature is verified.
    pub(super) fn votes(&mut self, votes: Vec<(SignedVote, Option<SignedFinish>)>) {
        for (vote, finish) in votes {
            if !self.config.view.contains(vote.replica) {
                continue;
            }
            let tx = vote.vote.tx;
            // A Finish that the client kept from this replica (A3) comes with the votes of others.
            if let Some(finish) = finish
                && finish.finish.tx == tx
                && self.transactions.get(&tx).is_some_and(|transaction| transaction.finish.is_none())
                && self.config.clients.get(&tx.session.client).is_some_and(|rights| {
                    finish.verify(&rights.key).is_ok() || self.config.has(PlantedBug::FinishNotVerified)
                })
            {
                self.finish(finish);
            }
            let slot = vote.vote.slot;
            match self.open.slot(tx) {
                Some(open) if open == slot => {
                    if vote.replica != self.config.me {
                        self.ended.contest(tx);
                    }
                    self.ballots.entry(tx).or_insert_with(|| Ballot::new(slot)).add(vote);
                    self.count(tx);
                }
                Some(_) => {}
                // From ahead of what is delivered here; or decided already.
                None if slot > self.open.delivered() => self.early_votes.keep(vote),
                None => {}
            }
        }
    }

    /// Submits what the votes on a transaction prove. Only for a BEGIN that is delivered here. Again after a while: the
    /// order may have had no room for it.
    pub(super) fn count(&mut self, tx: TxId) {
        let Some(slot) = self.open.slot(tx) else { return };
        let Some(ballot) = self.ballots.get_mut(&tx).filter(|ballot| ballot.slot() == slot) else { return };
        let (view, now, again) = (&self.config.view, self.now_us, self.config.vote_timeout_us);
        let few = self.config.has(PlantedBug::CommitOnOneCorrect);
        let one = self.config.has(PlantedBug::AbortOnOneVote);
        if let Some(certificate) = ballot.commit_certificate(view, now, again, few) {
            self.push(Effect::Submit(Box::new(Ordered::Commit(certificate))));
        } else if let Some(certificate) = ballot.abort_certificate(view, now, again, one) {
            self.push(Effect::Submit(Box::new(Ordered::Abort(certificate))));
        } else if ballot.is_hopeless(view) && ballot.differs_in_effects() {
            let prepared = self.transactions.get(&tx).is_some_and(|t| t.prepared_vote.is_some());
            if prepared {
                self.cast_against(tx, VoteKind::Mismatch { operation: 0 });
            }
        }
    }

    /// A link is there again: votes on transactions without an outcome may have been lost with the old one.
    pub(super) fn resend_votes(&mut self, to: ReplicaId) {
        let votes: Vec<(Vote, Option<SignedFinish>)> = self
            .transactions
            .values()
            .filter(|transaction| transaction.outcome.is_none())
            .flat_map(|transaction| {
                let finish = transaction.finish.clone();
                [&transaction.prepared_vote, &transaction.against_vote]
                    .into_iter()
                    .flatten()
                    .map(move |vote| (vote.clone(), finish.clone()))
                    .collect::<Vec<_>>()
            })
            .chain(self.ended.votes().map(|vote| (vote, None)))
            .collect();
        for batch in votes.chunks(limits::VOTE_BATCH_MAX) {
            if let Some(bundle) = VoteBundle::new(batch.to_vec(), &self.config.key) {
                self.push(Effect::ResendVotes { to, bundle });
            }
        }
    }
}
