//! What clients do, and what those do that misbehave.

use super::{Happening, World};
use crate::client::{Ended, State};
use crate::scenario::ClientFault;
use crate::sql::Statement;
use rand::Rng;
use steeldb_client_shim::{Completion, Event, Transmit, Waiting};
use steeldb_types::{Digest, ReplicaId};
use steeldb_wire::transaction::{ClientMessage, Decision, ReplicaMessage, SignedFinish};

impl World<'_> {
    pub(super) fn schedule_clients(&mut self) {
        for client in 0..self.clients.len() {
            self.next_move(client, 500_000);
        }
    }

    /// Sets a client's next move.
    fn next_move(&mut self, client: usize, most_us: u64) {
        let after_us = self.rng.random_range(100..=most_us.max(101));
        self.clients[client].moves += 1;
        let move_number = self.clients[client].moves;
        self.at(self.now_us + after_us, Happening::Act { client, move_number });
    }

    pub(super) fn act(&mut self, at: usize, move_number: u64) {
        let (now_us, healed) = (self.now_us, self.healed);
        let client = &mut self.clients[at];
        if client.moves != move_number || client.is_done() {
            return;
        }
        match client.state {
            State::Out => {
                #[cfg(feature = "planted-bugs")]
                let bug = self.scenario.client_bug;
                client.open(|_config| {
                    #[cfg(feature = "planted-bugs")]
                    {
                        _config.planted_bug = bug;
                    }
                });
            }
            State::Idle => {
                if let Some(tx) = client.question(healed, &mut self.rng) {
                    client.ask(tx);
                    return self.flush_client(at);
                }
                client.begin(healed, now_us);
                if client.state == State::Running {
                    return self.go_on(at);
                }
                if !client.is_done() {
                    // The last one waits for the faults to end.
                    self.next_move(at, 500_000);
                }
            }
            State::Running => return self.go_on(at),
            State::Opening | State::Asking | State::Finishing | State::Done | State::Away => {}
        }
        self.flush_client(at);
    }

    /// The next statement, or the end.
    fn go_on(&mut self, at: usize) {
        if self.clients[at].fault == Some(ClientFault::Vanishes) && self.rng.random_bool(0.2) {
            self.note(&format!("client {at} vanishes"));
            self.clients[at].vanish();
            self.break_links_of_client(at);
            return self.next_move(at, 800_000);
        }
        let client = &mut self.clients[at];
        let Some(plan) = client.plan.clone() else { return };
        let broken = client.attempt.as_ref().is_none_or(|attempt| attempt.broken);
        let rest: Vec<Statement> = plan.statements.iter().skip(client.next_statement).cloned().collect();
        let mut finish = None;
        if broken {
            finish = Some(Decision::Rollback);
        } else if client.failed {
            let has_savepoint = client.attempt.as_ref().is_some_and(|attempt| {
                attempt.shown.iter().any(|shown| {
                    matches!(shown.statement, Statement::Savepoint(_))
                        && shown.messages.first() != Some(&b'E')
                })
            });
            if plan.persists && has_savepoint && !client.recovered {
                client.recovered = true;
                client.send(Statement::RollbackTo("a".into()), &mut self.rng);
            } else {
                // Now and then it says COMMIT all the same.
                let stubborn = self.rng.random_bool(0.2);
                finish = Some(if stubborn { plan.decision } else { Decision::Rollback });
            }
        } else if rest.is_empty() {
            finish = Some(plan.decision);
        } else if plan.pipelined {
            client.next_statement += rest.len();
            for statement in rest {
                self.clients[at].send(statement, &mut self.rng);
            }
        } else if let Some(statement) = rest.into_iter().next() {
            client.next_statement += 1;
            client.send(statement, &mut self.rng);
        }
        let client = &mut self.clients[at];
        if let Some(decision) = finish {
            if client.fault == Some(ClientFault::NeverFinishes) {
                return;
            }
            client.state = State::Finishing;
            if let Some(core) = &mut client.core {
                core.finish(decision);
            }
        }
        self.flush_client(at);
    }

    /// Sends what a client's core wants sent, and looks at what it says.
    fn flush_client(&mut self, at: usize) {
        loop {
            let mut quiet = true;
            while let Some(transmit) = self.clients[at].core.as_mut().and_then(|core| core.poll_transmit()) {
                quiet = false;
                self.transmit(at, transmit);
            }
            while let Some(event) = self.clients[at].core.as_mut().and_then(|core| core.poll_event()) {
                quiet = false;
                self.client_event(at, event);
            }
            if quiet {
                break;
            }
        }
        if self.clients[at].state == State::Done {
            self.clients[at].core = None;
        }
        self.set_alarm(at);
    }

    fn transmit(&mut self, at: usize, transmit: Transmit) {
        let Transmit { to, message, at_once } = transmit;
        for replica in to {
            let relaxed = at_once.is_some_and(|only| only != replica);
            match self.clients[at].fault {
                Some(ClientFault::Withholds) if !is_opening(&message) && self.rng.random_bool(0.08) => {}
                Some(ClientFault::Equivocator) => self.equivocate(at, replica, message.clone(), relaxed),
                Some(ClientFault::Impostor) if self.rng.random_bool(0.15) => {
                    self.client_says(at, replica, message.clone(), relaxed);
                    self.pretend(at, replica);
                }
                _ => self.client_says(at, replica, message.clone(), relaxed),
            }
        }
    }

    /// Says something else, or both.
    fn equivocate(&mut self, at: usize, to: ReplicaId, message: ClientMessage, relaxed: bool) {
        let mut messages = vec![message];
        if self.rng.random_bool(0.25)
            && let Some(other) = self.other(at, &messages[0])
        {
            let both = self.rng.random_bool(0.4);
            match both {
                true => messages.insert(self.rng.random_range(0..=1), other),
                false => messages = vec![other],
            }
        }
        for message in messages {
            self.client_says(at, to, message, relaxed);
        }
    }

    /// Says that another term runs, that it was shown something else, or that it has other settings.
    fn pretend(&mut self, at: usize, to: ReplicaId) {
        let Some(tx) = self.clients[at].attempt.as_ref().map(|attempt| attempt.tx) else { return };
        let message = if self.rng.random_bool(0.7) {
            let transcript = Digest([self.rng.random_range(0..3); 32]);
            let (epoch, operations) = (self.rng.random_range(0..3), self.rng.random_range(0..5));
            ClientMessage::Resume { tx, epoch, operations, transcript }
        } else {
            let settings = vec![format!("SET x = {}", self.rng.random_range(0..3))];
            ClientMessage::Restore { session: tx.session.session, settings }
        };
        self.client_says(at, to, message, false);
    }

    fn other(&mut self, at: usize, message: &ClientMessage) -> Option<ClientMessage> {
        match message.clone() {
            ClientMessage::Define { session, statement, mut text } => {
                text.sql = "UPDATE 0 0 APPEND 77777".into();
                Some(ClientMessage::Define { session, statement, text })
            }
            ClientMessage::Resume { tx, epoch, operations, .. } => {
                let (operations, transcript) = (operations + self.rng.random_range(0..2), Digest([5; 32]));
                Some(ClientMessage::Resume { tx, epoch, operations, transcript })
            }
            ClientMessage::Operation(mut operation) => {
                operation.row_order = !operation.row_order;
                Some(ClientMessage::Operation(operation))
            }
            ClientMessage::Finish(signed) => {
                let mut finish = signed.finish;
                match self.rng.random_range(0..4) {
                    0 => finish.decision = Decision::Rollback,
                    1 => finish.transcript = Digest([4; 32]),
                    2 => finish.operations = finish.operations.saturating_sub(1),
                    _ => finish.slot = finish.slot.next(),
                }
                Some(ClientMessage::Finish(SignedFinish::new(finish, self.clients[at].key())))
            }
            _ => None,
        }
    }

    fn client_event(&mut self, at: usize, event: Event) {
        let healed = self.healed;
        let client = &mut self.clients[at];
        let pause_us = client.plan.as_ref().map_or(20_000, |plan| plan.pause_us);
        match event {
            Event::Opened { .. } => {
                client.state = State::Idle;
                self.next_move(at, 50_000);
            }
            Event::Result { number, messages } => {
                if let Some(core) = &mut client.core {
                    core.consumed(messages.len());
                }
                let shown = client.attempt.as_mut().and_then(|a| a.shown.get_mut(number as usize - 1));
                if let Some(shown) = shown {
                    shown.messages.extend(messages);
                }
            }
            Event::Executed { number, failed, .. } => {
                client.unanswered = client.unanswered.saturating_sub(1);
                let shown = client.attempt.as_mut().and_then(|a| a.shown.get_mut(number as usize - 1));
                if let Some(shown) = shown {
                    shown.complete = true;
                }
                client.failed =
                    failed || client.core.as_ref().is_some_and(|core| core.in_failed_transaction());
                if client.unanswered == 0 && client.state == State::Running {
                    self.next_move(at, pause_us);
                }
            }
            Event::OperationFailed { number, error } => {
                self.note(&format!("client {at}: operation {number} fails: {error}"));
                let client = &mut self.clients[at];
                client.unanswered = client.unanswered.saturating_sub(1);
                if let Some(attempt) = &mut client.attempt {
                    attempt.broken = true;
                }
                if client.state == State::Running {
                    self.next_move(at, pause_us);
                }
            }
            Event::Finished(result) => {
                let result = result.map_err(|error| error.sqlstate.to_string());
                self.note(&format!("client {at}: finished {result:?}"));
                let failed = result.is_err();
                let committed = matches!(result, Ok(Completion::Committed(Some(_))));
                self.end_attempt(at, Ended::Finished(result));
                self.clients[at].state = State::Idle;
                if committed {
                    self.answered();
                }
                let pause_us = match self.clients[at].is_probing() {
                    // What holds a permit may be as long in expiring as it took: its T_vote grows with that.
                    true => 4_000_000,
                    false if failed && self.scenario.clients.eager => 200,
                    false => 100_000,
                };
                self.next_move(at, pause_us);
            }
            Event::Lost(error) => {
                self.note(&format!("client {at}: session lost: {error}"));
                let had = self.clients[at].attempt.is_some();
                if had {
                    self.end_attempt(at, Ended::Lost);
                }
                // What is to be sent is sent before: the core goes with the session.
                while let Some(transmit) =
                    self.clients[at].core.as_mut().and_then(|core| core.poll_transmit())
                {
                    self.transmit(at, transmit);
                }
                self.clients[at].lost(healed && !had);
                if !self.clients[at].is_done() {
                    self.next_move(at, 300_000);
                }
            }
            Event::Told(answer) => {
                let asked = client.asked.take();
                let correct = client.fault.is_none();
                if client.state == State::Asking {
                    client.state = State::Idle;
                    self.next_move(at, 20_000);
                }
                self.note(&format!("client {at}: {asked:?} is said to be {answer:?}"));
                if let (Some(tx), Ok(state), true) = (asked, answer, correct) {
                    self.history.told.push((tx, state));
                }
            }
            Event::Maintained(_) | Event::Verified { .. } => {}
        }
    }

    /// A client was told of its commit: that may be when all replicas have to crash.
    fn answered(&mut self) {
        self.answered += 1;
        if self.scenario.power.at_answer == Some(self.answered) && !self.healed {
            self.note("the power goes, right behind an answer");
            for at in 0..self.nodes.len() {
                self.at(self.now_us, Happening::Crash { at, store_first: false });
            }
        }
    }

    fn end_attempt(&mut self, at: usize, ended: Ended) {
        let now_us = self.now_us;
        let client = &mut self.clients[at];
        let correct = client.fault.is_none();
        if let Some(attempt) = client.end(ended, now_us)
            && correct
        {
            self.history.ended(&attempt);
            self.history.attempts.push(attempt);
        }
    }

    /// A replica's message reaches a client.
    pub(super) fn answer_frame(&mut self, at: usize, from: ReplicaId, message: ReplicaMessage) {
        let client = &mut self.clients[at];
        if let ReplicaMessage::Term(term) = message {
            if let Some(heard) = client.term_said(from, term) {
                let (id, now_us) = (client.id(), self.now_us);
                for epoch in heard {
                    self.history.heard.insert((id, epoch), now_us);
                }
            }
            return self.flush_client(at);
        }
        let id = client.id();
        let own = match &message {
            ReplicaMessage::Begun { tx, .. }
            | ReplicaMessage::Result { tx, .. }
            | ReplicaMessage::Executed { tx, .. }
            | ReplicaMessage::Transcript { tx, .. }
            | ReplicaMessage::Outcome { tx, .. }
            | ReplicaMessage::Tentative { tx, .. }
            | ReplicaMessage::NotReproduced { tx } => tx.session.client == id,
            _ => true,
        };
        if let Some(core) = client.core.as_mut().filter(|_| own) {
            core.receive(from, message);
            self.flush_client(at);
        }
    }

    pub(super) fn client_link(&mut self, at: usize, replica: ReplicaId, up: bool) {
        let client = &mut self.clients[at];
        match up {
            true => client.up.insert(replica),
            false => client.up.remove(&replica),
        };
        if let Some(core) = &mut client.core {
            if up {
                core.link_up(replica)
            } else {
                core.link_down(replica)
            }
            self.flush_client(at);
        }
    }

    /// How long a client waits: short, and long beside the replicas' own time-outs.
    fn set_alarm(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let waiting = client.core.as_ref().and_then(|core| core.waiting());
        if waiting == client.waiting {
            return;
        }
        client.waiting = waiting;
        client.alarms += 1;
        let (alarm, began) = (client.alarms, client.attempt.as_ref().map_or(self.now_us, |a| a.began_us));
        let Some((waiting, _)) = waiting else { return };
        let patience_us = match waiting {
            Waiting::Opening => 4_000_000,
            Waiting::Replicas => 8_000_000,
            Waiting::Master => 8_000_000,
            Waiting::Slot | Waiting::Verification | Waiting::Answer => 5_000_000,
            Waiting::Outcome => 12_000_000 + 4 * (self.now_us - began),
        };
        self.at(self.now_us + patience_us, Happening::Alarm { client: at, alarm });
    }

    pub(super) fn alarm(&mut self, at: usize, alarm: u64) {
        let client = &mut self.clients[at];
        if client.alarms != alarm {
            return;
        }
        let Some((waiting, _)) = client.waiting else { return };
        if let Some(core) = &mut client.core {
            core.expire(waiting);
            self.note(&format!("client {at} waited for {waiting:?} for too long"));
            self.clients[at].waiting = None;
            self.flush_client(at);
        }
    }

    /// Once the faults are over, clients that misbehave are gone, and all that they left is to be cleared away.
    pub(super) fn send_faulty_clients_away(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].fault.is_some() {
                self.clients[at].vanish();
                self.clients[at].state = State::Away;
                self.break_links_of_client(at);
            }
        }
    }
}

fn is_opening(message: &ClientMessage) -> bool {
    matches!(message, ClientMessage::OpenSession { .. })
}
