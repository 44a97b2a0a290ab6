//! What is replicated.

use crate::operation::Operation;
use steeldb_ordering::{Account, Join, Request, RequestId, Roster};
use steeldb_types::{Position, Timestamp};
use steeldb_wire::auth::PublicKey;

/// An ordered request, as the application sees it. The same on every replica.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Its place in the total order.
    pub position: Position,
    /// The agreed time of its batch, ascending.
    pub timestamp: Timestamp,
    /// Whose it is.
    pub id: RequestId,
    /// The client's bytes.
    pub payload: &'a [u8],
}

/// A deterministic state machine. Its state follows from the commands alone: no clock, randomness or hash order.
pub trait Application: Send {
    /// Executes a command; the reply goes to its client. At most [`limits::REPLY_BYTES_MAX`](crate::limits) bytes.
    fn execute(&mut self, command: &Command<'_>) -> Vec<u8>;

    /// Remembers the state as it is now: what is executed from here on may be taken back. Never called twice without a
    /// [`rollback`](Application::rollback) or a [`release`](Application::release) in between, and never unless
    /// [`tentative`](steeldb_ordering::Config::tentative) is configured. One batch is executed until then, so a list of
    /// what to undo stays short.
    fn savepoint(&mut self);

    /// Goes back to the savepoint: another batch was decided.
    fn rollback(&mut self);

    /// The savepoint is not needed any more: what was executed since is decided.
    fn release(&mut self);

    /// The whole state, to be read by [`restore`](Application::restore) here or on another replica: equal states give
    /// equal bytes. Asked for between batches, never while there is a savepoint; in memory, so it delays what comes after
    /// by as long as it takes. At most [`limits::STATE_BYTES_MAX`](crate::limits).
    fn snapshot(&self) -> Vec<u8>;

    /// Takes over a state. Where it comes from others, it is certified.
    ///
    /// # Errors
    /// Says why it cannot be read: the replica stops then.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;

    /// Answers from the state as it is: a function of state and payload alone, as the answers of replicas are compared.
    fn query(&self, payload: &[u8]) -> Vec<u8>;

    /// The position of the last command that made a difference to what [`query`](Application::query) looks at for this
    /// payload, even if it left the value as it was; nothing: that is not known, and any command may have. The more is
    /// known, the more often replicas answer alike while others write.
    fn last_change(&self, payload: &[u8]) -> Option<Position> {
        let _ = payload;
        None
    }

    /// Whether a command may be ordered: a pure function of its arguments, as
    /// [`Validator`](steeldb_ordering::Validator) demands.
    ///
    /// # Errors
    /// Says what is wrong with the command.
    fn check(&self, id: RequestId, payload: &[u8]) -> Result<(), String> {
        let _ = (id, payload);
        Ok(())
    }

    /// For which account the holder of `key` may join by the credential in `join`: a pure function of the two and of
    /// constants that all replicas share.
    ///
    /// # Errors
    /// Says why it may not.
    fn authorize(&self, join: &Join, key: &PublicKey) -> Result<Account, String> {
        let _ = (join, key);
        Err("this service's configuration lists its clients: none join".into())
    }
}

/// An application in the role of the core's judge.
pub(crate) struct Judge<'a, A: ?Sized>(pub(crate) &'a A);

impl<A: Application + ?Sized> steeldb_ordering::Validator for Judge<'_, A> {
    fn check(&self, request: &Request, _roster: &Roster) -> Result<(), String> {
        let (Request::Client { id, payload, .. } | Request::Joined { id, payload, .. }) = request else {
            return Err("this service orders clients' requests alone".into());
        };
        match Operation::decode(payload) {
            Some(Operation::Execute(payload)) => self.0.check(*id, payload),
            Some(Operation::Query(_)) => Ok(()),
            None => Err("neither a command nor a query".into()),
        }
    }

    fn authorize(&self, join: &Join, key: &PublicKey) -> Result<Account, String> {
        self.0.authorize(join, key)
    }

    fn check_change(&self, _roster: &Roster, next: &Roster) -> Result<(), String> {
        match next.members().iter().find(|member| member.address.is_empty()) {
            Some(member) => {
                Err(format!("nobody knows where replica {} is: links could not follow", member.id))
            }
            None => Ok(()),
        }
    }
}
