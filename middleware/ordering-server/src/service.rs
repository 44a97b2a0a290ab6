//! The replicated service of one replica: the application, and what it said to each session last.
//!
//! A batch may be executed before it is decided. Its replies are kept apart from the others until then, and the
//! application goes back to its savepoint if something else is decided.
//!
//! Invariants: at most one batch is ahead of the decided order; nothing of it is cached, or outlives it when it is taken
//! back; a batch is executed once, however many regencies hold on to it.

use crate::application::{Application, Command};
use crate::limits;
use crate::message::{Answer, Reply, ServerMessage};
use crate::operation::Operation;
use crate::replies::Replies;
use borsh::BorshDeserialize;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Claim, Delivery, InstanceNumber, Request, RequestId, RequestKey, Tentative};
use steeldb_types::{Position, Timestamp, ViewNumber};
use steeldb_wire::codec;

pub(crate) struct Service<A> {
    application: A,
    replies: Replies,
    ahead: Option<Ahead>,
    /// The last decided instance that the application has executed.
    delivered: InstanceNumber,
    /// The last position of the decided order.
    position: Position,
    /// The view that the last instance executed has led to.
    view: ViewNumber,
    /// Whether a state is about to be taken over, and this one is of no use any more.
    is_replaced: bool,
}

/// What a checkpoint of the service holds, read.
#[derive(BorshDeserialize)]
struct Saved {
    position: Position,
    replies: Vec<(RequestId, Reply)>,
    application: Vec<u8>,
}

/// A batch that was executed and is not decided.
struct Ahead {
    instance: InstanceNumber,
    claim: Claim,
    /// The batch's last position.
    position: Position,
    /// In the batch's order.
    replies: Vec<(RequestId, Reply)>,
    by_request: BTreeMap<RequestId, usize>,
}

impl Ahead {
    fn frame(&self, id: RequestId, reply: &Reply) -> Bytes {
        let (instance, claim) = (self.instance, self.claim);
        ServerMessage::Tentative { id, instance, claim, reply: reply.clone() }.encode()
    }
}

/// A request that was executed.
pub(crate) struct Done {
    pub(crate) id: RequestId,
    /// What its client is to be sent; nothing when the tentative reply that went out says as much.
    pub(crate) frame: Option<Bytes>,
}

impl<A: Application> Service<A> {
    pub(crate) fn new(application: A) -> Service<A> {
        let replies = Replies::new(limits::REPLIES_MAX, limits::REPLIES_BYTES_MAX);
        Service {
            application,
            replies,
            ahead: None,
            delivered: InstanceNumber(0),
            position: Position(0),
            view: ViewNumber(0),
            is_replaced: false,
        }
    }

    pub(crate) fn application(&self) -> &A {
        &self.application
    }

    /// The view that this replica is in.
    pub(crate) fn view(&self) -> ViewNumber {
        self.view
    }

    /// A view begins.
    pub(crate) fn begin_view(&mut self, view: ViewNumber) {
        self.view = view;
    }

    /// The last decided instance that was executed.
    pub(crate) fn delivered(&self) -> InstanceNumber {
        self.delivered
    }

    /// The final reply to exactly this request, if it is its session's last and still kept.
    pub(crate) fn reply(&self, id: RequestId) -> Option<Bytes> {
        let (view, reply) = (self.view, self.replies.get(id)?.clone());
        Some(ServerMessage::Executed { id, view, reply }.encode())
    }

    /// The reply to a request that was executed ahead.
    pub(crate) fn tentative_reply(&self, id: RequestId) -> Option<Bytes> {
        let ahead = self.ahead.as_ref()?;
        let (_, reply) = ahead.replies.get(*ahead.by_request.get(&id)?)?;
        Some(ahead.frame(id, reply))
    }

