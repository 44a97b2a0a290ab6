//! The clients that joined: a table that only ordered registrations and agreed time change (PBFT's clients, made dynamic).
//!
//! Invariants: at most `clients_max` clients and `joins_max` joins are in the table, whatever was ordered; a number is given
//! once; a key has one number at most; who is in the table answered a challenge that nobody could know before its join
//! was ordered; only time past `idle_timeout`, and a newcomer that needs the place, takes a number from who does not leave.

use super::Place;
use super::config::RegistryConfig;
use super::registration::{Account, FIRST_JOINED_CLIENT, Join, JoinRefusal, Registered, Registration, Step};
use crate::RequestKey;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::time::Duration;
use steeldb_types::{ClientId, Digest, Hasher, Timestamp};
use steeldb_wire::auth::PublicKey;
use steeldb_wire::codec;

/// Part of every checkpoint, the bounds included: replicas that were given others would differ, and know it.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(crate) struct Registry {
    bounds: Bounds,
    /// The next number; past all of them, none is left.
    next: u64,
    joined: BTreeMap<ClientId, Joined>,
    numbers: BTreeMap<PublicKey, ClientId>,
    waiting: BTreeMap<PublicKey, Waiting>,
    /// Who went since this was last asked.
    #[borsh(skip)]
    gone: Vec<ClientId>,
}

/// A [`RegistryConfig`] in the units of the order.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Bounds {
    clients_max: u64,
    joins_max: u64,
    joins_per_account_max: u64,
    join_timeout_us: i64,
    join_valid_max_us: i64,
    idle_timeout_us: i64,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Joined {
    key: PublicKey,
    account: Vec<u8>,
    /// When it joined, or something of it was executed, last.
    used: Timestamp,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Waiting {
    join: Join,
    challenge: Digest,
    since: Timestamp,
}

/// Which rules do not hold: planted bugs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rules {
    /// Any challenge will do.
    pub(crate) any_challenge: bool,
    /// Anyone may have anyone leave.
    pub(crate) anyone_removes: bool,
    /// Who left is a client all the same.
    pub(crate) rights_last: bool,
}

impl Registry {
    pub(crate) fn new(config: &RegistryConfig) -> Registry {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Registry {
            bounds: Bounds {
                clients_max: config.clients_max as u64,
                joins_max: config.joins_max as u64,
                joins_per_account_max: config.joins_per_account_max as u64,
                join_timeout_us: micros(config.join_timeout),
                join_valid_max_us: micros(config.join_valid_max),
                idle_timeout_us: micros(config.idle_timeout),
            },
            next: FIRST_JOINED_CLIENT.0.into(),
            joined: BTreeMap::new(),
            numbers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            gone: Vec::new(),
        }
    }

    pub(crate) fn number_of(&self, key: &PublicKey) -> Option<ClientId> {
        self.numbers.get(key).copied()
    }

