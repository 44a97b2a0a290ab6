//! A leader that leaves some out: proposals and SYNCs reach only some replicas, and some sessions' requests never
//! reach its core. Else it follows the protocol.

use super::{Adversary, Said, Stage};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use steeldb_ordering::{Message, Request, RequestKey};
use steeldb_types::ReplicaId;

pub(crate) struct WithholdingLeader {
    /// Bit i: replica i hears of proposals.
    told: u32,
    /// Sessions with this parity are not served.
    ignored: Option<u64>,
}

impl WithholdingLeader {
    pub(crate) fn new(n: u16, rng: &mut ChaCha8Rng) -> WithholdingLeader {
        let told = match rng.random_range(0..3) {
            0 => 0,
            1 => u32::MAX,
            _ => rng.random_range(0..1u32 << n),
        };
        // Who tells everybody everything withholds nothing.
        let ignored = (told == u32::MAX || rng.random_bool(0.3)).then(|| rng.random_range(0..2));
        WithholdingLeader { told, ignored }
    }
}

impl Adversary for WithholdingLeader {
    fn twist(&mut self, _stage: &mut Stage<'_>, to: ReplicaId, message: Message) -> Vec<Said> {
        let leads = matches!(message, Message::Propose { .. } | Message::Sync { .. });
        if leads && self.told >> to.0 & 1 == 0 { vec![] } else { vec![message.into()] }
    }

    fn ignores(&self, request: &Request) -> bool {
        match request.key() {
            RequestKey::Client(id) => self.ignored == Some(id.session.session.0 % 2),
            RequestKey::Certified(_) | RequestKey::Membership(_) | RequestKey::Registration(..) => {
                self.ignored.is_some()
            }
        }
    }
}
