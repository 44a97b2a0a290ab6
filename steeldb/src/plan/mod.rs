//! `steeldb cluster plan`: what each choice of leader, master and weights is worth, and how to make the best one true.
//!
//! A replica measures the round trips to its peers, this command those to all replicas. A pair of replicas counts as the
//! slower of what its two ends say: so a liar can make itself look farther away, and never nearer to a correct one. What
//! comes out is shown to an administrator, who decides.

mod report;

use crate::cli::PlanArgs;
use crate::cluster::{leader, shim};
use crate::config::Cluster;
use crate::master::agreed;
use anyhow::{Context as _, ensure};
use report::Report;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_client_shim::RoundTrips;
use steeldb_sites::{Choice, Distances, Matrix, Members, Replies, Transaction, rank};
use steeldb_types::{FaultModel, ReplicaId, View};

/// What is planned for.
struct Situation {
    members: Members,
    /// What a replica is called beside its number: its site or its address.
    names: BTreeMap<ReplicaId, String>,
    distances: Distances,
    /// What the cluster does now, if one was asked and enough of it answered.
    current: Option<Choice>,
    /// Where the round trips come from.
    source: String,
}

/// Shows the choices.
///
/// # Errors
/// When files are refused, too few replicas answer, or no choice would end a transaction.
pub(crate) async fn execute(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let situation = match &args.matrix {
        Some(matrix) => written(&args, matrix).await?,
        None => measured(&args).await?,
    };
    let tentative = args.tentative
        || match &args.config {
            Some(config) => Cluster::read(config)?.tentative_replies,
            None => false,
        };
    let replies = if tentative { Replies::Tentative } else { Replies::Decided };
    let transaction = Transaction { statements: args.statements, replies };
    let ranked = rank(&situation.members, &situation.distances, transaction, situation.current.as_ref())?;
    ensure!(!ranked.is_empty(), "no choice would end a transaction: too few replicas answer");
    let report = Report::new(&situation, transaction, &ranked, args.config.as_deref());
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.text(args.top as usize)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// From a matrix; with --config, for the members, f and weights of that cluster.
async fn written(args: &PlanArgs, file: &Path) -> anyhow::Result<Situation> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let matrix = Matrix::parse(&text).with_context(|| file.display().to_string())?;
    let (members, current) = match &args.config {
        Some(config) => {
            let (view, _, current) = ask(config, args.patience).await?;
            let (faults, model) = (view.f(), view.model());
            (Members { replicas: view.members().to_vec(), faults, model }, current)
        }
        None => {
            let n = u16::try_from(args.sites.len()).context("--sites: too many")?;
            let model = args.fault_model.map_or(FaultModel::Byzantine, FaultModel::from);
            let faults = crate::init::most_faults(usize::from(n), model);
            (Members { replicas: (0..n).map(ReplicaId).collect(), faults, model }, None)
        }
    };
    let members = Members {
        faults: args.faults.unwrap_or(members.faults),
        model: args.fault_model.map_or(members.model, FaultModel::from),
        ..members
    };
    ensure!(
        args.sites.len() == members.replicas.len(),
        "--sites names {} sites for {} replicas",
        args.sites.len(),
        members.replicas.len()
    );
    let sites = members.replicas.iter().copied().zip(args.sites.iter().map(String::as_str));
    let client = args.client.as_deref().unwrap_or_default();
    let distances = matrix.distances(sites.clone(), client).with_context(|| file.display().to_string())?;
    Ok(Situation {
        names: sites.map(|(id, site)| (id, site.to_string())).collect(),
        members,
        distances,
        current,
        source: format!("{}, for a client in {client}", file.display()),
    })
}

async fn measured(args: &PlanArgs) -> anyhow::Result<Situation> {
    let config = args.config.as_deref().context("--config or --matrix is needed")?;
    let (view, names, current) = ask(config, args.patience).await?;
    let trips = shim(config)?.round_trips(Duration::from_secs(args.patience)).await;
    ensure!(!trips.is_empty(), "no replica answers");
    Ok(Situation {
        members: Members { replicas: view.members().to_vec(), faults: view.f(), model: view.model() },
        names,
        distances: distances(&view, &trips),
        current,
        source: "what the replicas measure, and this command from where it runs".into(),
    })
}

/// The view, its members' addresses, and who leads and answers in it.
async fn ask(
    config: &Path,
    patience: u64,
) -> anyhow::Result<(View, BTreeMap<ReplicaId, String>, Option<Choice>)> {
    let shim = shim(config)?;
    let statuses = shim.status(Duration::from_secs(patience)).await;
    let roster = shim.roster().context("the replicas of proxy.toml are not those of its view")?;
    let view = roster.view().clone();
    let names = roster.members().iter().map(|member| (member.id, member.address.clone())).collect();
    let current = leader(&roster, &statuses).zip(agreed(&view, &statuses)).map(|(leader, term)| Choice {
        leader,
        master: term.master,
        heavy: view.heavy().to_vec(),
    });
    Ok((view, names, current))
}

/// Half of each round trip. Between replicas the slower of what both say, and what one says when the other says nothing.
fn distances(view: &View, trips: &BTreeMap<ReplicaId, RoundTrips>) -> Distances {
    let half_ms = |round_trip: Duration| round_trip.as_secs_f64() * 1000.0 / 2.0;
    let said = |from: &ReplicaId, of: &ReplicaId| trips.get(from)?.between.get(of).copied();
    let mut distances = Distances::default();
    for (from, answer) in trips.iter().filter(|(id, _)| view.contains(**id)) {
        distances.set_client(*from, half_ms(answer.own), half_ms(answer.own));
        for to in view.members().iter().filter(|to| *to != from) {
            if let Some(slower) = said(from, to).max(said(to, from)) {
                distances.set(*from, *to, half_ms(slower));
                distances.set(*to, *from, half_ms(slower));
            }
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(own: u64, between: &[(u16, u64)]) -> RoundTrips {
        let between = between.iter().map(|(id, ms)| (ReplicaId(*id), Duration::from_millis(*ms)));
        RoundTrips { own: Duration::from_millis(own), between: between.collect() }
    }

    #[test]
    fn a_replica_can_make_itself_look_farther_away_and_not_nearer() {
        let view = View::of_size(4).unwrap();
        // Replica 3 says that it is beside everyone but 1; 2 has not answered.
        let trips: BTreeMap<ReplicaId, RoundTrips> = [
            (ReplicaId(0), said(2, &[(1, 80), (2, 90), (3, 100)])),
            (ReplicaId(1), said(82, &[(0, 84), (3, 60)])),
            (ReplicaId(3), said(102, &[(0, 1), (1, 900), (2, 1)])),
        ]
        .into();
        let distances = distances(&view, &trips);
        let between = |a: u16, b: u16| distances.between(ReplicaId(a), ReplicaId(b));
        assert_eq!((between(0, 1), between(1, 0)), (42.0, 42.0));
        assert_eq!((between(3, 0), between(0, 3)), (50.0, 50.0));
        assert_eq!(between(1, 3), 450.0);
        assert_eq!((between(2, 0), between(2, 3)), (45.0, 0.5), "only one end says anything");
        assert!(between(1, 2).is_infinite());
        assert_eq!((distances.there(ReplicaId(3)), distances.back(ReplicaId(0))), (51.0, 1.0));
        assert!(distances.there(ReplicaId(2)).is_infinite());
    }
}
