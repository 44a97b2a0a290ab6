//! Performs the scheduler's effects: what it wants of backends, servers, peers and clients.

use super::catchup::Wanted;
use super::committer::Job;
use super::hook::Point;
use super::peer::PeerMessage;
use super::reactor::{Reactor, UNCLAIMED_MAX};
use super::{anchors, certifying, keeper, maintenance, sequences, temporary, worker};
use crate::scheduler::{self, BackendReport, Effect, Event};
use bytes::Bytes;
use steeldb_transport::ConnectionId;
use steeldb_types::SessionKey;
use steeldb_wire::codec;
use steeldb_wire::transaction::{OperationKind, ReplicaMessage, SqlState};

impl Reactor {
    pub(super) fn effect(&mut self, effect: Effect) {
        #[cfg(feature = "adversary")]
        let Some(effect) = self.adversary.twist(effect) else { return };
        self.note_effect(&effect);
        match effect {
            Effect::OpenBackend { session, database, role, parameters } => {
                self.open_backend(session, database, role, parameters);
            }
            Effect::Backend { session, command } => {
                let close = command == scheduler::Command::Close;
                let (before, after) = self.with_command(&command);
                if let Some((_, worker)) = self.workers.get(&session) {
                    // A worker that is gone has reported so.
                    for input in before.into_iter().chain([worker::Input::Command(command)]).chain(after) {
                        let _ = worker.send(input);
                    }
                }
                if close {
                    self.workers.remove(&session);
                    self.origins.remove(&session);
                }
            }
            Effect::KeepCopy { tx, number, data } => self.copies.of(tx, number).push(data),
            Effect::EndCopy { tx, number, failure } => self.copies.of(tx, number).end(failure),
            Effect::DropCopies { tx, number } => self.copies.drop(tx, number),
            Effect::LookForPrepared { gids } => {
                let (dir, events) = (self.socket_dir.clone(), self.internal.clone());
                tokio::spawn(async move {
                    let gids = keeper::not_prepared(&dir, gids).await;
                    let _ = events.send(Event::Vanished { gids });
                });
            }
            Effect::FindBlockers { tx, database, process } => {
                self.committer.submit(&database, Job::Blockers { tx, process });
            }
            Effect::TakeAnchor { anchor, database } => {
                let _ = self.anchors.send(anchors::Request::Take(anchor, database));
            }
            Effect::ReleaseAnchor(anchor) => {
                let _ = self.anchors.send(anchors::Request::Release(anchor));
            }
            Effect::CommitPrepared { tx, gid, database } => {
                self.committer.submit(&database, Job::Commit { tx, gid });
            }
            Effect::RollbackPrepared { gid, database } => {
                self.committer.submit(&database, Job::Rollback { gid })
            }
            Effect::CatchUp { position, tx, slot, database, write_set, attempt, reexecution } => {
                let wanted = Wanted { position, tx, slot, database, write_set, reexecution };
                if !self.rows.again(&wanted) {
                    if wanted.reexecution.is_none() {
                        self.rows.expect(&wanted);
                    }
                    self.fetching.want(wanted, attempt);
                    self.fetch_again();
                }
            }
            Effect::Submit(ordered) => self.submit(&ordered),
            Effect::SendVotes(bundle) => {
                bundle.remember_own(self.me, &mut self.judge.memo.borrow_mut());
                let prepared = bundle.votes.iter().any(|(vote, _)| !vote.kind.is_against());
                self.to_members(&PeerMessage::Votes(bundle).encode());
                self.stopped |= prepared && self.hook.stops(Point::VoteSent);
            }
            Effect::ResendVotes { to, bundle } => {
                self.links.send_peer(to, PeerMessage::Votes(bundle).encode());
            }
            Effect::SendStream(stream) => self.to_members(&PeerMessage::Stream(stream).encode()),
            Effect::SendAccusation(signed) => self.to_members(&PeerMessage::Accusation(signed).encode()),
            Effect::TermBegan(term) => self.term_began(term),
            Effect::Certify { epoch, database, statements } => {
                tokio::spawn(certifying::certify(
                    self.socket_dir.clone(),
                    epoch,
                    database,
                    statements,
                    self.internal.clone(),
                ));
            }
            Effect::SkipSequences { database } => {
                tokio::spawn(sequences::skip(self.socket_dir.clone(), database, self.internal.clone()));
            }
            Effect::Reply { connection, message } => {
                let tentative = matches!(message, ReplicaMessage::Tentative { .. });
                self.links.send_client(ConnectionId(connection.0), Bytes::from(codec::encode(&message)));
                self.stopped |= tentative && self.hook.stops(Point::Bound);
            }
            Effect::Answer { session, message } => match self.origins.get(&session) {
                Some(origin) => {
                    self.links.send_client(*origin, Bytes::from(codec::encode(&message)));
                }
                // The order was faster than the client's own copy.
                None => {
                    self.unclaimed.push_back((session, message));
                    if self.unclaimed.len() > UNCLAIMED_MAX {
                        self.unclaimed.pop_front();
                    }
                }
            },
            Effect::Maintain { session, sequence, database, role, sql } => {
                tokio::spawn(maintenance::maintain(
                    self.socket_dir.clone(),
                    database,
                    role,
                    sql,
                    session,
                    sequence,
                    self.internal.clone(),
                ));
            }
            Effect::ClearTemporary { database, schema } => {
                tokio::spawn(temporary::clear(
                    self.socket_dir.clone(),
                    database,
                    schema,
                    self.internal.clone(),
                ));
            }
            Effect::Verify { session, sequence, database, snapshot, position } => {
                tokio::spawn(maintenance::verify(
                    self.socket_dir.clone(),
                    database,
                    snapshot,
                    session,
                    sequence,
                    position,
                    self.internal.clone(),
                ));
            }
            Effect::Diverged { position, tx, reason } => {
                tracing::error!(
                    replica = %self.me, %position, %tx, reason,
                    "this replica's data differ from what a quorum vouched for; it takes part in ordering only and must be rebuilt"
                );
            }
        }
    }

