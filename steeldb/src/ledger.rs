//! `steeldb ledger`: the verifiable history of a cluster, from a replica's log.

use crate::cli::{LedgerCommand, LedgerExportArgs, LedgerFollowArgs, LedgerVerifyArgs};
use crate::config::{Cluster, ReplicaFile};
use anyhow::{Context as _, bail, ensure};
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{BlockHeader, Decision, InstanceNumber, Ledger};
use steeldb_ordering_log::{Directory, History};
use steeldb_ordering_server::{Archive, verify_archive};

/// How often a log is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a subcommand.
///
/// # Errors
/// What cannot be read or written, and the block that does not hold.
pub(crate) fn execute(command: &LedgerCommand) -> anyhow::Result<ExitCode> {
    match command {
        LedgerCommand::Export(args) => export(args),
        LedgerCommand::Verify(args) => verify(args),
        LedgerCommand::Follow(args) => follow(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn export(args: &LedgerExportArgs) -> anyhow::Result<()> {
    let genesis = Cluster::read(&args.config)?.genesis()?;
    let log = Log::open(&args.config)?;
    let name = || args.out.display().to_string();
    let mut archive = Archive::open(&args.out, genesis).with_context(name)?;
    while let Some(decision) = log.decision(archive.next())? {
        archive.append(&decision).with_context(|| log.path.display().to_string())?;
    }
    let (blocks, tip) = archive.finish().with_context(name)?;
    println!("{}: blocks 1 to {blocks}, tip {tip}", name());
    Ok(())
}

fn verify(args: &LedgerVerifyArgs) -> anyhow::Result<()> {
    let genesis = Cluster::read(&args.config)?.genesis()?;
    let name = || args.archive.display().to_string();
    let file = File::open(&args.archive).with_context(name)?;
    let mut requests = 0;
    let reader = BufReader::with_capacity(1 << 20, file);
    let ledger = verify_archive(reader, genesis, |_, decision| requests += decision.proposal.requests.len())
        .with_context(name)?;
    println!("{}: {} blocks with {requests} requests hold", name(), ledger.next().0 - 1);
    println!("tip {}", ledger.tip());
    Ok(())
}

fn follow(args: &LedgerFollowArgs) -> anyhow::Result<()> {
    let mut ledger = Ledger::new(Cluster::read(&args.config)?.genesis()?);
    let mut log = Log::open(&args.config)?;
    let mut out = std::io::stdout();
    loop {
        let Some(decision) = log.decision(ledger.next())? else {
            std::thread::sleep(LOOK);
            log.history.look_again()?;
            continue;
        };
        let header = ledger.append(&decision).with_context(|| log.path.display().to_string())?;
        if header.number.0 < args.from {
            continue;
        }
        if let Err(error) = writeln!(out, "{}", line(&header, &decision)).and_then(|()| out.flush()) {
            // Whoever read it has had enough.
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                return Ok(());
            }
            bail!(error);
        }
    }
}

/// One JSON object; nothing in it needs escaping.
fn line(header: &BlockHeader, decision: &Decision) -> String {
    let signers: Vec<String> =
        decision.proof.accepts.iter().map(|(replica, _)| replica.0.to_string()).collect();
    format!(
        "{{\"block\":{},\"hash\":\"{}\",\"previous\":\"{}\",\"batch\":\"{}\",\"view\":{},\"regency\":{},\"timestamp_us\":{},\"requests\":{},\"signers\":[{}]}}",
        header.number.0,
        header.hash(),
        header.previous,
        header.batch,
        header.view.0,
        decision.proof.claim.regency.number,
        decision.proposal.timestamp.0,
        decision.proposal.requests.len(),
        signers.join(","),
    )
}

/// The decisions in a replica's log.
struct Log {
    path: PathBuf,
    history: History,
}

impl Log {
    fn open(config: &Path) -> anyhow::Result<Log> {
        let path = ReplicaFile::read(config)?.data_dir(config).join("journal");
        ensure!(path.is_dir(), "{} is not there: this replica has logged nothing yet", path.display());
        let history = History::open(Arc::new(Directory::open(&path)?))?;
        Ok(Log { path, history })
    }

    fn decision(&self, block: InstanceNumber) -> anyhow::Result<Option<Arc<Decision>>> {
        let decision = self.history.decision(block)?;
        if let (None, Some(first)) = (&decision, self.history.first()) {
            let path = self.path.display();
            ensure!(
                first <= block,
                "{path} begins with block {}, block {} is no longer kept",
                first.0,
                block.0
            );
        }
        Ok(decision)
    }
}
