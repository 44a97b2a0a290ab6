//! Judges requests for the ordering core.

use crate::scheduler::ClientRights;
use crate::validity;
use std::cell::RefCell;
use std::collections::BTreeMap;
use steeldb_ordering::{self as ordering, Request, Roster};
use steeldb_types::{ClientId, ReplicaId};
use steeldb_wire::transaction::SignatureMemo;

/// What requests are judged by.
pub(super) struct Judge {
    /// The replica that no view can do without.
    pub(super) master: ReplicaId,
    pub(super) clients: BTreeMap<ClientId, ClientRights>,
    pub(super) memo: RefCell<SignatureMemo>,
}

impl ordering::Validator for Judge {
    fn check(&self, request: &Request, roster: &Roster) -> Result<(), String> {
        match request {
            Request::Client { id, payload, .. } => {
                validity::check_client(id.session, payload, &self.clients).map(|_| ())
            }
            Request::Certified { key, payload } => {
                let mut memo = self.memo.borrow_mut();
                let keys = roster.key_table();
                validity::check_certified(*key, payload, roster.view(), &keys, &mut memo).map(|_| ())
            }
            // The core judges it, and asks below.
            Request::Membership { .. } => Ok(()),
            Request::Joined { .. } | Request::Registration { .. } => {
                Err("the configuration lists the clients of a database".into())
            }
        }
    }

    /// A replica without the database cannot take part, and nothing carries the database to it yet; and there is no
    /// master change.
    fn check_change(&self, roster: &Roster, next: &Roster) -> Result<(), String> {
        if let Some(new) = next.members().iter().find(|member| roster.member(member.id).is_none()) {
            return Err(format!(
                "replica {} cannot join: nothing transfers the database to a new replica yet",
                new.id.0
            ));
        }
        if !next.view().contains(self.master) {
            return Err(format!("replica {} is the master and cannot be removed", self.master.0));
        }
        Ok(())
    }
}
