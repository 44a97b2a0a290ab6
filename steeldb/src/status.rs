//! `steeldb status`: the whole cluster on one screen. Every replica speaks for itself, over its own authenticated link;
//! what they are to agree on is shown as what f + 1 of them say, one of whom is correct, and with who says it.

use crate::cli::ClusterStatusArgs;
use crate::cluster::shim;
use anyhow::{Context as _, ensure};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;
use steeldb_client_shim::Shim;
use steeldb_ordering::Roster;
use steeldb_types::{FaultModel, ReplicaId, View};
use steeldb_wire::transaction::ReplicaStatus;

/// Characters of what a replica wrote that are shown: it may write what it likes.
const TEXT_CHARS: usize = 160;

/// Clears a terminal and begins at its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows where the cluster stands.
///
/// # Errors
/// When the configuration is refused.
pub(crate) async fn execute(args: ClusterStatusArgs) -> anyhow::Result<ExitCode> {
    let shim = shim(&args.config)?;
    let Some(seconds) = args.watch else { return look(&shim, &args).await };
    let mut tick = tokio::time::interval(Duration::from_secs(seconds));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = ExitCode::FAILURE;
    let watching = async {
        loop {
            tick.tick().await;
            match look(&shim, &args).await {
                Ok(code) => last = code,
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        error = watching => Err(error),
        _ = tokio::signal::ctrl_c() => Ok(last),
    }
}

async fn look(shim: &Shim, args: &ClusterStatusArgs) -> anyhow::Result<ExitCode> {
    let statuses = shim.status(Duration::from_secs(args.patience)).await;
    let roster = shim.roster().context("the replicas of proxy.toml are not those of its view")?;
    let report = Report::of(&roster, &statuses);
    let text = match (args.json, args.watch) {
        (true, None) => format!("{}\n", serde_json::to_string_pretty(&report)?),
        (true, Some(_)) => format!("{}\n", serde_json::to_string(&report)?),
        (false, None) => report.text()?,
        (false, Some(_)) if std::io::stdout().is_terminal() => format!("{CLEAR}{}", report.text()?),
        (false, Some(_)) => format!("{}\n", report.text()?),
    };
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ensure!(written.is_ok(), "nobody reads standard output any more");
    Ok(if report.is_there() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is shown, and the form of `--json`; docs/operations.md describes it.
#[derive(Serialize)]
struct Report {
    /// The newest view that was proven.
    view: u64,
    fault_model: FaultModel,
    faults: u16,
    /// Members of the view that answered are a quorum, and so are those of them whose votes count.
    quorum: bool,
    answered: usize,
    /// Nothing: no f + 1 replicas of the view agree.
    regency: Option<Agreed<RegencyReport>>,
    master: Option<Agreed<MasterReport>>,
    /// Up to where f + 1 replicas at least say that the order is delivered.
    position: u64,
    /// Of the master that is agreed on, as any replica has heard.
    accusations: Vec<AccusationReport>,
    /// Who says that its data are not the others'.
    diverged: Vec<u16>,
    replicas: Vec<ReplicaReport>,
}

#[derive(Serialize)]
struct Agreed<T> {
    #[serde(flatten)]
    what: T,
    /// Who says so.
    agree: Vec<u16>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct RegencyReport {
    number: u64,
    leader: u16,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct MasterReport {
    epoch: u64,
    replica: u16,
}

#[derive(Serialize)]
struct AccusationReport {
    by: u16,
    of: String,
    heard_by: Vec<u16>,
}

#[derive(Serialize)]
struct ReplicaReport {
    id: u16,
    address: String,
    /// Whether it weighs V_max; all weigh the same without spare replicas.
    heavy: bool,
    /// It answered.
    up: bool,
    /// What it says of itself; nothing: no answer.
    status: Option<StatusReport>,
}

#[derive(Serialize)]
struct StatusReport {
    version: String,
    uptime_s: u64,
    view: u64,
    regency: u64,
    leader: u16,
    epoch: u64,
    master: u16,
    delivered: u64,
    applied: u64,
    /// What it has delivered and not applied, in positions.
    lag: u64,
    /// What f + 1 others have delivered and it has not; nothing: too few have told it.
    behind: Option<u64>,
    pending: u64,
    prepared: u64,
    sessions: u64,
    /// Its votes count.
    vouches: bool,
    diverged: Option<String>,
}

impl StatusReport {
    fn of(status: &ReplicaStatus) -> StatusReport {
        StatusReport {
            version: shown(&status.version),
            uptime_s: status.uptime_s,
            view: status.view.0,
            regency: status.regency,
            leader: status.leader.0,
            epoch: status.term.epoch,
            master: status.term.master.0,
            delivered: status.delivered.0,
            applied: status.applied.0,
            lag: status.delivered.0.saturating_sub(status.applied.0),
            behind: status.behind,
            pending: status.pending,
            prepared: status.prepared,
            sessions: status.sessions,
            vouches: status.vouches,
            diverged: status.diverged.as_deref().map(shown),
        }
    }
}

/// What a replica wrote, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS).collect()
}

/// The greatest value that f + 1 replicas agree on, and who they are.
fn agreed<T: Ord + Copy>(view: &View, said: &BTreeMap<ReplicaId, T>) -> Option<Agreed<T>> {
    let of = |value: T| said.iter().filter(move |(_, other)| **other == value).map(|(replica, _)| *replica);
    let what = said.values().copied().filter(|value| view.has_correct(of(*value))).max()?;
    Some(Agreed { what, agree: of(what).map(|replica| replica.0).collect() })
}

impl Report {
    fn of(roster: &Roster, statuses: &BTreeMap<ReplicaId, ReplicaStatus>) -> Report {
        let view = roster.view();
        let members: BTreeMap<ReplicaId, &ReplicaStatus> =
            statuses.iter().filter(|(id, _)| view.contains(**id)).map(|(id, status)| (*id, status)).collect();
        // Regencies are numbered within a view.
        let current = members.iter().filter(|(_, status)| status.view == view.number());
        let regencies = current
            .map(|(id, status)| (*id, RegencyReport { number: status.regency, leader: status.leader.0 }));
        let masters = members.iter().map(|(id, status)| {
            (*id, MasterReport { epoch: status.term.epoch, replica: status.term.master.0 })
        });
        let regency = agreed(view, &regencies.collect());
        let master = agreed(view, &masters.collect());
        let at_least = |position: u64| {
            view.has_correct(members.iter().filter(|(_, s)| s.delivered.0 >= position).map(|(id, _)| *id))
        };
        let position = members.values().map(|status| status.delivered.0).filter(|p| at_least(*p)).max();
        let vouching = members.iter().filter(|(_, status)| status.vouches).map(|(id, _)| *id);
        Report {
            view: view.number().0,
            fault_model: view.model(),
            faults: view.f(),
            quorum: view.is_quorum(members.keys().copied()) && view.is_quorum(vouching),
            answered: members.len(),
            position: position.unwrap_or_default(),
            accusations: accusations(&members, master.as_ref().map(|master| master.what)),
            diverged: members.iter().filter(|(_, s)| s.diverged.is_some()).map(|(id, _)| id.0).collect(),
            regency,
            master,
            replicas: roster
                .members()
                .iter()
                .map(|member| ReplicaReport {
                    id: member.id.0,
                    address: member.address.clone(),
                    heavy: view.heavy().contains(&member.id),
                    up: members.contains_key(&member.id),
                    status: members.get(&member.id).map(|status| StatusReport::of(status)),
                })
                .collect(),
        }
    }

    /// Whether the cluster can work: a quorum that agrees on who the master is.
    fn is_there(&self) -> bool {
        self.quorum && self.master.is_some()
    }

    fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        let n = self.replicas.len();
        let model = match self.fault_model {
            FaultModel::Byzantine => "lie or stop",
            FaultModel::Crash => "stop",
        };
        let quorum = if self.quorum { "a quorum is there" } else { "NO QUORUM" };
        writeln!(
            text,
            "View {}: {n} replicas, any {} of which may {model}; {} answer, {quorum}",
            self.view, self.faults, self.answered
        )?;
        match &self.master {
            Some(master) => writeln!(
                text,
                "Master   replica {} in epoch {} ({} of {n} agree)",
                master.what.replica,
                master.what.epoch,
                master.agree.len()
            )?,
            None => writeln!(text, "Master   not agreed on")?,
        }
        match &self.regency {
            Some(regency) => writeln!(
                text,
                "Leader   replica {} in regency {} ({} of {n} agree)",
                regency.what.leader,
                regency.what.number,
                regency.agree.len()
            )?,
            None => writeln!(text, "Leader   not agreed on")?,
        }
        writeln!(text, "Position {} at the least\n", self.position)?;
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "replica",
            "address",
            "version",
            "up for",
            "delivered",
            "applied",
            "lag",
            "behind",
            "pending",
            "prepared",
            "sessions",
            "note",
        ]);
        for replica in &self.replicas {
            table.add_row(self.row(replica));
        }
        writeln!(text, "{table}")?;
        for AccusationReport { by, of, heard_by } in &self.accusations {
            writeln!(text, "Replica {by} accuses the master: {of} (heard by {}).", heard_by.len())?;
        }
        for replica in &self.replicas {
            if let Some(reason) = replica.status.as_ref().and_then(|status| status.diverged.as_ref()) {
                writeln!(text, "Replica {} has diverged: {reason}", replica.id)?;
            }
        }
        Ok(text)
    }

    fn row(&self, replica: &ReplicaReport) -> Vec<String> {
        let mut row = vec![replica.id.to_string(), replica.address.clone()];
        let Some(status) = &replica.status else {
            row.extend(std::iter::repeat_n(String::new(), 9));
            row.push("no answer".into());
            return row;
        };
        row.extend([
            status.version.clone(),
            span(status.uptime_s),
            status.delivered.to_string(),
            status.applied.to_string(),
            status.lag.to_string(),
            status.behind.map_or("?".into(), |behind| behind.to_string()),
            status.pending.to_string(),
            status.prepared.to_string(),
            status.sessions.to_string(),
            self.note(replica.id, status),
        ]);
        row
    }

    fn note(&self, id: u16, status: &StatusReport) -> String {
        let mut notes: Vec<String> = Vec::new();
        if self.master.as_ref().is_some_and(|master| master.what.replica == id) {
            notes.push("master".into());
        }
        if self.regency.as_ref().is_some_and(|regency| regency.what.leader == id) {
            notes.push("leader".into());
        }
        if status.view != self.view {
            notes.push(format!("in view {}", status.view));
        }
        if let Some(master) = &self.master
            && !master.agree.contains(&id)
        {
            notes.push(format!("says: master {} in epoch {}", status.master, status.epoch));
        }
        if let Some(regency) = &self.regency
            && !regency.agree.contains(&id)
        {
            notes.push(format!("says: leader {} in regency {}", status.leader, status.regency));
        }
        if status.diverged.is_some() {
            notes.push("DIVERGED".into());
        } else if !status.vouches {
            notes.push("its votes do not count yet".into());
        }
        notes.join(", ")
    }
}

/// Of the master of this term, with who has heard of them.
fn accusations(
    members: &BTreeMap<ReplicaId, &ReplicaStatus>,
    master: Option<MasterReport>,
) -> Vec<AccusationReport> {
    let mut heard: BTreeMap<(u16, String), BTreeSet<u16>> = BTreeMap::new();
    for (id, status) in members {
        // Those of an earlier term are over.
        let current = MasterReport { epoch: status.term.epoch, replica: status.term.master.0 };
        if Some(current) == master {
            for (by, cause) in &status.accusations {
                heard.entry((by.0, cause.to_string())).or_default().insert(id.0);
            }
        }
    }
    heard
        .into_iter()
        .map(|((by, of), heard_by)| AccusationReport { by, of, heard_by: heard_by.into_iter().collect() })
        .collect()
}

/// Seconds for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use steeldb_types::{Position, Term, ViewNumber};
    use steeldb_wire::auth::SecretKey;
    use steeldb_wire::transaction::Cause;

    fn roster() -> Roster {
        let keys = (1..5).map(|seed| SecretKey::from_seed(&[seed; 32]).public()).collect();
        Roster::of_keys(View::of_size(4).unwrap(), keys).unwrap()
    }

    fn status(regency: u64, master: u16) -> ReplicaStatus {
        ReplicaStatus {
            view: ViewNumber(0),
            votes: true,
            regency,
            leader: ReplicaId(regency as u16),
            instance: 9,
            delivered: Position(20),
            applied: Position(19),
            pending: 0,
            diverged: None,
            term: Term { epoch: u64::from(master), master: ReplicaId(master) },
            accusations: vec![],
            version: "0.1.0".into(),
            uptime_s: 7,
            vouches: true,
            behind: Some(0),
            prepared: 3,
            sessions: 2,
        }
    }

    fn report(statuses: &[(u16, ReplicaStatus)]) -> Report {
        Report::of(&roster(), &statuses.iter().map(|(id, status)| (ReplicaId(*id), status.clone())).collect())
    }

    #[test]
    fn one_replica_is_not_believed_whatever_it_says() {
        let liar =
            ReplicaStatus { delivered: Position(1 << 40), version: "\x1b[2J evil".into(), ..status(9, 3) };
        let report = report(&[(0, status(1, 1)), (1, status(1, 1)), (2, status(1, 1)), (3, liar)]);
        assert!(report.is_there());
        let json: Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["regency"], json!({"number": 1, "leader": 1, "agree": [0, 1, 2]}));
        assert_eq!(json["master"], json!({"epoch": 1, "replica": 1, "agree": [0, 1, 2]}));
        assert_eq!(json["position"], 20);
        let text = report.text().unwrap();
        assert!(text.contains("Master   replica 1 in epoch 1 (3 of 4 agree)"), "{text}");
        assert!(text.contains("says: master 3 in epoch 3") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn without_a_quorum_that_vouches_or_agrees_it_is_not_there() {
        assert!(!report(&[(0, status(0, 0)), (1, status(0, 0))]).is_there());
        let diverged = ReplicaStatus { diverged: Some("a row".into()), vouches: false, ..status(0, 0) };
        let report_of = |third: ReplicaStatus| report(&[(0, status(0, 0)), (1, status(0, 0)), (3, third)]);
        let report_here = report_of(diverged);
        assert!(!report_here.is_there());
        let text = report_here.text().unwrap();
        assert!(text.contains("NO QUORUM") && text.contains("Replica 3 has diverged: a row"), "{text}");
        assert!(text.contains("no answer"), "{text}");
        assert!(report_of(status(0, 0)).is_there());
        assert!(!report(&[(0, status(0, 0)), (1, status(0, 1)), (2, status(0, 2))]).is_there());
    }

    #[test]
    fn accusations_of_the_master_are_told_with_who_has_heard_of_them() {
        let accused =
            |by: u16| ReplicaStatus { accusations: vec![(ReplicaId(by), Cause::Silent)], ..status(0, 0) };
        let old = ReplicaStatus { accusations: vec![(ReplicaId(3), Cause::Doubted)], ..status(0, 3) };
        let report = report(&[(0, status(0, 0)), (1, accused(2)), (2, accused(2)), (3, old)]);
        let text = report.text().unwrap();
        assert!(text.contains("Replica 2 accuses the master: it is silent (heard by 2).\n"), "{text}");
        assert_eq!(report.accusations.len(), 1, "{text}");
    }

    /// The keys that docs/operations.md lists are those that `--json` has.
    #[test]
    fn the_documented_form_is_the_written_one() {
        fn walk(prefix: &str, value: &Value, keys: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    for (key, value) in map {
                        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                        keys.insert(path.clone());
                        walk(&path, value, keys);
                    }
                }
                Value::Array(list) => list.iter().for_each(|value| walk(&format!("{prefix}[]"), value, keys)),
                _ => {}
            }
        }
        let accused = ReplicaStatus { accusations: vec![(ReplicaId(1), Cause::Silent)], ..status(0, 0) };
        let report = report(&[(0, accused.clone()), (1, accused.clone()), (2, accused)]);
        let mut written = BTreeSet::new();
        walk("", &serde_json::to_value(&report).unwrap(), &mut written);
        let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
        let document = std::fs::read_to_string(document).unwrap();
        let section = document.split("\n## ").find(|section| section.starts_with("Status\n")).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let documented: BTreeSet<String> = rows.map(str::to_string).collect();
        assert_eq!(documented, written);
    }

    #[test]
    fn spans_are_for_people() {
        let spans = [119, 120, 7199, 7200, 172_799, 172_800].map(span);
        assert_eq!(spans, ["119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
