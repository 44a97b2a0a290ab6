//! Scenarios: everything that is drawn from a seed before a run begins.

mod swarm;

use steeldb_types::{Execution, ReplicaId};

/// What a faulty replica does. One may do several of these at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Its store answers with other values; its agent believes it.
    WrongRows,
    /// Its store leaves rows out.
    MissingRows,
    /// Its store gives rows in another sequence.
    PermutedRows,
    /// Its store counts wrongly.
    WrongCounts,
    /// Its store fails statements for no reason.
    FakeErrors,
    /// A row of its store was changed behind its back.
    TamperedRow,
    /// It shows clients other results than it tells replicas.
    TwoFaced,
    /// It names barriers that are too low.
    LowBarriers,
    /// It names barriers that are too high, or of no commit.
    HighBarriers,
    /// It streams other transcripts and errors of timing that never were.
    StreamForger,
    /// It says nothing.
    Silent,
    /// It says nothing to some.
    SilentToSome,
    /// It votes for other effects, against, twice, and for other slots.
    VoteForger,
    /// It keeps its votes back until another replica has voted against, and then has both outcomes ordered.
    VoteDelayer,
    /// It tells clients of outcomes and transcripts that are not so.
    OutcomeForger,
    /// It hands out wrong write sets.
    WriteSetForger,
    /// It sends ends of transactions that their clients never signed, with its votes.
    FinishForger,
    /// It has certificates ordered that prove nothing.
    CertificateForger,
    /// It accuses the master of what it has not done, in its own name and in others'.
    Accuser,
    /// It has the master deposed and moved by certificates that prove nothing.
    DeposeForger,
    /// It tells clients of terms that never began, and that their transactions cannot go on.
    TermForger,
}

/// Every fault of a replica.
pub const FAULTS: [Fault; 21] = [
    Fault::WrongRows,
    Fault::MissingRows,
    Fault::PermutedRows,
    Fault::WrongCounts,
    Fault::FakeErrors,
    Fault::TamperedRow,
    Fault::TwoFaced,
    Fault::LowBarriers,
    Fault::HighBarriers,
    Fault::StreamForger,
    Fault::Silent,
    Fault::SilentToSome,
    Fault::VoteForger,
    Fault::VoteDelayer,
    Fault::OutcomeForger,
    Fault::WriteSetForger,
    Fault::FinishForger,
    Fault::CertificateForger,
    Fault::Accuser,
    Fault::DeposeForger,
    Fault::TermForger,
];

/// What a faulty client does, with its own key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ClientFault {
    /// It says one thing to some replicas and another to the others: statements, ends, numbers of operations.
    Equivocator,
    /// It begins, locks rows, and never finishes.
    NeverFinishes,
    /// Its links are lost at any moment, and it does not come back to what it began.
    Vanishes,
    /// Some replicas do not get some of its messages.
    Withholds,
    /// It says at any moment what it was shown under which master and which settings it has, to any replica, and asks for
    /// others' transactions before they begin.
    Impostor,
}

/// Every fault of a client.
pub const CLIENT_FAULTS: [ClientFault; 5] = [
    ClientFault::Equivocator,
    ClientFault::NeverFinishes,
    ClientFault::Vanishes,
    ClientFault::Withholds,
    ClientFault::Impostor,
];

/// A step of the protocol at a replica, for a crash to hit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// A statement is about to run.
    Execute,
    /// PREPARE TRANSACTION is about to run.
    Prepare,
    /// It has run, and nobody knows.
    Prepared,
    /// A write set is decoded, and not yet reported.
    Decoded,
    /// A vote has left.
    Voted,
    /// A commit is delivered.
    Delivered,
    /// COMMIT PREPARED is about to run.
    Commit,
    /// It has run, and nobody knows.
    Committed,
    /// ROLLBACK PREPARED has run.
    RolledBack,
    /// A snapshot is taken.
    Anchored,
    /// A write set of a peer is applied, and nobody knows.
    CaughtUp,
}

/// Every step.
pub const STEPS: [Step; 11] = [
    Step::Execute,
    Step::Prepare,
    Step::Prepared,
    Step::Decoded,
    Step::Voted,
    Step::Delivered,
    Step::Commit,
    Step::Committed,
    Step::RolledBack,
    Step::Anchored,
    Step::CaughtUp,
];

/// A crash at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashAt {
    /// Where.
    pub replica: ReplicaId,
    /// At which step.
    pub step: Step,
    /// The how manieth time.
    pub nth: u32,
    /// The store dies first, and the agent notices later.
    pub store_first: bool,
}

/// What the links do while faults happen. They keep order and lose nothing until they break.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// The longest way of a message, microseconds.
    pub delay_max_us: u64,
    /// How many times a link breaks.
    pub breaks: u32,
    /// How many times some replicas are cut off from the others and from clients.
    pub partitions: u32,
    /// A replica that is slow in everything, and how many times slower.
    pub slow: Option<(ReplicaId, u64)>,
}

