//! `steeldb cluster`: who the replicas are, and changing that.

use crate::cli::{ChangeArgs, ClusterCommand, NewReplicaArgs, StatusArgs};
use crate::config::{ProxyFile, read_seed};
use crate::processes;
use anyhow::{Context as _, ensure};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_client_shim::Shim;
use steeldb_ordering::{Change, Joining, Roster};
use steeldb_types::{FaultModel, ReplicaId};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::ReplicaStatus;

/// Shows or changes the membership.
///
/// # Errors
/// When the configuration is refused, a change is not legal, or too few replicas answer.
pub(crate) async fn execute(command: ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Status(args) => status(&args).await,
        ClusterCommand::Add { replica, change } => {
            let joining = joining(&replica)?;
            order(&change, |to| to.add.push(joining)).await
        }
        ClusterCommand::Remove { replicas, change } => {
            order(&change, |to| to.remove = replicas.iter().map(|id| ReplicaId(*id)).collect()).await
        }
        ClusterCommand::Replace { id, replica, change } => {
            let joining = joining(&replica)?;
            order(&change, |to| {
                to.remove.push(ReplicaId(id));
                to.add.push(joining);
            })
            .await
        }
        ClusterCommand::Address { id, address, change } => {
            crate::config::check_address(&address).map_err(anyhow::Error::msg)?;
            order(&change, |to| to.move_to.push((ReplicaId(id), address))).await
        }
        ClusterCommand::Weights { heavy, leader, change } => {
            order(&change, |to| {
                to.heavy = Some(heavy.iter().map(|id| ReplicaId(*id)).collect());
                to.first_leader = leader.map(ReplicaId);
            })
            .await
        }
        ClusterCommand::Leader { id, change } => {
            order(&change, |to| to.first_leader = Some(ReplicaId(id))).await
        }
        ClusterCommand::Plan(args) => crate::plan::execute(args).await,
        ClusterCommand::Faults { faults, change } => order(&change, |to| to.faults = Some(faults)).await,
    }
}

fn joining(replica: &NewReplicaArgs) -> anyhow::Result<Joining> {
    crate::config::check_address(&replica.address).map_err(anyhow::Error::msg)?;
    let key = replica.public_key.clone().try_into().context("--public-key")?;
    Ok(Joining { key, address: replica.address.clone() })
}

async fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let shim = shim(&args.config)?;
    let statuses = shim.status(Duration::from_secs(args.patience)).await;
    let report = Report::new(&shim, &statuses)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.text()?),
    }
    Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has a change ordered, made of the newest view.
