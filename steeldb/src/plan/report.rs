//! What `steeldb cluster plan` shows, and the form of `--json`.

use super::Situation;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use steeldb_sites::{Choice, Ranked, Replies, Step, Transaction};
use steeldb_types::ReplicaId;

#[derive(Serialize)]
pub(super) struct Report {
    /// Where the round trips come from.
    source: String,
    statements: u32,
    tentative: bool,
    replicas: BTreeMap<u16, String>,
    /// Round trips, milliseconds: from the client, and between replicas; nothing: not known.
    client_ms: BTreeMap<u16, Option<f64>>,
    round_trips_ms: BTreeMap<u16, BTreeMap<u16, Option<f64>>>,
    /// What the cluster does now, if known.
    current: Option<Row>,
    /// The commands that make the first choice true, in this order; none when it is.
    commands: Vec<String>,
    /// The fastest first.
    choices: Vec<Row>,
}

#[derive(Clone, Serialize)]
struct Row {
    leader: u16,
    master: u16,
    heavy: Vec<u16>,
    begin: Part,
    statements_ms: f64,
    votes: Part,
    outcome: Part,
    total_ms: f64,
    /// Nothing: no transaction would end.
    one_silent_ms: Option<f64>,
}

#[derive(Clone, Serialize)]
struct Part {
    ms: f64,
    /// Whose messages made the quorum, in the order of their arrival.
    counted: Vec<u16>,
}

fn numbers(replicas: &[ReplicaId]) -> Vec<u16> {
    replicas.iter().map(|replica| replica.0).collect()
}