    /// Executes a batch ahead of its decision, or vouches for it again in another regency.
    pub(crate) fn deliver_tentatively(&mut self, tentative: &Tentative) -> Vec<(RequestId, Bytes)> {
        let Tentative { instance, claim, timestamp, requests } = tentative;
        let same = |ahead: &Ahead| ahead.instance == *instance && ahead.claim.value == claim.value;
        let ahead = match self.ahead.take() {
            Some(ahead) if same(&ahead) => Ahead { claim: *claim, ..ahead },
            other => {
                if other.is_some() {
                    self.application.rollback();
                }
                self.application.savepoint();
                let replies = self.execute(*timestamp, requests);
                let by_request = replies.iter().zip(0..).map(|((id, _), at)| (*id, at)).collect();
                let position = last_position(requests).unwrap_or(self.position);
                Ahead { instance: *instance, claim: *claim, position, replies, by_request }
            }
        };
        let frames = ahead.replies.iter().map(|(id, reply)| (*id, ahead.frame(*id, reply))).collect();
        self.ahead = Some(ahead);
        frames
    }

    /// Takes back what was executed ahead in an instance.
    pub(crate) fn revoke(&mut self, instance: InstanceNumber) {
        if self.ahead.take_if(|ahead| ahead.instance == instance).is_some() {
            self.application.rollback();
        }
    }

    /// Executes a decided batch, unless it was executed ahead.
    pub(crate) fn deliver(&mut self, delivery: &Delivery) -> Vec<Done> {
        let decided = delivery.proof.claim;
        let ahead = self.ahead.take();
        let was_ahead = ahead.is_some();
        let same = |ahead: &Ahead| ahead.instance == delivery.instance && ahead.claim.value == decided.value;
        let (replies, vouched) = match ahead.filter(same) {
            Some(ahead) => {
                self.application.release();
                // Who decides in the regency that its replies named has said all that a client needs: with as many
                // others as it takes to decide, the client has a quorum of them.
                (ahead.replies, ahead.claim == decided)
            }
            None => {
                if was_ahead {
                    self.application.rollback();
                }
                (self.execute(delivery.timestamp, &delivery.requests), false)
            }
        };
        self.delivered = delivery.instance;
        self.position = last_position(&delivery.requests).unwrap_or(self.position);
        let mut done = Vec::with_capacity(replies.len());
        let view = self.view;
        for (id, reply) in replies {
            let frame =
                (!vouched).then(|| ServerMessage::Executed { id, view, reply: reply.clone() }.encode());
            self.replies.put(id, reply);
            done.push(Done { id, frame });
        }
        done
    }

    fn execute(
        &mut self,
        timestamp: Timestamp,
        requests: &[(Position, Arc<Request>)],
    ) -> Vec<(RequestId, Reply)> {
        let mut replies = Vec::with_capacity(requests.len());
        for (position, request) in requests {
            let RequestKey::Client(id) = request.key() else { continue };
            let position = *position;
            let result = match Operation::decode(request.payload()) {
                Some(Operation::Execute(payload)) => {
                    self.application.execute(&Command { position, timestamp, id, payload })
                }
                Some(Operation::Query(payload)) => self.application.query(payload),
                // Not ordered where replicas judge requests.
                None => Vec::new(),
            };
            replies.push((id, Reply { position, result: within_bound(result) }));
        }
        replies
    }

    /// The state after the last delivery, the same on every replica; nothing in the middle of a batch.
    pub(crate) fn snapshot(&self) -> Option<Vec<u8>> {
        if self.ahead.is_some() || self.is_replaced {
            return None;
        }
        let (state, replies) = (self.application.snapshot(), self.replies.iter().collect::<Vec<_>>());
        if state.len() > limits::STATE_BYTES_MAX {
            tracing::error!(
                bytes = state.len(),
                "a state above the bound: no checkpoint, the log is not cut"
            );
            return None;
        }
        Some(codec::encode(&(self.position, replies, state)))
    }

    /// This state is given up: another one is on its way.
    pub(crate) fn begin_restore(&mut self) {
        self.is_replaced = true;
    }

    /// Takes over the state after an instance.
    ///
    /// # Errors
    /// It is not what [`snapshot`](Service::snapshot) makes.
    pub(crate) fn restore(&mut self, instance: InstanceNumber, state: &[u8]) -> Result<(), String> {
        let saved: Saved = codec::decode(state, state.len()).map_err(|error| error.to_string())?;
        self.application.restore(&saved.application)?;
        self.replies = Replies::new(limits::REPLIES_MAX, limits::REPLIES_BYTES_MAX);
        for (id, reply) in saved.replies {
            self.replies.put(id, reply);
        }
        (self.ahead, self.is_replaced) = (None, false);
        (self.delivered, self.position) = (instance, saved.position);
        Ok(())
    }

