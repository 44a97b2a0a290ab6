//! Faulty replicas: a core that follows the protocol, behind something that twists what it says and hears. One file
//! each; they can be combined, and then each twists what the one before it lets out.
//!
//! Replicas that crash, rot, forget or run twice are not here: that happens to them, and the world sees to it.

mod equivocator;
mod flooder;
mod invalid_proposer;
mod loot;
mod lying_sender;
mod proof_forger;
mod replayer;
mod silent;
mod slow_leader;
mod vote_forger;
mod withholding_leader;

pub(crate) use loot::Loot;

use crate::scenario::Fault;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use steeldb_ordering::{Claim, InstanceNumber, Message, Request};
use steeldb_types::ReplicaId;
use steeldb_wire::auth::{Namespace, SecretKey, Signature};
use steeldb_wire::codec;

/// What a faulty replica has at hand.
pub(crate) struct Stage<'a> {
    pub(crate) me: ReplicaId,
    pub(crate) n: u16,
    pub(crate) key: &'a SecretKey,
    /// What the faulty replicas of this run have heard, together.
    pub(crate) loot: &'a Loot,
    pub(crate) rng: &'a mut ChaCha8Rng,
}

/// A message that goes out so many microseconds later.
pub(crate) struct Said {
    pub(crate) message: Message,
    pub(crate) after_us: u64,
}

/// A way to be faulty.
pub(crate) trait Adversary {
    /// What really goes to `to` in place of `message`.
    fn twist(&mut self, stage: &mut Stage<'_>, to: ReplicaId, message: Message) -> Vec<Said> {
        let _ = (stage, to);
        vec![message.into()]
    }

    /// What it says by itself when it hears `message` from `from`.
    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        let _ = (stage, from, message);
        vec![]
    }

    /// Whether its core never learns of a request.
    fn ignores(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// Whether it tells clients what is not so.
    fn lies_to_clients(&self) -> bool {
        false
    }
}

impl From<Message> for Said {
    fn from(message: Message) -> Said {
        Said { message, after_us: 0 }
    }
}

impl Stage<'_> {
    /// A genuine ACCEPT signature of this replica, for whatever it likes.
    pub(crate) fn accept(&self, instance: InstanceNumber, claim: Claim) -> Message {
        let signature = sign_accept(self.key, instance, claim);
        Message::Accept { instance, claim, signature }
    }

    /// Some other replica.
    pub(crate) fn any_peer(&mut self) -> ReplicaId {
        let step = self.rng.random_range(1..self.n);
        ReplicaId((self.me.0 + step) % self.n)
    }

    /// All other replicas.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        (0..self.n).map(ReplicaId).filter(move |peer| *peer != me)
    }
}

/// What an ACCEPT's signature is over, spelled out here: an adversary does not ask the core to sign.
pub(crate) fn sign_accept(key: &SecretKey, instance: InstanceNumber, claim: Claim) -> Signature {
    key.sign(Namespace::Accept, &codec::encode(&(claim.regency, instance, claim.value)))
}

/// Whoever does `fault`; nobody when the world sees to it.
pub(crate) fn of(fault: Fault, n: u16, rng: &mut ChaCha8Rng) -> Option<Box<dyn Adversary>> {
    Some(match fault {
        Fault::Crash | Fault::BitRot | Fault::Amnesia | Fault::Twins => return None,
        Fault::Silent => Box::new(silent::Silent),
        Fault::WithholdingLeader => Box::new(withholding_leader::WithholdingLeader::new(n, rng)),
        Fault::Equivocator => Box::new(equivocator::Equivocator::new(n, rng)),
        Fault::InvalidProposer => Box::new(invalid_proposer::InvalidProposer),
        Fault::Replayer => Box::new(replayer::Replayer::default()),
        Fault::VoteForger => Box::new(vote_forger::VoteForger),
        Fault::ProofForger => Box::new(proof_forger::ProofForger),
        Fault::LyingSender => Box::new(lying_sender::LyingSender),
        Fault::SlowLeader => Box::new(slow_leader::SlowLeader::new(rng)),
        Fault::Flooder => Box::new(flooder::Flooder::default()),
    })
}