async fn order(args: &ChangeArgs, set: impl FnOnce(&mut Change)) -> anyhow::Result<ExitCode> {
    let key = SecretKey::from_seed(&*read_seed(&args.key)?);
    let shim = shim(&args.config)?;
    let patience = Duration::from_secs(args.patience);
    let statuses = shim.status(patience).await;
    let roster = shim.roster().context("the replicas of proxy.toml are not those of its view")?;
    let mut change = Change::of(&roster);
    set(&mut change);
    roster.changed(&change)?;
    // Unless told otherwise a view begins with the leader of now, if that one stays: not with one that is known to be
    // slow or down.
    let now = || leader(&roster, &statuses).filter(|leader| !change.remove.contains(leader));
    change.first_leader = change.first_leader.or_else(now);
    roster.changed(&change)?;
    let made = shim.change(&change.signed(&key), patience).await?;
    let statuses = shim.status(patience).await;
    println!("The change is ordered: view {} is in force.\n", made.0);
    print!("{}", Report::new(&shim, &statuses)?.text()?);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn shim(config: &Path) -> anyhow::Result<Shim> {
    processes::shim(&ProxyFile::load(config)?)
}

/// Whom f + 1 replicas of the view follow.
pub(crate) fn leader(roster: &Roster, statuses: &BTreeMap<ReplicaId, ReplicaStatus>) -> Option<ReplicaId> {
    let view = roster.view();
    let current = statuses.iter().filter(|(_, status)| status.view == view.number());
    let current: Vec<(ReplicaId, ReplicaId)> =
        current.map(|(replica, status)| (*replica, status.leader)).collect();
    let followed = |leader: &ReplicaId| {
        view.has_correct(current.iter().filter(|(_, other)| other == leader).map(|(replica, _)| *replica))
    };
    current.iter().map(|(_, leader)| *leader).find(|leader| view.contains(*leader) && followed(leader))
}

/// What is shown, and the form of `--json`.
#[derive(Serialize)]
struct Report {
    view: u64,
    fault_model: FaultModel,
    faults: u16,
    /// How many of the replicas follow the leader of most, and who it is.
    leader: Option<u16>,
    replicas: Vec<ReplicaReport>,
}

#[derive(Serialize)]
struct ReplicaReport {
    id: u16,
    address: String,
    key: String,
    /// Whether it weighs V_max; all weigh the same without spare replicas.
    heavy: bool,
    /// Nothing: no answer.
    status: Option<StatusReport>,
}

#[derive(Serialize)]
struct StatusReport {
    view: u64,
    regency: u64,
    leader: u16,
    instance: u64,
    delivered: u64,
    applied: u64,
    pending: u64,
    diverged: Option<String>,
}

impl Report {
    fn new(shim: &Shim, statuses: &BTreeMap<ReplicaId, ReplicaStatus>) -> anyhow::Result<Report> {
        let roster = shim.roster().context("the replicas of proxy.toml are not those of its view")?;
        ensure!(!statuses.is_empty(), "no replica answers");
        Ok(Report::of(&roster, statuses))
    }

    fn of(roster: &Roster, statuses: &BTreeMap<ReplicaId, ReplicaStatus>) -> Report {
        let view = roster.view();
        let replicas = roster.members().iter().map(|member| ReplicaReport {
            id: member.id.0,
            address: member.address.clone(),
            key: member.key.to_string(),
            heavy: view.heavy().contains(&member.id),
            status: statuses.get(&member.id).map(|status| StatusReport {
                view: status.view.0,
                regency: status.regency,
                leader: status.leader.0,
                instance: status.instance,
                delivered: status.delivered.0,
                applied: status.applied.0,
                pending: status.pending,
                diverged: status.diverged.clone(),
            }),
        });
        Report {
            view: view.number().0,
            fault_model: view.model(),
            faults: view.f(),
            leader: leader(roster, statuses).map(|leader| leader.0),
            replicas: replicas.collect(),
        }
    }

    /// Whether every member answered, knows the view and trusts its data.
    fn is_healthy(&self) -> bool {
        let well = |status: &StatusReport| status.view == self.view && status.diverged.is_none();
        self.replicas.iter().all(|replica| replica.status.as_ref().is_some_and(well))
    }

    fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        let model = match self.fault_model {
            FaultModel::Byzantine => "lie or stop",
            FaultModel::Crash => "stop",
        };
        let (n, f) = (self.replicas.len(), self.faults);
        writeln!(text, "View {}: {n} replicas, any {f} of which may {model}", self.view)?;
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "replica",
            "address",
            "weight",
            "view",
            "regency",
            "leader",
            "instance",
            "delivered",
            "applied",
            "note",
        ]);
        let spare = self.replicas.iter().any(|replica| replica.heavy);
        for replica in &self.replicas {
            let weight = if replica.heavy || !spare { "V_max" } else { "V_min" };
            let mut row = vec![replica.id.to_string(), replica.address.clone(), weight.to_string()];
            match &replica.status {
                Some(status) => {
                    let numbers = [
                        status.view,
                        status.regency,
                        u64::from(status.leader),
                        status.instance,
                        status.delivered,
                        status.applied,
                    ];
                    row.extend(numbers.map(|number| number.to_string()));
                    row.push(
                        status.diverged.clone().map(|why| format!("diverged: {why}")).unwrap_or_default(),
                    );
                }
                None => {
                    row.extend(std::iter::repeat_n("-".to_string(), 6));
                    row.push("no answer".into());
                }
            }
            table.add_row(row);
        }
        writeln!(text, "{table}")?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{Position, View, ViewNumber};

    fn roster() -> Roster {
        let keys = (1..6).map(|seed| SecretKey::from_seed(&[seed; 32]).public()).collect();
        Roster::of_keys(View::of_size(5).unwrap(), keys).unwrap()
    }

    fn status(leader: u16) -> ReplicaStatus {
        ReplicaStatus {
            view: ViewNumber(0),
            votes: true,
            regency: 3,
            leader: ReplicaId(leader),
            instance: 9,
            delivered: Position(20),
            applied: Position(19),
            pending: 0,
            diverged: None,
            term: steeldb_types::Term::first(ReplicaId(0)),
            accusations: vec![],
            version: "0.1.0".into(),
            uptime_s: 1,
            vouches: true,
            behind: None,
            prepared: 0,
            sessions: 0,
        }
    }

    #[test]
    fn a_report_names_every_member_and_who_is_silent() {
        let statuses = (0..4).map(|id| (ReplicaId(id), status(3))).collect();
        let report = Report::of(&roster(), &statuses);
        let text = report.text().unwrap();
        assert!(text.contains("View 0: 5 replicas, any 1 of which may lie or stop"), "{text}");
        assert!(text.contains("no answer") && text.contains("V_min"), "{text}");
        assert!(!report.is_healthy());
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!((&json["leader"], &json["replicas"][0]["heavy"]), (&3.into(), &true.into()));
        assert_eq!(
            (&json["replicas"][1]["status"]["applied"], json["replicas"][4]["status"].is_null()),
            (&19.into(), true)
        );
    }

    #[test]
    fn one_replica_does_not_name_the_leader() {
        let mut statuses: BTreeMap<_, _> = [(ReplicaId(0), status(4)), (ReplicaId(1), status(2))].into();
        assert_eq!(leader(&roster(), &statuses), None);
        statuses.insert(ReplicaId(3), status(2));
        assert_eq!(leader(&roster(), &statuses), Some(ReplicaId(2)));
    }
}