fn list(numbers: &[u16]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn known(ms: f64) -> Option<f64> {
    ms.is_finite().then_some(ms)
}

impl From<&Step> for Part {
    fn from(step: &Step) -> Part {
        Part { ms: step.ms, counted: numbers(&step.counted) }
    }
}

impl From<&Ranked> for Row {
    fn from(ranked: &Ranked) -> Row {
        let Ranked { choice, prediction, one_silent_ms } = ranked;
        Row {
            leader: choice.leader.0,
            master: choice.master.0,
            heavy: numbers(&choice.heavy),
            begin: Part::from(&prediction.begin),
            statements_ms: prediction.statements_ms,
            votes: Part::from(&prediction.votes),
            outcome: Part::from(&prediction.outcome),
            total_ms: prediction.total_ms(),
            one_silent_ms: known(*one_silent_ms),
        }
    }
}

/// The commands that turn `current` into `wanted`. What is current is not known: all of them.
fn commands(wanted: &Choice, current: Option<&Choice>, config: Option<&Path>) -> Vec<String> {
    let config = config.map_or("proxy.toml".into(), |config| config.display().to_string());
    let how = format!("--config {config} --key administrator.key");
    let mut commands = Vec::new();
    let new_leader = current.is_none_or(|current| current.leader != wanted.leader);
    if current.is_none_or(|current| current.heavy != wanted.heavy) && !wanted.heavy.is_empty() {
        // One change: leader and weights take effect at one place in the order.
        let leader = if new_leader { format!(" --leader {}", wanted.leader.0) } else { String::new() };
        commands.push(format!("steeldb cluster weights {how}{leader} {}", list(&numbers(&wanted.heavy))));
    } else if new_leader {
        commands.push(format!("steeldb cluster leader {how} {}", wanted.leader.0));
    }
    if current.is_none_or(|current| current.master != wanted.master) {
        commands.push(format!("steeldb master move {how} {}", wanted.master.0));
    }
    commands
}

impl Report {
    /// `ranked` is not empty.
    pub(super) fn new(
        situation: &Situation,
        transaction: Transaction,
        ranked: &[Ranked],
        config: Option<&Path>,
    ) -> Report {
        let current = situation.current.as_ref();
        let distances = &situation.distances;
        let members = &situation.members.replicas;
        let round_trip =
            |a: ReplicaId, b: ReplicaId| known(distances.between(a, b) + distances.between(b, a));
        let row_of = |a: &ReplicaId| members.iter().map(|b| (b.0, round_trip(*a, *b))).collect();
        Report {
            source: situation.source.clone(),
            statements: transaction.statements,
            tentative: transaction.replies == Replies::Tentative,
            replicas: situation.names.iter().map(|(id, name)| (id.0, name.clone())).collect(),
            client_ms: members
                .iter()
                .map(|id| (id.0, known(distances.there(*id) + distances.back(*id))))
                .collect(),
            round_trips_ms: members.iter().map(|a| (a.0, row_of(a))).collect(),
            current: ranked.iter().find(|one| Some(&one.choice) == current).map(Row::from),
            commands: ranked.first().map(|best| commands(&best.choice, current, config)).unwrap_or_default(),
            choices: ranked.iter().map(Row::from).collect(),
        }
    }

    pub(super) fn text(&self, top: usize) -> anyhow::Result<String> {
        let mut text = String::new();
        writeln!(text, "Round trips, ms: {}\n{}\n", self.source, self.matrix())?;
        let statements = match self.statements {
            1 => "one statement".to_string(),
            more => format!("{more} statements"),
        };
        let replies = if self.tentative { ", replies on a WRITE quorum" } else { "" };
        writeln!(
            text,
            "A transaction of {statements}{replies}, ms, by the network alone; the {} fastest of {} choices:\n{}\n",
            top.min(self.choices.len()),
            self.choices.len(),
            self.table(top)
        )?;
        writeln!(
            text,
            "In brackets: whose ACCEPTs at the master, votes at the leader and replies at the client made the quorum, in\n\
             the order of their arrival. Last column: with one replica silent that neither leads nor answers, on average.\n"
        )?;
        match (&self.current, self.commands.is_empty()) {
            (Some(_), true) => writeln!(text, "What the cluster does now is the best choice.")?,
            (current, _) => {
                let best = &self.choices[0];
                write!(text, "Best: replica {} leads, {} is the master", best.leader, best.master)?;
                if !best.heavy.is_empty() {
                    write!(text, ", V_max for {}", list(&best.heavy))?;
                }
                write!(text, ": {:.1} ms", best.total_ms)?;
                match current {
                    Some(current) => writeln!(text, "; now {:.1} ms.", current.total_ms)?,
                    None => writeln!(text, ".")?,
                }
                writeln!(text, "\nTo have it, as administrator:\n")?;
                for command in &self.commands {
                    writeln!(text, "  {command}")?;
                }
                writeln!(
                    text,
                    "\nThe figures rest on what replicas say and are hints; a change ends open transactions with 40001."
                )?;
            }
        }
        Ok(text)
    }

    fn matrix(&self) -> Table {
        let ms = |ms: &Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.1}"));
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        let header = self.replicas.keys().map(|id| format!("{id}"));
        table.set_header(["replica".to_string(), "client".to_string()].into_iter().chain(header));
        for (id, name) in &self.replicas {
            let client = ms(self.client_ms.get(id).unwrap_or(&None));
            let others = self.round_trips_ms.get(id).into_iter().flat_map(BTreeMap::iter);
            let others = others.map(|(other, trip)| if other == id { String::new() } else { ms(trip) });
            table.add_row([format!("{id} {name}"), client].into_iter().chain(others));
        }
        table
    }

    fn table(&self, top: usize) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        let parts = ["BEGIN", "statements", "votes", "outcome", "total", "one silent"];
        table.set_header(["", "leader", "master", "V_max"].into_iter().chain(parts));
        let mut add = |mark: String, row: &Row| {
            let part = |part: &Part| format!("{:.1} [{}]", part.ms, list(&part.counted));
            let heavy = if row.heavy.is_empty() { "all".into() } else { list(&row.heavy) };
            table.add_row([
                mark,
                row.leader.to_string(),
                row.master.to_string(),
                heavy,
                part(&row.begin),
                format!("{:.1}", row.statements_ms),
                part(&row.votes),
                part(&row.outcome),
                format!("{:.1}", row.total_ms),
                row.one_silent_ms.map_or("never ends".into(), |ms| format!("{ms:.1}")),
            ]);
        };
        let is_current = |row: &Row| {
            self.current.as_ref().is_some_and(|current| {
                (current.leader, current.master, &current.heavy) == (row.leader, row.master, &row.heavy)
            })
        };
        let mut shown = false;
        for (index, row) in self.choices.iter().take(top).enumerate() {
            shown |= is_current(row);
            let now = if is_current(row) { " now" } else { "" };
            add(format!("{}{now}", index + 1), row);
        }
        if let Some((index, row)) = self.choices.iter().enumerate().find(|(_, row)| is_current(row))
            && !shown
        {
            add(format!("{} now", index + 1), row);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_sites::{EC2, Matrix, Members, rank};
    use steeldb_types::FaultModel;

    const SITES: [&str; 5] = ["oregon", "ireland", "sydney", "sao-paulo", "virginia"];

    fn report(replicas: usize, current: Option<Choice>, transaction: Transaction) -> Report {
        let sites = || (0u16..).map(ReplicaId).zip(SITES).take(replicas);
        let members = Members {
            replicas: sites().map(|(id, _)| id).collect(),
            faults: 1,
            model: FaultModel::Byzantine,
        };
        let situation = Situation {
            names: sites().map(|(id, site)| (id, site.to_string())).collect(),
            distances: Matrix::parse(EC2).unwrap().distances(sites(), "oregon").unwrap(),
            members,
            current,
            source: "a matrix".into(),
        };
        let (members, distances) = (&situation.members, &situation.distances);
        let ranked = rank(members, distances, transaction, situation.current.as_ref()).unwrap();
        Report::new(&situation, transaction, &ranked, Some(Path::new("/etc/p.toml")))
    }

    fn choice(leader: u16, master: u16, heavy: &[u16]) -> Choice {
        let heavy = heavy.iter().map(|id| ReplicaId(*id)).collect();
        Choice { leader: ReplicaId(leader), master: ReplicaId(master), heavy }
    }

    #[test]
    fn the_best_choice_comes_with_the_commands_that_apply_it() {
        let transaction = Transaction { replies: Replies::Tentative, ..Transaction::default() };
        let report = report(5, Some(choice(1, 2, &[2, 3])), transaction);
        assert_eq!(
            report.commands,
            [
                "steeldb cluster weights --config /etc/p.toml --key administrator.key --leader 0 0,4",
                "steeldb master move --config /etc/p.toml --key administrator.key 0",
            ]
        );
        let text = report.text(3).unwrap();
        assert!(text.contains("the 3 fastest of 250 choices"), "{text}");
        assert!(text.contains("replica 0 leads, 0 is the master, V_max for 0,4: 513.3 ms; now "), "{text}");
        assert!(
            text.contains(" now "),
            "the current choice is shown though it is not among the first: {text}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["choices"].as_array().unwrap().len(), 250);
        assert_eq!(json["choices"][0]["votes"]["counted"], serde_json::json!([0, 4, 1]));
        assert_eq!(
            (&json["round_trips_ms"]["0"]["1"], &json["current"]["master"]),
            (&171.0.into(), &2.into())
        );
    }

    #[test]
    fn only_what_differs_is_ordered() {
        let how = "--config c --key administrator.key";
        let made = |wanted: &Choice, current: &Choice| commands(wanted, Some(current), Some(Path::new("c")));
        let now = choice(0, 0, &[0, 1]);
        assert_eq!(made(&choice(0, 0, &[0, 4]), &now), [format!("steeldb cluster weights {how} 0,4")]);
        assert_eq!(made(&choice(2, 0, &[0, 1]), &now), [format!("steeldb cluster leader {how} 2")]);
        assert_eq!(made(&choice(0, 3, &[0, 1]), &now), [format!("steeldb master move {how} 3")]);
        assert!(made(&now, &now).is_empty());
        // Without spare replicas there are no weights to give.
        let (wanted, how) = (choice(2, 1, &[]), "--config proxy.toml --key administrator.key");
        let all = [format!("steeldb cluster leader {how} 2"), format!("steeldb master move {how} 1")];
        assert_eq!(commands(&wanted, None, None), all);
    }

    #[test]
    fn what_is_best_already_needs_no_command() {
        let best = report(4, None, Transaction::default()).choices.remove(0);
        let now = choice(best.leader, best.master, &best.heavy);
        let report = report(4, Some(now), Transaction::default());
        assert!(report.commands.is_empty());
        let text = report.text(10).unwrap();
        assert!(
            text.contains("What the cluster does now is the best choice.") && text.contains("1 now"),
            "{text}"
        );
    }
}
