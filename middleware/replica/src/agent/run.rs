//! Starting and stopping an agent: its server, what is recovered, its links, then the reactor.

use super::bulk_fetch::Spooling;
use super::catchup::CatchUp;
use super::committer::Committer;
use super::config::AgentConfig;
use super::fetching::Fetching;
use super::judge::Judge;
use super::keeper::Keeper;
use super::reactor::Reactor;
use super::recovery::{self, Recovered};
use super::rows::Rows;
use super::watching::Watching;
use super::{anchors, decoder, journal, membership, setup};
use crate::effects::{self, Effects};
use crate::promises::Promises;
use crate::scheduler::{self, Event, OpenTransactions, Scheduler};
use crate::spool::{Copies, Spool};
use anyhow::Context as _;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;
use steeldb_ordering::{self as ordering, Core, Restored};
use steeldb_postgres::Server;
use steeldb_transport::ReplicaTransport;
use steeldb_types::ClientId;
use steeldb_wire::auth::PublicKey;
use steeldb_wire::transaction::SignatureMemo;
use tokio::sync::mpsc;
use tracing::Instrument as _;

/// Runs a replica until `shutdown` resolves. `ready` is called once clients can connect.
///
/// # Errors
/// What keeps the replica from starting or going on: configuration, address, PostgreSQL, journal.
pub async fn run(
    config: AgentConfig,
    ready: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    // Every log line says whose it is: tests run several replicas in a process.
    let span = tracing::info_span!("agent", replica = %config.me);
    serve(config, ready, shutdown).instrument(span).await
}

