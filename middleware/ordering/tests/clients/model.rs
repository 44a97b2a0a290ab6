//! What must come of decided batches, worked out anew: nothing here is the core's but the types of what it says.

use crate::cluster::{CLIENTS_MAX, registry};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use steeldb_ordering::{
    Decision, Delivery, Join, JoinRefusal, Registered, Registration, RegistrationOutcome, Request,
};
use steeldb_types::{ClientId, Digest};
use steeldb_wire::auth::PublicKey;

#[derive(Clone)]
struct Member {
    number: u32,
    key: PublicKey,
    account: Vec<u8>,
    used: i64,
}

struct Candidate {
    key: PublicKey,
    join: Join,
    challenge: Digest,
    since: i64,
}

#[derive(Default)]
pub struct Model {
    members: Vec<Member>,
    candidates: Vec<Candidate>,
    /// Numbers given.
    given: u32,
    challenges: BTreeSet<Digest>,
    /// By client and session, the last sequence.
    executed: BTreeMap<(u32, u64), u64>,
    now: i64,
    /// How often each thing happened: a run in which nothing does tells nothing.
    pub joins: u32,
    pub cleared: u32,
    pub void: u32,
}

fn micros(span: Duration) -> i64 {
    span.as_micros() as i64
}

impl Model {
    /// Whether a replica made of a batch what is to be made of it.
    pub fn judge(&mut self, decision: &Decision, delivery: &Delivery) -> Result<(), String> {
        let instance = delivery.instance.0;
        if delivery.timestamp.0 <= self.now {
            return Err(format!("time: instance {instance} is not later"));
        }
        self.now = delivery.timestamp.0;
        let mut registrations = delivery.registrations.iter();
        let mut executed = delivery.requests.iter().map(|(_, request)| request).peekable();
        for request in &decision.proposal.requests {
            match &**request {
                Request::Registration { registration, key, .. } => {
                    let made =
                        registrations.next().ok_or(format!("instance {instance}: nothing was made"))?;
                    if made.request != *request {
                        return Err(format!("instance {instance}: another registration"));
                    }
                    self.registration(registration, key, made)
                        .map_err(|reason| format!("instance {instance}: {reason}"))?;
                }
                Request::Joined { id, key, .. } => {
                    let expected = self.may(id.session.client, key, id.session.session.0, id.sequence);
                    let was = executed.next_if(|next| *next == request).is_some();
                    if expected != was {
                        return Err(format!("rights: instance {instance}: {id:?} executed: {was}"));
                    }
                    self.void += u32::from(!was);
                }
                other => return Err(format!("instance {instance}: {other:?}")),
            }
        }
        match (registrations.next(), executed.next()) {
            (None, None) => Ok(()),
            _ => Err(format!("instance {instance}: more than was decided")),
        }
    }

    fn may(&mut self, client: ClientId, key: &PublicKey, session: u64, sequence: u64) -> bool {
        let Some(member) = self.members.iter_mut().find(|member| member.number == client.0) else {
            return false;
        };
        let last = self.executed.entry((client.0, session)).or_default();
        if member.key != *key || sequence <= *last {
            return false;
        }
        (*last, member.used) = (sequence, self.now);
        true
    }

    fn registration(
        &mut self,
        registration: &Registration,
        key: &PublicKey,
        made: &RegistrationOutcome,
    ) -> Result<(), String> {
        let before = self.members.clone();
        match registration {
            Registration::Join(join) => self.join(join, key, &made.registered)?,
            Registration::Confirm { challenge } => self.confirm(challenge, key, &made.registered)?,
            Registration::Leave { client } => {
                let owner = self.members.iter().position(|member| member.number == client.0);
                match owner.filter(|at| self.members[*at].key == *key) {
                    Some(at) => {
                        self.members.remove(at);
                        expect(&made.registered, &Registered::Left)?;
                    }
                    None => expect(&made.registered, &Registered::Refused(JoinRefusal::NotJoined))?,
                }
            }
        }
        let stays = |member: &&Member| self.members.iter().any(|other| other.number == member.number);
        let gone: Vec<u32> =
            before.iter().filter(|member| !stays(member)).map(|member| member.number).collect();
        let said: Vec<u32> = made.gone.iter().map(|client| client.0).collect();
        if gone.iter().collect::<BTreeSet<_>>() != said.iter().collect::<BTreeSet<_>>() {
            return Err(format!("registry: {said:?} are gone, and {gone:?} should be"));
        }
        Ok(())
    }

