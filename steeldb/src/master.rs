//! `steeldb master`: who the master is, and moving it.

use crate::cli::{ChangeArgs, MasterCommand, StatusArgs};
use crate::cluster::shim;
use crate::config::read_seed;
use anyhow::{Context as _, ensure};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_types::{ReplicaId, Term, View};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::{MasterMove, ReplicaStatus};

/// Shows or moves the master.
///
/// # Errors
/// When the configuration is refused, a move is not legal, or too few replicas answer.
pub(crate) async fn execute(command: MasterCommand) -> anyhow::Result<ExitCode> {
    match command {
        MasterCommand::Status(args) => status(&args).await,
        MasterCommand::Move { id, change } => move_to(ReplicaId(id), &change).await,
    }
}

async fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let shim = shim(&args.config)?;
    let statuses = shim.status(Duration::from_secs(args.patience)).await;
    ensure!(!statuses.is_empty(), "no replica answers");
    let report = Report::of(&shim.view(), &statuses);
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.text()?),
    }
    let well = report.master.is_some() && report.accusations.is_empty();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn move_to(to: ReplicaId, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let key = SecretKey::from_seed(&*read_seed(&args.key)?);
    let shim = shim(&args.config)?;
    let patience = Duration::from_secs(args.patience);
    let statuses = shim.status(patience).await;
    let term = agreed(&shim.view(), &statuses)
        .with_context(|| format!("too few replicas say who the master is ({} answered)", statuses.len()))?;
    let roster = shim.roster().context("the replicas of proxy.toml are not those of its view")?;
    let wish = MasterMove::new(term, roster.digest(), to, &key);
    let made = shim.move_master(&wish, patience).await?;
    ensure!(made.master == to, "meanwhile another change made replica {} the master", made.master.0);
    println!("Replica {} is the master from epoch {} on.", made.master.0, made.epoch);
    Ok(ExitCode::SUCCESS)
}

/// The newest term that f + 1 replicas speak of.
pub(crate) fn agreed(view: &View, statuses: &BTreeMap<ReplicaId, ReplicaStatus>) -> Option<Term> {
    let alike = |term: &Term| {
        view.has_correct(statuses.iter().filter(|(_, status)| status.term == *term).map(|(id, _)| *id))
    };
    statuses.values().map(|status| status.term).filter(alike).max_by_key(|term| term.epoch)
}

/// What is shown, and the form of `--json`.
#[derive(Serialize)]
struct Report {
    /// Nothing: no f + 1 replicas agree.
    epoch: Option<u64>,
    master: Option<u16>,
    /// As any replica has heard.
    accusations: BTreeSet<AccusationReport>,
    /// What each replica says: epoch and master.
    replicas: BTreeMap<u16, Option<(u64, u16)>>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct AccusationReport {
    by: u16,
    of: String,
}

impl Report {
    fn of(view: &View, statuses: &BTreeMap<ReplicaId, ReplicaStatus>) -> Report {
        let agreed = agreed(view, statuses);
        // Those of an earlier term are over.
        let current = statuses.values().filter(|status| Some(status.term) == agreed);
        let accusations = current
            .flat_map(|status| &status.accusations)
            .map(|(by, cause)| AccusationReport { by: by.0, of: cause.to_string() });
        let said = |id: ReplicaId| statuses.get(&id).map(|status| (status.term.epoch, status.term.master.0));
        Report {
            epoch: agreed.map(|term| term.epoch),
            master: agreed.map(|term| term.master.0),
            accusations: accusations.collect(),
            replicas: view.replicas().map(|id| (id.0, said(id))).collect(),
        }
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        match (self.master, self.epoch) {
            (Some(master), Some(epoch)) => {
                writeln!(text, "Replica {master} is the master, in epoch {epoch}.")?
            }
            _ => writeln!(text, "The replicas that answer do not agree on the master.")?,
        }
        for AccusationReport { by, of } in &self.accusations {
            writeln!(text, "Replica {by} accuses it: {of}.")?;
        }
        for (id, said) in &self.replicas {
            match said {
                Some((epoch, master)) if (Some(*epoch), Some(*master)) != (self.epoch, self.master) => {
                    writeln!(text, "Replica {id} says: replica {master}, in epoch {epoch}.")?;
                }
                Some(_) => {}
                None => writeln!(text, "Replica {id} does not answer.")?,
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{Position, ViewNumber};
    use steeldb_wire::transaction::Cause;

    fn status(epoch: u64, master: u16, accusations: Vec<(ReplicaId, Cause)>) -> ReplicaStatus {
        ReplicaStatus {
            view: ViewNumber(0),
            votes: true,
            regency: 0,
            leader: ReplicaId(0),
            instance: 1,
            delivered: Position(1),
            applied: Position(1),
            pending: 0,
            diverged: None,
            term: Term { epoch, master: ReplicaId(master) },
            accusations,
            version: "0.1.0".into(),
            uptime_s: 1,
            vouches: true,
            behind: None,
            prepared: 0,
            sessions: 0,
        }
    }

    #[test]
    fn a_report_says_who_the_master_is_and_who_says_otherwise() {
        let view = View::of_size(4).unwrap();
        let silent = vec![(ReplicaId(2), Cause::Silent)];
        let statuses: BTreeMap<ReplicaId, ReplicaStatus> = [
            (ReplicaId(0), status(0, 0, vec![])),
            (ReplicaId(1), status(1, 1, silent.clone())),
            (ReplicaId(2), status(1, 1, silent)),
        ]
        .into();
        let text = Report::of(&view, &statuses).text().unwrap();
        assert_eq!(
            text,
            "Replica 1 is the master, in epoch 1.\nReplica 2 accuses it: it is silent.\n\
             Replica 0 says: replica 0, in epoch 0.\nReplica 3 does not answer.\n"
        );
    }

    #[test]
    fn one_replica_alone_names_no_master() {
        let view = View::of_size(4).unwrap();
        let statuses: BTreeMap<ReplicaId, ReplicaStatus> =
            [(ReplicaId(0), status(0, 0, vec![])), (ReplicaId(3), status(9, 3, vec![]))].into();
        assert_eq!(agreed(&view, &statuses), None);
    }
}
