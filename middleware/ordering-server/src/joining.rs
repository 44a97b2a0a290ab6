//! A client that no configuration lists: it joins, and may leave.

use crate::client::{Client, InvokeError};
use crate::collector::Acceptance;
use crate::message::Refused;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steeldb_ordering::{Account, Join, JoinRefusal, Registered, Registration, Request, Roster};
use steeldb_transport::{ClientConfig, StartError};
use steeldb_types::Timestamp;

/// For how long a Join counts, from this client's clock: longer than a change of the leader takes.
const JOIN_VALID: Duration = Duration::from_secs(120);

/// Why a client does not join, or does not leave.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The links cannot be set up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The service has ordered it and refuses it.
    #[error("refused: {0}")]
    Refused(JoinRefusal),
    /// A correct replica does not order it: the credential is no good, or nobody may join.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// A quorum says what no correct replica says.
    #[error("the service answered something else: {0:?}")]
    Unexpected(Registered),
}

impl Client {
    /// Dials all replicas of `config`, whose client number counts for nothing, and joins on behalf of `account`, which the
    /// application must make of `credential`. Who is joined with this key already is so under the same number: its sessions
    /// then need numbers that it has never used. Waits as long as it takes. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`JoinError`] says why not; whether to try again is the caller's to decide.
    pub async fn join(
        config: ClientConfig,
        genesis: Roster,
        acceptance: Acceptance,
        account: Account,
        credential: Vec<u8>,
    ) -> Result<Client, JoinError> {
        let mut client = Client::start_with(config, genesis, acceptance, Request::signed_joined)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = (since_1970 + JOIN_VALID).as_micros();
        let until = Timestamp(i64::try_from(until).unwrap_or(i64::MAX));
        let joined = client.join_as(Join { account, credential, until }).await;
        if joined.is_err() {
            client.stop();
        }
        joined.map(|()| client)
    }

    async fn join_as(&mut self, join: Join) -> Result<(), JoinError> {
        let registered = match self.register(Registration::Join(join)).await? {
            Registered::Challenge(challenge) => self.register(Registration::Confirm { challenge }).await?,
            other => other,
        };
        match registered {
            Registered::Joined(client) => {
                self.id = client;
                Ok(())
            }
            Registered::Refused(reason) => Err(JoinError::Refused(reason)),
            other => Err(JoinError::Unexpected(other)),
        }
    }

    /// Leaves: no request of this client is executed any more, whoever sends it. What is under way may be or not. The links
    /// stay until [`stop`](Client::stop).
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn leave(&self) -> Result<(), JoinError> {
        match self.register(Registration::Leave { client: self.id() }).await {
            Ok(Registered::Left) => Ok(()),
            Ok(Registered::Refused(reason)) => Err(JoinError::Refused(reason)),
            Ok(other) => Err(JoinError::Unexpected(other)),
            // It has left before, or had to go.
            Err(InvokeError::Refused(Refused::NotJoined)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
