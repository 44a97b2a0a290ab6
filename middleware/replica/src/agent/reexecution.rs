//! Executing a committed DDL transaction again, from a peer's script, on a session of its own: as its client's role, on its
//! slot's snapshot, with the agreed time and randomness, up to PREPARE TRANSACTION.

use super::worker::{Input, Reexecuting, Report};
use crate::scheduler::{BackendReport, Command, Reexecution};
use crate::script::{Script, Step};
use crate::spool::Data;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use steeldb_postgres::{AGENT_ROLE, Backend};
use steeldb_types::Digest;
use tokio::sync::mpsc;

/// How long a step may take before somebody is asked to make way.
const WAITS: Duration = Duration::from_millis(500);

/// Executes `script`; gives the digest of what decoding does not show of its effects. `waits` is called each time it has
/// not gone on for a while.
///
/// # Errors
/// What kept it from being prepared, and so rolled it back.
pub(super) async fn run(
    session: Reexecuting,
    script: Script,
    wanted: &Reexecution,
    waits: impl Fn(),
) -> Result<Option<Digest>, String> {
    let (socket_dir, database) = (session.socket_dir.clone(), script.session.database.clone());
    let (sender, reports) = mpsc::unbounded_channel();
    let inputs = session.spawn(script.tx.session, &script.session, sender);
    let mut execution = Execution { inputs, reports, waits };
    let result = execution.run(&script, wanted, &socket_dir, &database).await;
    execution.tell(Command::Close);
    result
}

struct Execution<W> {
    inputs: mpsc::UnboundedSender<Input>,
    reports: mpsc::UnboundedReceiver<Report>,
    waits: W,
}

impl<W: Fn()> Execution<W> {
    fn tell(&self, command: Command) {
        // A worker that is gone has reported so.
        let _ = self.inputs.send(Input::Command(command));
    }

    async fn report(&mut self) -> Result<BackendReport, String> {
        loop {
            match tokio::time::timeout(WAITS, self.reports.recv()).await {
                Err(_) => (self.waits)(),
                Ok(None) => return Err("its backend is gone".to_string()),
                Ok(Some(Report { report: BackendReport::Lost { sqlstate, message }, .. })) => {
                    return Err(format!("its backend is lost: {message} ({sqlstate})"));
                }
                Ok(Some(Report { report, .. })) => return Ok(report),
            }
        }
    }

    async fn run(
        &mut self,
        script: &Script,
        wanted: &Reexecution,
        socket_dir: &Path,
        database: &str,
    ) -> Result<Option<Digest>, String> {
        let tx = script.tx;
        let BackendReport::Ready { .. } = self.report().await? else { return unexpected() };
        for (statement, text) in &script.statements {
            self.tell(Command::Define { statement: *statement, text: text.clone() });
        }
        let begun = match &wanted.snapshot {
            Some(snapshot) => self.begin(script, wanted, snapshot.clone()).await?,
            None => Err("its slot's snapshot is gone".to_string()),
        };
        if let Err(reason) = begun {
            tracing::info!(%tx, reason, "executed again on a snapshot of now");
            // All commits before it are applied, and none behind it is until it is done: it is a snapshot of its place.
            let (_anchor, snapshot) = anchor(socket_dir, database).await?;
            if let Err(reason) = self.begin(script, wanted, snapshot).await? {
                return Err(format!("no snapshot for it: {reason}"));
            }
        }
        for (number, step) in (1..).zip(&script.steps) {
            self.step(number, step).await?;
        }
        self.tell(Command::Complete { tx });
        match self.report().await? {
            BackendReport::Completed { result: Ok(_), .. } => {}
            BackendReport::Completed { result: Err(sqlstate), .. } => {
                return Err(format!("its constraints fail here with {sqlstate}"));
            }
            _ => return unexpected(),
        }
        let gid = steeldb_postgres::transaction::gid(tx, script.slot);
        let (slot, operations, transcript) = (script.slot, wanted.operations, wanted.transcript);
        let steps = Some(script.steps.clone());
        let mut marks = BTreeMap::new();
        script.steps.iter().for_each(|step| step.draws.mark(&mut marks));
        self.tell(Command::Prepare {
            tx,
            slot,
            operations,
            transcript,
            gid,
            ddl: true,
            script: steps,
            marks,
        });
        match self.report().await? {
            BackendReport::Prepared { result: Ok(effects), .. } => Ok(effects),
            BackendReport::Prepared { result: Err(sqlstate), .. } => {
                Err(format!("it cannot be prepared here: {sqlstate}"))
            }
            _ => unexpected(),
        }
    }

    /// Begins on a snapshot; or says why that cannot be imported.
    async fn begin(
        &mut self,
        script: &Script,
        wanted: &Reexecution,
        snapshot: String,
    ) -> Result<Result<(), String>, String> {
        let (tx, modes, timestamp, seed) = (script.tx, script.modes, wanted.timestamp, wanted.seed);
        self.tell(Command::Begin { tx, modes, snapshot, timestamp, seed, has_temporary: true });
        match self.report().await? {
            BackendReport::Begun { .. } => Ok(Ok(())),
            BackendReport::NotBegun { reason, .. } => {
                self.tell(Command::End { tx, commit: false });
                match self.report().await? {
                    BackendReport::Ended { .. } => Ok(Err(reason)),
                    _ => unexpected(),
                }
            }
            _ => unexpected(),
        }
    }

    async fn step(&mut self, number: u32, step: &Step) -> Result<(), String> {
        let tx = step.operation.tx;
        match step.adopted {
            Some(sqlstate) => self.tell(Command::Adopt { tx, number, sqlstate }),
            None => {
                let kind = step.operation.kind.clone();
                self.tell(Command::Execute {
                    tx,
                    number,
                    statement: step.operation.statement,
                    row_order: step.operation.row_order,
                    kind,
                    show: false,
                    draws: Some(step.draws.clone()),
                });
                if matches!(step.operation.kind, steeldb_wire::transaction::OperationKind::CopyIn { .. }) {
                    let data = match &step.copy {
                        Some(copy) => Data::whole(&copy.data, copy.failure.clone()),
                        None => Data::whole(&[], Some("no data".to_string())),
                    };
                    let _ = self.inputs.send(Input::Feed(data.reader(false)));
                }
            }
        }
        match self.report().await? {
            BackendReport::Executed { result, .. } if result == step.result => Ok(()),
            BackendReport::Executed { sqlstate, .. } => {
                let error = sqlstate.map(|sqlstate| format!(" (here: {sqlstate})")).unwrap_or_default();
                Err(format!("operation {number} has another result here than a quorum vouched for{error}"))
            }
            _ => unexpected(),
        }
    }
}

fn unexpected<T>() -> Result<T, String> {
    Err("its backend answered out of turn".to_string())
}

async fn anchor(socket_dir: &Path, database: &str) -> Result<(Backend, String), String> {
    let parameters = [("application_name".to_string(), "steeldb anchor".to_string())];
    let mut backend = Backend::connect(socket_dir, database, AGENT_ROLE, &parameters)
        .await
        .map_err(|error| error.to_string())?;
    let snapshot = super::anchors::export(&mut backend).await.map_err(|error| error.to_string())?;
    Ok((backend, snapshot))
}
