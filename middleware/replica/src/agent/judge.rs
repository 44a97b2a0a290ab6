//! Judges requests for the ordering core.

use crate::scheduler::ClientRights;
use crate::validity;
use std::cell::RefCell;
use std::collections::BTreeMap;
use steeldb_ordering::{self as ordering, Request, Roster};
use steeldb_types::{ClientId, View};
use steeldb_wire::auth::PublicKey;
use steeldb_wire::transaction::SignatureMemo;

/// What requests are judged by.
pub(super) struct Judge {
    pub(super) view: View,
    pub(super) keys: Vec<PublicKey>,
    pub(super) clients: BTreeMap<ClientId, ClientRights>,
    pub(super) memo: RefCell<SignatureMemo>,
}

impl ordering::Validator for Judge {
    fn check(&self, request: &Request, _roster: &Roster) -> Result<(), String> {
        match request {
            Request::Client { id, payload, .. } => {
                validity::check_client(id.session, payload, &self.clients).map(|_| ())
            }
            Request::Certified { key, payload } => {
                let mut memo = self.memo.borrow_mut();
                validity::check_certified(*key, payload, &self.view, &self.keys, &mut memo).map(|_| ())
            }
            Request::Membership { .. } => Err("not judged here".into()),
        }
    }

    fn check_change(&self, _roster: &Roster, _next: &Roster) -> Result<(), String> {
        Err("this cluster's replicas cannot change their membership yet".into())
    }
}
