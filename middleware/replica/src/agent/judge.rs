//! Judges requests for the ordering core.

use crate::scheduler::ClientRights;
use crate::validity;
use std::cell::RefCell;
use std::collections::BTreeMap;
use steeldb_ordering::{self as ordering, Request, Roster};
use steeldb_types::ClientId;
use steeldb_wire::auth::PublicKey;
use steeldb_wire::codec::encode;
use steeldb_wire::transaction::{Ordered, SignatureMemo};

/// What requests are judged by.
pub(super) struct Judge {
    /// The keys that sign moves of the master.
    pub(super) administrators: Vec<PublicKey>,
    pub(super) clients: BTreeMap<ClientId, ClientRights>,
    pub(super) memo: RefCell<SignatureMemo>,
}

impl Judge {
    /// Whether something certified may be ordered in the view of `roster`.
    pub(super) fn check_certified(&self, ordered: &Ordered, roster: &Roster) -> Result<(), String> {
        let key = ordered.certified_key().ok_or("not certified")?;
        ordering::Validator::check(self, &Request::Certified { key, payload: encode(ordered) }, roster)
    }
}

impl ordering::Validator for Judge {
    fn check(&self, request: &Request, roster: &Roster) -> Result<(), String> {
        match request {
            Request::Client { id, payload, .. } => {
                validity::check_client(id.session, payload, &self.clients).map(|_| ())
            }
            Request::Certified { key, payload } => {
                let mut memo = self.memo.borrow_mut();
                let by = validity::By {
                    view: roster.view(),
                    roster: roster.digest(),
                    keys: &roster.key_table(),
                    administrators: &self.administrators,
                };
                validity::check_certified(*key, payload, &by, &mut memo).map(|_| ())
            }
            // The core judges it, and asks below.
            Request::Membership { .. } => Ok(()),
            Request::Joined { .. } | Request::Registration { .. } => {
                Err("the configuration lists the clients of a database".into())
            }
        }
    }

    /// A replica without the database cannot take part, and nothing carries the database to it yet.
    fn check_change(&self, roster: &Roster, next: &Roster) -> Result<(), String> {
        if let Some(new) = next.members().iter().find(|member| roster.member(member.id).is_none()) {
            return Err(format!(
                "replica {} cannot join: nothing transfers the database to a new replica yet",
                new.id.0
            ));
        }
        Ok(())
    }
}
