//! Tentative deliveries (WHEAT, section 3.3): the next batch, two message delays after its proposal.
//!
//! A replica hands the value of the first undecided instance to the application as soon as its own record of the WRITE
//! quorum is durable, which is when its ACCEPT leaves (A7). A client that holds equal tentative replies of weight Q_v, of
//! *one instance, regency and value*, thus holds what an ACCEPT quorum is: no other value can be decided, whatever
//! regencies follow and even if all replicas lose power, since every collection of STOPDATAs shares a correct replica
//! with them whose record binds the value. Replies of different regencies must not be added up
//! (`write_quorums_of_different_regencies_bind_nothing_together`).
//!
//! With fewer replies another value may be decided: then the application takes the batch back, before the decision is
//! delivered. It must keep nothing of a tentative delivery across a restart.

use crate::InstanceNumber;
use crate::config::PlantedBug;
use crate::core::Core;
use crate::effect::{Effect, Tentative};
use crate::proof::Claim;
use steeldb_types::Digest;

/// What was delivered tentatively, last.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    instance: InstanceNumber,
    claim: Claim,
    /// Not when it could not be told what would be executed.
    handed_out: bool,
}

impl Core {
    /// Delivers what is bound in the first undecided instance, and again when it is bound in a later regency.
    pub(crate) fn try_deliver_tentatively(&mut self) -> bool {
        let first = self.window.first();
        if !self.config.tentative || self.transfer.is_installing() || first <= self.delivered {
            return false;
        }
        let Some((claim, proposal)) = self.window.get(first).and_then(|instance| instance.bound.clone())
        else {
            return false;
        };
        let known = self.given.filter(|given| given.instance == first);
        if known.is_some_and(|given| given.claim == claim) || claim.regency.view != self.membership.number() {
            return false;
        }
        if known.is_some_and(|given| given.claim.value != claim.value) {
            self.revoke();
        }
        let requests = self.log.preview(&proposal, &self.clients);
        self.given = Some(Given { instance: first, claim, handed_out: requests.is_some() });
        if let Some((timestamp, requests)) = requests {
            let tentative = Tentative { instance: first, claim, timestamp, requests };
            match self.config.has(PlantedBug::TentativeTooEarly) {
                true => self.effects.push_at_once(Effect::Tentative(tentative)),
                false => self.effects.push(Effect::Tentative(tentative)),
            }
        }
        true
    }

    /// What was delivered tentatively is decided, or taken back when something else is.
    pub(crate) fn settle_tentative(&mut self, instance: InstanceNumber, value: Digest) {
        if self.given.is_some_and(|given| given.instance == instance && given.claim.value == value) {
            self.given = None;
        }
        self.revoke();
    }

    /// Takes back what was delivered tentatively, if anything was.
    pub(crate) fn revoke(&mut self) {
        if let Some(given) = self.given.take().filter(|given| given.handed_out) {
            self.effects.push(Effect::Revoke { instance: given.instance });
        }
    }
}
