//! Faulty replicas: an agent that follows the protocol, behind something that twists what its store says, or what it says
//! itself. One file each; they can be combined, and then each twists what the one before it lets out.

mod accusations;
mod barriers;
mod certificates;
mod delays;
mod finishes;
mod outcomes;
mod results;
mod silence;
mod stream;
mod terms;
mod votes;
mod write_sets;

use crate::history::Ordinal;
use crate::scenario::Fault;
use crate::world::PeerMessage;
use rand_chacha::ChaCha8Rng;
use steeldb_ordering::Request;
use steeldb_types::{ReplicaId, Term};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::codec;
use steeldb_wire::transaction::{Ordered, ReplicaMessage, SignedFinish};

/// What a faulty replica has at hand.
pub(crate) struct Stage<'a> {
    pub(crate) key: &'a SecretKey,
    pub(crate) rng: &'a mut ChaCha8Rng,
    /// What is ordered: no secret.
    pub(crate) order: &'a [Ordinal],
    /// Who it is, and which term runs as far as it knows.
    pub(crate) me: ReplicaId,
    pub(crate) term: Term,
}

/// A way to be faulty.
pub(crate) trait Adversary {
    /// What its store answers instead.
    fn answer(&mut self, stage: &mut Stage<'_>, messages: Vec<u8>) -> Vec<u8> {
        let _ = stage;
        messages
    }

    /// What really goes to the replica `to` in place of `message`.
    fn to_peer(&mut self, stage: &mut Stage<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let _ = (stage, to);
        vec![message]
    }

    /// What really goes to a client in place of `message`.
    fn to_client(
        &mut self,
        stage: &mut Stage<'_>,
        client: usize,
        message: ReplicaMessage,
    ) -> Vec<ReplicaMessage> {
        let _ = (stage, client);
        vec![message]
    }

    /// What it tells a client that has finished a transaction, besides what is true.
    fn finish(&mut self, stage: &mut Stage<'_>, finish: &SignedFinish) -> Vec<ReplicaMessage> {
        let _ = (stage, finish);
        vec![]
    }

    /// What it has ordered besides, when it hears the votes of `from`.
    fn hear(&mut self, stage: &mut Stage<'_>, from: ReplicaId, message: &PeerMessage) -> Vec<Request> {
        let _ = (stage, from, message);
        vec![]
    }

    /// What it has ordered in place of a certificate that it gathered.
    fn to_order(&mut self, stage: &mut Stage<'_>, ordered: Ordered) -> Vec<Ordered> {
        let _ = stage;
        vec![ordered]
    }
}

/// A certificate, to be handed in.
pub(crate) fn request(ordered: &Ordered) -> Option<Request> {
    Some(Request::Certified { key: ordered.certified_key()?, payload: codec::encode(ordered) })
}

/// Whoever does `fault`; nobody when the world sees to it.
pub(crate) fn of(fault: Fault, n: u16, rng: &mut ChaCha8Rng) -> Option<Box<dyn Adversary>> {
    Some(match fault {
        Fault::TamperedRow => return None,
        Fault::WrongRows
        | Fault::MissingRows
        | Fault::PermutedRows
        | Fault::WrongCounts
        | Fault::FakeErrors => Box::new(results::LyingStore(fault)),
        Fault::TwoFaced => Box::new(results::TwoFaced),
        Fault::LowBarriers => Box::new(barriers::Low),
        Fault::HighBarriers => Box::new(barriers::High),
        Fault::StreamForger => Box::new(stream::StreamForger),
        Fault::Silent => Box::new(silence::Silent),
        Fault::SilentToSome => Box::new(silence::SilentToSome::new(n, rng)),
        Fault::VoteDelayer => Box::new(delays::VoteDelayer::default()),
        Fault::VoteForger => Box::new(votes::VoteForger),
        Fault::OutcomeForger => Box::new(outcomes::OutcomeForger::default()),
        Fault::WriteSetForger => Box::new(write_sets::WriteSetForger),
        Fault::FinishForger => Box::new(finishes::FinishForger),
        Fault::CertificateForger => Box::new(certificates::CertificateForger::default()),
        Fault::Accuser => Box::new(accusations::Accuser),
        Fault::DeposeForger => Box::new(accusations::DeposeForger::default()),
        Fault::TermForger => Box::new(terms::TermForger),
    })
}