async fn serve(
    config: AgentConfig,
    ready: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create the data directory {}", config.data_dir.display()))?;
    let (persisted, persisted_events) = mpsc::unbounded_channel();
    let committed = {
        let monitor = config.monitor.clone();
        move |records: usize, took: std::time::Duration| {
            monitor.metrics().log_records.observe(records as f64);
            monitor.metrics().log_commit.observe(took.as_secs_f64());
        }
    };
    let told = move |upto| {
        let _ = persisted.send(upto);
    };
    let (journal, records) = journal::open(&config, told, committed)?;
    let options = effects::Options {
        bytes_max: config.controls.settings().kept_bytes,
        age_max: config.controls.settings().kept_age,
        sync: config.server.settings.fsync,
    };
    let kept = config.data_dir.join("effects");
    // Dropped last: what is decoded by then is written.
    let (effects, _writing) = Effects::open(&kept, options)
        .with_context(|| format!("cannot read the kept effects in {}", kept.display()))?;
    let (internal, internal_events) = mpsc::unbounded_channel();
    let spooled = config.data_dir.join("spool");
    let lost = internal.clone();
    // Nobody listens any more when the agent ends.
    let (spool, _spooling) = Spool::open(&spooled, move |tx| drop(lost.send(Event::CopyLost { tx })))
        .with_context(|| format!("cannot clear {}", spooled.display()))?;
    let server_config = config.server.clone();
    let server = tokio::task::spawn_blocking(move || Server::start(server_config)).await??;
    let socket_dir = server.socket_dir().to_path_buf();
    let client_roles: Vec<String> =
        config.clients.values().flat_map(|rights| rights.roles.iter().cloned()).collect();
    let secrets = setup::databases(&socket_dir, &config.databases, &client_roles).await?;

    let mut keeper = Keeper::new(
        config.server.clone(),
        server,
        internal.clone(),
        config.hook.clone(),
        config.monitor.clone(),
    );
    let (reports, worker_reports) = mpsc::unbounded_channel();
    let (decisions_read, decisions) = mpsc::unbounded_channel();
    let clients: BTreeMap<ClientId, PublicKey> =
        config.clients.iter().map(|(client, rights)| (*client, rights.key)).collect();
    let mut core_config =
        ordering::Config::new(config.me, config.roster()?, config.key.clone(), clients.clone());
    core_config.administrators.clone_from(&config.administrators);
    core_config.request_timeout = config.request_timeout;
    core_config.clock_tolerance = config.clock_tolerance;
    core_config.tentative = config.tentative_replies;
    core_config.window = config.window;
    let mut core = Core::new(core_config, Restored::new(ordering::InstanceNumber(0), records))
        .with_context(|| format!("the journal in {}", config.data_dir.display()))?;
    let mut deliveries = Vec::new();
    let mut early = Vec::new();
    while let Some(effect) = core.poll_effect() {
        match effect {
            ordering::Effect::Deliver(delivery) => deliveries.push(delivery),
            other => early.push(other),
        }
    }
    let names: Vec<String> = config.databases.iter().map(|database| database.name.clone()).collect();
    let Recovered { open, in_doubt, missing, vanished, leftovers } = {
        let open = OpenTransactions::new(config.master, config.view.clone());
        let view_made_by = |payload: &[u8]| membership::view_made_by(&core, payload);
        recovery::recover(&socket_dir, &names, &deliveries, &effects, open, view_made_by).await?
    };
    drop(deliveries);

    let scheduler_config = scheduler::Config {
        me: config.me,
        master: config.master,
        view: core.roster().view().clone(),
        key: config.key.clone(),
        replica_keys: config.replica_keys(),
        clients: config.clients.clone(),
        cluster_key: config.cluster_key,
        permits: config.server.settings.max_prepared_transactions as usize,
        vote_timeout_us: config.vote_timeout.as_micros() as u64,
        idle_timeout_us: config.idle_timeout.as_micros() as u64,
        drain_timeout_us: config.ddl_drain_timeout.as_micros() as u64,
        execution: config.execution,
        soft_barrier_us: config.soft_barrier.as_micros() as u64,
        bulk_bytes_max: config.bulk_bytes_max,
        master_silence_us: config.master_silence.as_micros() as u64,
        #[cfg(feature = "planted-bugs")]
        planted_bug: scheduler::PlantedBug::of_environment(),
    };
    let promises = Promises::new(&scheduler_config, 0);
    let mut scheduler = Scheduler::new(scheduler_config);
    scheduler.restore(open, in_doubt, missing, vanished);
    scheduler.clear_leftovers(leftovers);

    let (links, link_events) = ReplicaTransport::start(steeldb_transport::ReplicaConfig {
        id: config.me,
        key: config.key.clone(),
        listen: config.listen.clone(),
        peers: membership::linked(&core),
        clients: clients.into_iter().collect(),
        options: steeldb_transport::LinkOptions::default(),
    })
    .await?;
    let (anchor_requests, anchor_receiver) = mpsc::unbounded_channel();
    tokio::spawn(anchors::run(socket_dir.clone(), anchor_receiver, internal.clone()));
    let (decoder_failed, mut decoder_failures) = mpsc::unbounded_channel();
    let catch_up = CatchUp {
        socket_dir: socket_dir.clone(),
        events: internal.clone(),
        secrets: secrets.clone(),
        clients: config.clients.clone(),
        effects: effects.clone(),
        links: links.clone(),
    };
    // Ended with the agent, before its server is stopped: a stream that is started again would hold the server up.
    let mut decoders = tokio::task::JoinSet::new();
    for database in &names {
        decoders.spawn(decoder::run(
            socket_dir.clone(),
            database.clone(),
            effects.clone(),
            internal.clone(),
            decoder_failed.clone(),
        ));
    }
    let mut reactor = Reactor {
        promises,
        judge: Judge {
            administrators: config.administrators.clone(),
            clients: config.clients.clone(),
            memo: RefCell::new(SignatureMemo::new(65_536)),
        },
        started: Instant::now(),
        core,
        scheduler,
        #[cfg(feature = "adversary")]
        adversary: super::adversary::Adversary::start(config.key.clone()),
        journal,
        decisions_read,
        links,
        committer: Committer::new(socket_dir.clone(), internal.clone(), config.hook.clone()),
        anchors: anchor_requests,
        workers: BTreeMap::new(),
        incarnations: 0,
        idle_timeout: config.idle_timeout,
        reports,
        connections: BTreeMap::new(),
        origins: BTreeMap::new(),
        unclaimed: Default::default(),
        executed: BTreeMap::new(),
        secrets,
        catch_up,
        fetching: Fetching::new(Spooling::new(spooled)),
        round_trips: Default::default(),
        rows: Rows::new(socket_dir.clone(), internal.clone()),
        copies: Copies::new(spool),
        changes: BTreeMap::new(),
        socket_dir,
        internal,
        me: config.me,
        hook: config.hook.clone(),
        stopped: false,
        watching: Watching::new(config.monitor.clone()),
        controls: config.controls.clone(),
    };
    for effect in early {
        reactor.ordering_effect(effect);
    }
    tracing::info!(replica = %config.me, listen = %config.listen, "replica ready");
    ready();
    let ended = tokio::select! {
        ended = reactor.run(link_events, internal_events, worker_reports, persisted_events, decisions, shutdown) => ended,
        Some(reason) = decoder_failures.recv() => Err(anyhow::anyhow!(reason)),
        ended = keeper.run() => Err(ended),
    };
    reactor.links.stop();
    decoders.shutdown().await;
    let stopped = keeper.stop().await;
    ended?;
    stopped?;
    Ok(())
}