    /// What a worker is told before and after a command: the COPY data that belong to it.
    fn with_command(
        &mut self,
        command: &scheduler::Command,
    ) -> (Option<worker::Input>, Option<worker::Input>) {
        match command {
            scheduler::Command::Execute { tx, number, kind: OperationKind::CopyIn { .. }, show, .. } => {
                // What is shown is not done again.
                let reader = self.copies.of(*tx, *number).reader(*show);
                (None, Some(worker::Input::Feed(reader)))
            }
            scheduler::Command::Prepare { tx, script: Some(_), .. } => {
                (Some(worker::Input::Copies(self.copies.all(*tx))), None)
            }
            _ => (None, None),
        }
    }

    fn open_backend(
        &mut self,
        session: SessionKey,
        database: String,
        role: String,
        parameters: Vec<(String, String)>,
    ) {
        let Some(connection) = self.connection_of(session) else { return };
        let Some(secret) = self.secrets.get(&database) else {
            let report = BackendReport::Lost {
                sqlstate: SqlState::parse("3D000"),
                message: format!("database \"{database}\" is not one of this cluster's"),
            };
            return self.schedule(Event::Backend { session, report });
        };
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let reports = worker::Reports { session, incarnation, sender: self.reports.clone() };
        let start = worker::Start {
            socket_dir: self.socket_dir.clone(),
            database,
            role,
            parameters,
            secret: secret.clone(),
            connection,
            links: self.links.clone(),
            reports,
            patience: self.idle_timeout,
            draws: self.scheduler.is_master(),
            settings: Vec::new(),
            effects: self.catch_up.effects.clone(),
            hook: self.hook.clone(),
        };
        self.workers.insert(session, (incarnation, worker::spawn(start)));
    }

    pub(super) fn connection_of(&self, session: SessionKey) -> Option<ConnectionId> {
        self.scheduler.connection(session).map(|connection| ConnectionId(connection.0))
    }
}