    /// Answers from the state as it is here and now; nothing before everything up to `said_upto` was executed.
    pub(crate) fn query(&self, payload: &[u8], said_upto: InstanceNumber) -> Option<Answer> {
        if self.delivered < said_upto || self.is_replaced {
            return None;
        }
        let executed = self.ahead.as_ref().map_or(self.position, |ahead| ahead.position);
        let since = self.application.last_change(payload).unwrap_or(executed);
        let ahead = self.ahead.as_ref().filter(|_| since > self.position);
        let ahead = ahead.map(|ahead| (ahead.instance, ahead.claim));
        Some(Answer { result: within_bound(self.application.query(payload)), since, ahead })
    }
}

fn last_position(requests: &[(Position, Arc<Request>)]) -> Option<Position> {
    requests.last().map(|(position, _)| *position)
}

fn within_bound(result: Vec<u8>) -> Vec<u8> {
    if result.len() <= limits::REPLY_BYTES_MAX {
        return result;
    }
    tracing::error!(bytes = result.len(), "a reply above the bound is sent as an empty one");
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::{Proof, Regency};
    use steeldb_types::{ClientId, Digest, SessionId, SessionKey};
    use steeldb_wire::auth::Signature;

    /// Keeps what it executed.
    #[derive(Default)]
    struct Log {
        executed: Vec<u8>,
        saved: Option<usize>,
    }

    impl Application for Log {
        fn execute(&mut self, command: &Command<'_>) -> Vec<u8> {
            self.executed.extend(command.payload);
            self.executed.clone()
        }

        fn query(&self, _payload: &[u8]) -> Vec<u8> {
            self.executed.clone()
        }

        fn snapshot(&self) -> Vec<u8> {
            self.executed.clone()
        }

        fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
            self.executed = snapshot.to_vec();
            Ok(())
        }

        fn last_change(&self, payload: &[u8]) -> Option<Position> {
            (payload == b"first").then_some(Position(1))
        }

        fn savepoint(&mut self) {
            assert_eq!(self.saved.replace(self.executed.len()), None);
        }

        fn rollback(&mut self) {
            self.executed.truncate(self.saved.take().expect("a savepoint"));
        }

        fn release(&mut self) {
            self.saved.take().expect("a savepoint");
        }
    }

    fn id(sequence: u64) -> RequestId {
        RequestId { session: SessionKey { client: ClientId(1), session: SessionId(1) }, sequence }
    }

    fn requests(first: u64, payload: &[u8]) -> Vec<(Position, Arc<Request>)> {
        let request = |payload: u8, number: u64| {
            let (payload, signature) = (Operation::Execute(&[payload]).encode(), Signature([0; 64]));
            (Position(number), Arc::new(Request::Client { id: id(number), payload, signature }))
        };
        payload.iter().zip(first..).map(|(payload, number)| request(*payload, number)).collect()
    }

    fn claim(regency: u64, value: &str) -> Claim {
        let regency = Regency { number: regency, ..Regency::default() };
        Claim { regency, value: Digest::of("test", &[value.as_bytes()]) }
    }

    fn tentative(instance: u64, claim: Claim, payload: &[u8]) -> Tentative {
        let (instance, timestamp) = (InstanceNumber(instance), Timestamp(1));
        Tentative { instance, claim, timestamp, requests: requests(instance.0, payload) }
    }

    fn delivery(instance: u64, claim: Claim, payload: &[u8]) -> Delivery {
        let Tentative { instance, timestamp, requests, .. } = tentative(instance, claim, payload);
        let proof = Proof { instance, claim, accepts: vec![] };
        Delivery { instance, regency: claim.regency, timestamp, requests, registrations: vec![], proof }
    }

    fn state(service: &Service<Log>) -> Vec<u8> {
        service.query(b"", InstanceNumber(0)).unwrap().result
    }

    #[test]
    fn an_answer_says_what_it_depends_on_and_waits_for_what_was_said_before() {
        let mut service = Service::new(Log::default());
        let upto = InstanceNumber(1);
        assert_eq!(service.query(b"", upto), None, "this replica may have spoken of instance 1");
        service.deliver(&delivery(1, claim(0, "x"), b"a"));
        let answer = service.query(b"", upto).unwrap();
        assert_eq!((answer.since, answer.ahead), (Position(1), None));
        service.deliver_tentatively(&tentative(2, claim(0, "y"), b"bc"));
        let answer = service.query(b"", upto).unwrap();
        assert_eq!(answer.since, Position(3));
        assert_eq!(answer.ahead, Some((InstanceNumber(2), claim(0, "y"))));
        let answer = service.query(b"first", upto).unwrap();
        assert_eq!((answer.since, answer.ahead), (Position(1), None), "not on the batch ahead");
        service.deliver(&delivery(2, claim(0, "y"), b"bc"));
        let answer = service.query(b"", upto).unwrap();
        assert_eq!((answer.since, answer.ahead), (Position(3), None));
    }

    #[test]
    fn what_was_executed_ahead_is_not_executed_again_and_answers_only_if_it_was_decided_otherwise() {
        let mut service = Service::new(Log::default());
        let ahead = service.deliver_tentatively(&tentative(1, claim(0, "x"), b"ab"));
        assert_eq!(ahead.len(), 2);
        assert_eq!(
            service.tentative_reply(id(2)),
            Some(ahead[1].1.clone()),
            "for a request that comes again"
        );
        assert_eq!(service.reply(id(2)), None);
        let done = service.deliver(&delivery(1, claim(0, "x"), b"ab"));
        assert!(done.iter().all(|done| done.frame.is_none()));
        assert_eq!(service.tentative_reply(id(2)), None);
        assert!(service.reply(id(2)).is_some(), "a final one from now on");
        // Bound in regency 0, again in 1, decided in 2.
        let first = service.deliver_tentatively(&tentative(2, claim(0, "y"), b"c"));
        let again = service.deliver_tentatively(&tentative(2, claim(1, "y"), b"c"));
        assert_ne!(first, again);
        let done = service.deliver(&delivery(2, claim(2, "y"), b"c"));
        assert_eq!(done[0].frame, service.reply(id(2)));
        assert!(done[0].frame.is_some());
        assert_eq!(state(&service), b"abc");
    }

    #[test]
    fn a_state_taken_over_answers_for_what_led_to_it_and_makes_the_same_snapshots() {
        let (mut one, mut two) = (Service::new(Log::default()), Service::new(Log::default()));
        one.deliver(&delivery(1, claim(0, "x"), b"ab"));
        let snapshot = one.snapshot().unwrap();
        two.deliver(&delivery(1, claim(0, "y"), b"z"));
        two.begin_restore();
        assert_eq!((two.query(b"", InstanceNumber(0)), two.snapshot()), (None, None));
        two.restore(InstanceNumber(1), &snapshot).unwrap();
        assert_eq!((state(&two), two.reply(id(2))), (b"ab".to_vec(), one.reply(id(2))));
        for service in [&mut one, &mut two] {
            service.deliver(&delivery(3, claim(0, "z"), b"c"));
        }
        assert_eq!(one.snapshot(), two.snapshot());
        assert!(one.snapshot().is_some_and(|later| later != snapshot));
        one.deliver_tentatively(&tentative(4, claim(0, "w"), b"d"));
        assert_eq!(one.snapshot(), None, "not with what is not decided");
        assert!(two.restore(InstanceNumber(9), b"nonsense").is_err());
    }

    #[test]
    fn what_was_executed_ahead_and_not_decided_leaves_no_trace() {
        let mut service = Service::new(Log::default());
        service.deliver(&delivery(1, claim(0, "x"), b"a"));
        service.deliver_tentatively(&tentative(2, claim(0, "y"), b"bc"));
        service.revoke(InstanceNumber(2));
        assert_eq!(state(&service), b"a");
        assert_eq!((service.reply(id(2)), service.tentative_reply(id(2))), (None, None));
        service.deliver_tentatively(&tentative(2, claim(1, "z"), b"d"));
        assert_eq!(state(&service), b"ad");
        // Even if nobody says that it is taken back.
        let done = service.deliver(&delivery(2, claim(2, "w"), b"e"));
        assert!(done[0].frame.is_some());
        assert_eq!(state(&service), b"ae");
    }
}
