//! What runs on the cluster meanwhile: the ledger, the isolation workload, and TPC-C if wanted.

use crate::ledger::Ledger;
use crate::report::Report;
use crate::scenario::Options;
use crate::tpcc::Tpcc;
use anyhow::Context as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;
use steeldb_isolation::workload::{Options as IsolationOptions, Workload};
use steeldb_isolation::{History, check};

/// Clients of the isolation workload and of the ledger. The machine is one.
const ISOLATION_CLIENTS: u32 = 6;
const ISOLATION_PAUSE: Duration = Duration::from_millis(100);
const LEDGER_CLIENTS: u64 = 2;

/// Workloads at work.
pub struct Load {
    /// What tells how long nothing was acknowledged.
    pub ledger: Ledger,
    isolation: Workload,
    tpcc: Option<Tpcc>,
}

impl Load {
    /// Loads and creates what there has to be, and starts the clients.
    ///
    /// # Errors
    /// When a table cannot be created.
    pub async fn start(options: &Options, urls: &[String]) -> anyhow::Result<Load> {
        let tpcc = match options.tpcc {
            true => Some(Tpcc::start(&options.program, &options.folder, options.seed, urls).await?),
            false => None,
        };
        let ledger = Ledger::start(urls, LEDGER_CLIENTS).await?;
        let isolation = IsolationOptions {
            clients: ISOLATION_CLIENTS,
            pause: ISOLATION_PAUSE,
            ..IsolationOptions::new(urls.to_vec(), options.seed)
        };
        let isolation = Workload::start(isolation).await?;
        Ok(Load { ledger, isolation, tpcc })
    }

    /// What was acknowledged until now, but for TPC-C.
    pub fn acknowledged(&self) -> u64 {
        self.ledger.acknowledged() + self.isolation.committed()
    }

    /// Has all clients wait, or go on.
    pub fn hold(&self, held: bool) {
        self.ledger.hold(held);
        self.isolation.hold(held);
        if let Some(tpcc) = &self.tpcc {
            tpcc.hold(held);
        }
    }

    /// Stops the clients; what they were told is compared with what is there.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn finish(self, folder: &Path, urls: &[String], report: &mut Report) -> anyhow::Result<()> {
        let history = self.isolation.finish().await?;
        write(&history, &folder.join("history.jsonl"))?;
        let checked = check(&history);
        std::fs::write(folder.join("isolation.txt"), checked.to_string())?;
        report.transactions += checked.committed as u64;
        report.lost += checked.lost.len() as u64;
        report.anomalies.extend(checked.anomalies.iter().map(|anomaly| anomaly.to_string()));
        let words: Vec<String> = checked.to_string().lines().take(2).map(str::to_string).collect();
        report.notes.push(format!("isolation: {}", words.join("; ")));
        let balance = self.ledger.balance(urls).await?;
        report
            .notes
            .push(format!("ledger: {} acknowledged, {} in doubt", balance.acknowledged, balance.in_doubt));
        report.transactions += balance.acknowledged;
        report.lost += balance.lost.len() as u64;
        if balance.unanswered > 0 {
            let words = format!("{} statements of the ledger were never answered", balance.unanswered);
            report.anomalies.push(words);
        }
        for id in &balance.risen {
            report.anomalies.push(format!("number {id} of the ledger was refused, and is there"));
        }
        match self.tpcc {
            Some(tpcc) => tpcc.finish(report).await,
            None => Ok(()),
        }
    }
}

fn write(history: &History, path: &Path) -> anyhow::Result<()> {
    let mut output = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    history.write(&mut output).and_then(|()| output.flush()).with_context(|| path.display().to_string())
}
