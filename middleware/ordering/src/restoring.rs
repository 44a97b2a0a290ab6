//! What a core makes of the records that it is restored from, and what it may say and do until it knows all again.
//!
//! Invariant: in an instance that it may have voted in without knowing how, a replica casts no vote (`Passive`).

use crate::catchup::DECISIONS_BYTES_MAX;
use crate::checkpoint::{CoreState, StableCheckpoint};
use crate::config::{PlantedBug, StartError};
use crate::core::Core;
use crate::effect::Effect;
use crate::instance::{Accept, Held};
use crate::proof::{Claim, sign_accept};
use crate::record::Record;
use crate::{InstanceNumber, Regency};
use std::sync::Arc;

impl Core {
    /// Up to which instance this replica may have told others of deliveries, decided or tentative, before it was
    /// restarted. An application that has not executed as far may not say what its state is: somebody knows better from
    /// this very replica.
    pub fn said_upto(&self) -> InstanceNumber {
        self.passive_upto.max(self.vouched_upto)
    }

    pub(crate) fn restore(&mut self, record: Record) -> Result<(), StartError> {
        let me = self.config.me;
        match record {
            Record::Regency(_) if self.config.has(PlantedBug::RegencyForgotten) => {}
            Record::Write { .. } | Record::Accept { .. }
                if self.config.has(PlantedBug::OwnVotesForgotten) => {}
            Record::Regency(regency) => self.sync.restore(regency),
            Record::Write { regency, proposal } => {
                if self.restores_votes_in(proposal.instance, regency) {
                    let claim = Claim { regency, value: proposal.digest() };
                    let instance = self.window.entry(proposal.instance);
                    instance.write(me, claim);
                    instance.held = Some(Held { claim, proposal, written: true });
                }
            }
            Record::Accept { instance, claim, proposal } => {
                self.vouched_upto = self.vouched_upto.max(instance);
                if self.restores_votes_in(instance, claim.regency) {
                    let signature = sign_accept(instance, &claim, &self.config.key);
                    let instance = self.window.entry(instance);
                    let held = instance.batch(claim.value).or(proposal);
                    let proposal =
                        held.ok_or_else(|| StartError::Log("ACCEPT of an unknown value".into()))?;
                    instance.bound = Some((claim, proposal));
                    instance.note_accept(me, Accept { claim, signature, verified: true });
                }
            }
            Record::Decision(decision) => match decision.instance() {
                instance if instance == self.log.next() => self.append(decision),
                // Behind a hole: what is missing is fetched, and this one is read again then.
                instance => self.passive_upto = self.passive_upto.max(instance),
            },
            Record::Checkpoint(stable) => self.restore_checkpoint(stable)?,
            Record::Passive { upto } => self.passive_upto = self.passive_upto.max(upto),
        }
        Ok(())
    }

    fn restore_checkpoint(&mut self, stable: Arc<StableCheckpoint>) -> Result<(), StartError> {
        let instance = stable.certificate.instance;
        let state = stable.core_state().map_err(StartError::Log)?;
        if self.last_decided() < instance && self.delivered < instance {
            // The decisions are gone, and the application lacks what they led to.
            self.passive_upto = self.passive_upto.max(instance);
            self.transfer.restore(stable.certificate.clone(), self.config.me);
            return Ok(());
        }
        if self.last_decided() < instance {
            self.adopt_state(state, &stable);
        }
        self.transfer.give_up(self.last_decided());
        self.checkpoints.restore(stable);
        Ok(())
    }

    /// Goes on behind a checkpoint.
    pub(crate) fn adopt_state(&mut self, state: CoreState, stable: &StableCheckpoint) {
        self.log.restart_at(&state, &stable.certificate.last);
        self.clients = state.clients;
        let known = self.membership.number();
        self.membership.restore(state.views, stable.views.clone());
        self.window.begin(state.instance.next());
        if self.membership.number() > known {
            self.begin_view();
        }
        self.early.hand_over(&mut self.window);
    }

    /// Whether this replica knows all its votes in the instances in flight, and may cast more.
    pub(crate) fn may_vote(&self) -> bool {
        self.window.first() > self.passive_upto
    }

    /// Votes of instances that this replica has yet to get to again are kept until it does; those of a view that has ended
    /// are void, though a new segment of the log may say them again.
    fn restores_votes_in(&self, instance: InstanceNumber, regency: Regency) -> bool {
        let void = regency.view < self.membership.number();
        instance >= self.window.first() && instance > self.passive_upto && !void
    }

    /// How far decisions may be in this replica's log, holes aside.
    pub(crate) fn reach(&self) -> InstanceNumber {
        self.last_decided().max(self.passive_upto)
    }

    /// Votes may be missing up to an instance that is not decided here: this replica's own log may have decisions behind
    /// the hole.
    pub(crate) fn read_own_decisions(&mut self) {
        if !self.may_vote() && self.transfer.is_idle() {
            let (peer, from) = (self.config.me, self.log.next());
            self.effects.push(Effect::ReadDecisions { peer, from, bytes_max: DECISIONS_BYTES_MAX });
        }
    }
}