    pub(crate) fn joined(&self) -> impl Iterator<Item = (ClientId, PublicKey)> + '_ {
        self.joined.iter().map(|(client, joined)| (*client, joined.key))
    }

    /// Whether whoever asks is not in the table: for strangers, nothing but Joins is ordered.
    pub(crate) fn is_stranger(&self, key: &RequestKey) -> bool {
        match key {
            RequestKey::Client(id) => {
                let client = id.session.client;
                client >= FIRST_JOINED_CLIENT && !self.joined.contains_key(&client)
            }
            RequestKey::Registration(key, Step::Confirm) => {
                !self.waiting.contains_key(key) && !self.numbers.contains_key(key)
            }
            RequestKey::Registration(key, Step::Leave) => !self.numbers.contains_key(key),
            RequestKey::Registration(_, Step::Join)
            | RequestKey::Certified(_)
            | RequestKey::Membership(_) => false,
        }
    }

    /// Something of a client's is executed.
    pub(crate) fn note_use(&mut self, client: ClientId, now: Timestamp) {
        if let Some(joined) = self.joined.get_mut(&client) {
            joined.used = now;
        }
    }

    /// Who went since this was last asked.
    pub(crate) fn take_gone(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.gone)
    }

    /// Makes of an ordered registration what is to be made of it.
    pub(crate) fn execute(
        &mut self,
        registration: &Registration,
        key: &PublicKey,
        place: Place,
        rules: Rules,
    ) -> Registered {
        let registered = match registration {
            Registration::Join(join) => self.join(join, key, place),
            Registration::Confirm { challenge } => self.confirm(challenge, key, place.now, rules),
            Registration::Leave { client } => self.leave(*client, key, rules),
        };
        registered.unwrap_or_else(Registered::Refused)
    }

    fn join(&mut self, join: &Join, key: &PublicKey, place: Place) -> Result<Registered, JoinRefusal> {
        let now = place.now;
        if let Some(client) = self.number_of(key) {
            return Ok(Registered::Joined(client));
        }
        if now > join.until {
            return Err(JoinRefusal::TooLate);
        }
        if join.until > later(now, self.bounds.join_valid_max_us) {
            let max_ms = self.bounds.join_valid_max_us.unsigned_abs() / 1000;
            return Err(JoinRefusal::TooLong { max_ms });
        }
        let timeout_us = self.bounds.join_timeout_us;
        self.waiting.retain(|_, waiting| now <= later(waiting.since, timeout_us));
        if let Some(waiting) = self.waiting.get(key) {
            if waiting.join == *join {
                return Ok(Registered::Challenge(waiting.challenge));
            }
            if join.until <= waiting.join.until {
                return Err(JoinRefusal::Superseded);
            }
            self.waiting.remove(key);
        }
        self.has_room(&join.account, now)?;
        let mut hasher = Hasher::new("steeldb/join-challenge");
        hasher.part(&place.history.0).part(&key.0).part(&codec::encode(join));
        let challenge = hasher.finish();
        self.waiting.insert(*key, Waiting { join: join.clone(), challenge, since: now });
        Ok(Registered::Challenge(challenge))
    }

    /// Whether one more may wait: no more than could be joined once all have confirmed.
    fn has_room(&self, account: &Account, now: Timestamp) -> Result<(), JoinRefusal> {
        let of_account = self.waiting.values().filter(|waiting| waiting.join.account.name == account.name);
        let joining = of_account.count() as u64;
        if joining >= self.bounds.joins_per_account_max || self.waiting.len() as u64 >= self.bounds.joins_max
        {
            return Err(JoinRefusal::TooManyJoining);
        }
        let busy = self.joined.values().filter(|joined| !self.is_idle(joined, now));
        let (mut of_all, mut of_account) = (0, joining);
        for joined in busy {
            of_all += 1;
            of_account += u64::from(joined.account == account.name);
        }
        if of_account >= u64::from(account.sessions_max) {
            return Err(JoinRefusal::AccountFull { sessions_max: account.sessions_max });
        }
        if of_all >= self.bounds.clients_max {
            return Err(JoinRefusal::Full);
        }
        Ok(())
    }

    fn confirm(
        &mut self,
        challenge: &Digest,
        key: &PublicKey,
        now: Timestamp,
        rules: Rules,
    ) -> Result<Registered, JoinRefusal> {
        if let Some(client) = self.number_of(key) {
            return Ok(Registered::Joined(client));
        }
        let timeout_us = self.bounds.join_timeout_us;
        let waiting = self.waiting.get(key).filter(|waiting| now <= later(waiting.since, timeout_us));
        let waiting = waiting.ok_or(JoinRefusal::NotJoining)?;
        if waiting.challenge != *challenge && !rules.any_challenge {
            return Err(JoinRefusal::WrongChallenge);
        }
        let number = u32::try_from(self.next).map_err(|_| JoinRefusal::Full)?;
        let account = waiting.join.account.clone();
        self.waiting.remove(key);
        self.make_room(&account, now)?;
        let client = ClientId(number);
        self.next += 1;
        self.joined.insert(client, Joined { key: *key, account: account.name, used: now });
        self.numbers.insert(*key, client);
        Ok(Registered::Joined(client))
    }

    /// Clears the places of clients that were idle for long, of the account first, as far as they are needed for one more.
    fn make_room(&mut self, account: &Account, now: Timestamp) -> Result<(), JoinRefusal> {
        let of_account = self.joined.values().filter(|joined| joined.account == account.name).count();
        if of_account >= usize::from(account.sessions_max) {
            let sessions_max = account.sessions_max;
            let idle = self.longest_idle(now, Some(&account.name));
            self.remove(idle.ok_or(JoinRefusal::AccountFull { sessions_max })?);
        }
        if self.joined.len() as u64 >= self.bounds.clients_max {
            self.remove(self.longest_idle(now, None).ok_or(JoinRefusal::Full)?);
        }
        Ok(())
    }

    fn longest_idle(&self, now: Timestamp, account: Option<&[u8]>) -> Option<ClientId> {
        let of = |joined: &Joined| account.is_none_or(|account| joined.account == account);
        let idle = self.joined.iter().filter(|(_, joined)| of(joined) && self.is_idle(joined, now));
        idle.min_by_key(|(client, joined)| (joined.used, **client)).map(|(client, _)| *client)
    }

    fn is_idle(&self, joined: &Joined, now: Timestamp) -> bool {
        now > later(joined.used, self.bounds.idle_timeout_us)
    }

    fn leave(&mut self, client: ClientId, key: &PublicKey, rules: Rules) -> Result<Registered, JoinRefusal> {
        if self.number_of(key) != Some(client) && !rules.anyone_removes {
            return Err(JoinRefusal::NotJoined);
        }
        self.remove(client);
        Ok(Registered::Left)
    }

    fn remove(&mut self, client: ClientId) {
        if let Some(joined) = self.joined.remove(&client) {
            self.numbers.remove(&joined.key);
            self.gone.push(client);
        }
    }
}

fn later(time: Timestamp, span_us: i64) -> Timestamp {
    Timestamp(time.0.saturating_add(span_us))
}