    fn is_idle(&self, member: &Member) -> bool {
        self.now - member.used > micros(registry().idle_timeout)
    }

    fn join(&mut self, join: &Join, key: &PublicKey, made: &Registered) -> Result<(), String> {
        let refuse = |reason| expect(made, &Registered::Refused(reason));
        if let Some(member) = self.members.iter().find(|member| member.key == *key) {
            return expect(made, &Registered::Joined(ClientId(member.number)));
        }
        if join.until.0 < self.now {
            return refuse(JoinRefusal::TooLate);
        }
        if join.until.0 - self.now > micros(registry().join_valid_max) {
            return refuse(JoinRefusal::TooLong { max_ms: 60_000 });
        }
        let now = self.now;
        self.candidates.retain(|candidate| now - candidate.since <= micros(registry().join_timeout));
        if let Some(at) = self.candidates.iter().position(|candidate| candidate.key == *key) {
            if self.candidates[at].join == *join {
                return expect(made, &Registered::Challenge(self.candidates[at].challenge));
            }
            if self.candidates[at].join.until >= join.until {
                return refuse(JoinRefusal::Superseded);
            }
            self.candidates.remove(at);
        }
        let name = &join.account.name;
        let joining = self.candidates.iter().filter(|candidate| candidate.join.account.name == *name).count();
        if joining >= 2 || self.candidates.len() >= 6 {
            return refuse(JoinRefusal::TooManyJoining);
        }
        let busy: Vec<&Member> = self.members.iter().filter(|member| !self.is_idle(member)).collect();
        let of_account = busy.iter().filter(|member| member.account == *name).count();
        let sessions_max = join.account.sessions_max;
        if of_account + joining >= usize::from(sessions_max) {
            return refuse(JoinRefusal::AccountFull { sessions_max });
        }
        if busy.len() >= CLIENTS_MAX {
            return refuse(JoinRefusal::Full);
        }
        let Registered::Challenge(challenge) = *made else {
            return Err(format!("registry: {made:?} instead of a challenge"));
        };
        if !self.challenges.insert(challenge) {
            return Err("registry: the same challenge again".into());
        }
        self.candidates.push(Candidate { key: *key, join: join.clone(), challenge, since: now });
        Ok(())
    }

    fn confirm(&mut self, challenge: &Digest, key: &PublicKey, made: &Registered) -> Result<(), String> {
        let refuse = |reason| expect(made, &Registered::Refused(reason));
        if let Some(member) = self.members.iter().find(|member| member.key == *key) {
            return expect(made, &Registered::Joined(ClientId(member.number)));
        }
        let in_time = |candidate: &Candidate| self.now - candidate.since <= micros(registry().join_timeout);
        let at = self.candidates.iter().position(|candidate| candidate.key == *key && in_time(candidate));
        let Some(at) = at else { return refuse(JoinRefusal::NotJoining) };
        if self.candidates[at].challenge != *challenge {
            return refuse(JoinRefusal::WrongChallenge);
        }
        let account = self.candidates.remove(at).join.account;
        let sessions_max = account.sessions_max;
        let of_account = self.members.iter().filter(|member| member.account == account.name).count();
        if of_account >= usize::from(sessions_max) && !self.clear(Some(&account.name)) {
            return refuse(JoinRefusal::AccountFull { sessions_max });
        }
        if self.members.len() >= CLIENTS_MAX && !self.clear(None) {
            return refuse(JoinRefusal::Full);
        }
        let number = (1 << 31) + self.given;
        self.given += 1;
        self.joins += 1;
        self.members.push(Member { number, key: *key, account: account.name, used: self.now });
        expect(made, &Registered::Joined(ClientId(number)))
    }

    /// Clears the place of who is idle for longest, of an account or of all.
    fn clear(&mut self, account: Option<&[u8]>) -> bool {
        let of =
            |member: &Member| account.is_none_or(|account| member.account == account) && self.is_idle(member);
        let mut idle: Vec<(i64, u32)> = self
            .members
            .iter()
            .filter(|member| of(member))
            .map(|member| (member.used, member.number))
            .collect();
        idle.sort_unstable();
        let Some((_, number)) = idle.first().copied() else { return false };
        self.members.retain(|member| member.number != number);
        self.cleared += 1;
        true
    }
}

fn expect(made: &Registered, expected: &Registered) -> Result<(), String> {
    match made == expected {
        true => Ok(()),
        false => Err(format!("registry: {made:?}, and {expected:?} was to be expected")),
    }
}