/// What stops while faults happen.
#[derive(Clone, PartialEq, Debug)]
pub struct Power {
    /// Replicas that crash at some moment and start again.
    pub crashes: u32,
    /// Times at which all crash at once.
    pub blackouts: u32,
    /// Crashes at steps.
    pub at_steps: Vec<CrashAt>,
    /// Backends that die.
    pub backends: u32,
    /// All crash at once when a client is told of its commit, the how manieth time that happens.
    pub at_answer: Option<u32>,
}

/// Who does what.
#[derive(Clone, PartialEq, Debug)]
pub struct Clients {
    /// Clients that do what they should.
    pub correct: u32,
    /// Transactions of each.
    pub transactions: u32,
    /// Rows that they share.
    pub keys: u32,
    /// Correct ones begin the next transaction at once when one fails, as a proxy that runs a statement again.
    pub eager: bool,
    /// Clients that do not.
    pub faulty: Vec<ClientFault>,
}

/// What a scenario is drawn for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Anything.
    Any,
    /// All is told early, and lost behind that ([`Scenario::told_early`]).
    ToldEarly,
    /// Nothing but the master's place changes ([`Scenario::moved`]).
    Moved,
}

/// The parameters of a run, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed: of these parameters, and of everything that happens in the run.
    pub seed: u64,
    /// What for.
    pub kind: Kind,
    /// Replicas: 4 or 7.
    pub n: u16,
    /// Whether real ordering cores make the order; else an ideal one does.
    pub cores: bool,
    /// When other replicas than the master execute.
    pub execution: Execution,
    /// Whether replicas tell of commits when the order is bound to say so, before it has.
    pub tentative: bool,
    /// Transactions that may be prepared at once.
    pub permits: usize,
    /// How long faults happen, virtual microseconds.
    pub faults_us: u64,
    /// Those that are faulty, at most f, and what each does. Replica 0 is the first master.
    pub faulty: Vec<(ReplicaId, Vec<Fault>)>,
    /// How often an administrator moves the master.
    pub moves: u32,
    /// The links.
    pub network: Network,
    /// Crashes.
    pub power: Power,
    /// The clients.
    pub clients: Clients,
    /// The bug to plant in every replica.
    #[cfg(feature = "planted-bugs")]
    pub replica_bug: Option<steeldb_replica::scheduler::PlantedBug>,
    /// The bug to plant in every client.
    #[cfg(feature = "planted-bugs")]
    pub client_bug: Option<steeldb_client_shim::PlantedBug>,
}

/// The master of the first term.
pub const MASTER: ReplicaId = ReplicaId(0);

impl Scenario {
    /// What `seed` means.
    pub fn from_seed(seed: u64) -> Scenario {
        swarm::draw(seed)
    }

    /// What `seed` means, with real ordering cores, tentative replies and a crash of all right behind some answer: what is
    /// told early hangs on what cores make durable.
    pub fn told_early(seed: u64) -> Scenario {
        let mut scenario = swarm::draw(seed);
        scenario.kind = Kind::ToldEarly;
        (scenario.cores, scenario.n, scenario.tentative) = (true, 4, true);
        scenario.faulty.retain(|(replica, _)| replica.0 < 4);
        scenario.faulty.truncate(1);
        scenario.power.at_answer = Some(1 + (seed % 5) as u32);
        scenario
    }

    /// What `seed` means where nothing is wrong, no client meets another, and an administrator moves the master again and
    /// again: nothing has to end for that.
    pub fn moved(seed: u64) -> Scenario {
        let mut scenario = swarm::draw(seed);
        scenario.kind = Kind::Moved;
        scenario.execution =
            if seed.is_multiple_of(3) { Execution::Speculative } else { Execution::Deferred };
        (scenario.permits, scenario.moves) = (8, 3 + (seed % 6) as u32);
        scenario.faulty.clear();
        scenario.clients.faulty.clear();
        let delay_max_us = scenario.network.delay_max_us.min(20_000);
        scenario.network = Network { delay_max_us, breaks: 0, partitions: 0, slow: None };
        scenario.power =
            Power { crashes: 0, blackouts: 0, at_steps: Vec::new(), backends: 0, at_answer: None };
        scenario
    }

    /// Whether each client has rows of its own.
    pub fn keeps_clients_apart(&self) -> bool {
        self.kind == Kind::Moved
    }

    /// How many replicas may be faulty.
    pub fn f(&self) -> u16 {
        (self.n - 1) / 3
    }

    /// What is wrong with a replica; nothing: it is correct.
    pub fn faults(&self, replica: ReplicaId) -> &[Fault] {
        let found = self.faulty.iter().find(|(faulty, _)| *faulty == replica);
        found.map(|(_, faults)| faults.as_slice()).unwrap_or_default()
    }

    /// Whether a replica does as it should.
    pub fn is_correct(&self, replica: ReplicaId) -> bool {
        self.faults(replica).is_empty()
    }

    /// Whether whoever becomes the master in the end lets transactions commit: liars may not be found out, silent ones are.
    pub fn has_a_way_out(&self) -> bool {
        self.faulty.iter().all(|(_, faults)| faults.as_slice() == [Fault::Silent])
    }

    /// The replicas, ascending.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n).map(ReplicaId)
    }
}
