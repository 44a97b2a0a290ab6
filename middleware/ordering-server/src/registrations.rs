//! What a client believes of its registrations: what replicas of weight Q_v say alike. Sans-IO.

use crate::message::Refused;
use std::collections::BTreeMap;
use steeldb_ordering::Registered;
use steeldb_types::{Digest, ReplicaId, View};

/// Gathers what replicas say about registrations that are under way.
pub(crate) struct Registrations {
    view: View,
    waiting: BTreeMap<Digest, BTreeMap<ReplicaId, Result<Registered, Refused>>>,
}

impl Registrations {
    pub(crate) fn new(view: View) -> Registrations {
        Registrations { view, waiting: BTreeMap::new() }
    }

    /// The replicas of another view count from now on, and have said nothing yet.
    pub(crate) fn set_view(&mut self, view: View) {
        self.view = view;
        self.waiting.values_mut().for_each(BTreeMap::clear);
    }

    /// Waits for the registration of this digest.
    pub(crate) fn begin(&mut self, request: Digest) {
        self.waiting.entry(request).or_default();
    }

    /// Waits no longer.
    pub(crate) fn forget(&mut self, request: &Digest) {
        self.waiting.remove(request);
    }

    /// A replica says something; its last word counts. What is believed now, if anything.
    ///
    /// What was made of a registration is believed of a quorum. So is that it is of a stranger: a correct replica that is
    /// behind may say so. Other refusals take one correct replica; that it is busy never ends the waiting.
    pub(crate) fn says(
        &mut self,
        from: ReplicaId,
        request: Digest,
        word: Result<Registered, Refused>,
    ) -> Option<Result<Registered, Refused>> {
        if !self.view.contains(from) {
            return None;
        }
        let words = self.waiting.get_mut(&request)?;
        words.insert(from, word.clone());
        let alike = words.iter().filter(|(_, other)| **other == word).map(|(replica, _)| *replica);
        let for_good = |word: &Result<Registered, Refused>| matches!(word, Err(reason) if !matches!(reason, Refused::Busy | Refused::NotJoined));
        let against = words.iter().filter(|(_, word)| for_good(word)).map(|(replica, _)| *replica);
        let believed = match &word {
            Err(Refused::Busy) => false,
            Ok(_) | Err(Refused::NotJoined) => self.view.is_quorum(alike),
            Err(_) => self.view.has_correct(against),
        };
        if believed {
            self.waiting.remove(&request);
        }
        believed.then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Digest = Digest([1; 32]);

    fn registrations() -> Registrations {
        let mut registrations = Registrations::new(View::of_size(4).unwrap());
        registrations.begin(REQUEST);
        registrations
    }

    #[test]
    fn a_challenge_is_believed_of_a_quorum() {
        let mut registrations = registrations();
        let challenge = |byte| Ok(Registered::Challenge(Digest([byte; 32])));
        assert_eq!(registrations.says(ReplicaId(0), REQUEST, challenge(1)), None);
        assert_eq!(registrations.says(ReplicaId(1), REQUEST, challenge(2)), None, "a liar");
        assert_eq!(registrations.says(ReplicaId(2), REQUEST, challenge(1)), None);
        assert_eq!(registrations.says(ReplicaId(2), REQUEST, challenge(1)), None, "again");
        assert_eq!(registrations.says(ReplicaId(9), REQUEST, challenge(1)), None, "a stranger");
        assert_eq!(registrations.says(ReplicaId(3), REQUEST, challenge(1)), Some(challenge(1)));
        assert_eq!(registrations.says(ReplicaId(1), REQUEST, challenge(1)), None, "not waited for");
    }

    #[test]
    fn a_refusal_for_good_takes_one_correct_replica_and_that_one_is_a_stranger_a_quorum() {
        let invalid = |why: &str| Err(Refused::Invalid(why.into()));
        let mut registrations = registrations();
        assert_eq!(registrations.says(ReplicaId(0), REQUEST, Err(Refused::Busy)), None);
        assert_eq!(registrations.says(ReplicaId(1), REQUEST, Err(Refused::Busy)), None);
        assert_eq!(registrations.says(ReplicaId(1), REQUEST, Err(Refused::NotJoined)), None);
        assert_eq!(registrations.says(ReplicaId(2), REQUEST, Err(Refused::NotJoined)), None);
        assert_eq!(registrations.says(ReplicaId(0), REQUEST, invalid("no")), None);
        assert_eq!(registrations.says(ReplicaId(3), REQUEST, invalid("never")), Some(invalid("never")));
    }
}
