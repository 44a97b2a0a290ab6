//! `steeldb verify`: the tables of all replicas side by side.

use crate::cli::VerifyArgs;
use crate::config::{ProxyConfig, ProxyFile};
use crate::processes;
use anyhow::ensure;
use comfy_table::{Table, presets};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_client_shim::{TableDigest, VerifiedReplica};
use steeldb_types::{Position, ReplicaId};

/// Digits of a digest that are shown; all of them are compared.
const DIGEST_CHARS: usize = 12;

/// Compares the databases and says what differs.
///
/// # Errors
/// When the configuration is refused or replicas cannot be asked.
pub(crate) async fn execute(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let config = ProxyFile::load(&args.config)?;
    let databases = databases(&config, &args.database)?;
    let shim = processes::shim(&config)?;
    let mut identical = true;
    for database in databases {
        let answers = shim.verify(&database, Duration::from_secs(args.patience)).await?;
        let replicas: Vec<ReplicaId> = shim.view().replicas().collect();
        let comparison = Comparison::new(&replicas, &answers);
        print!("{}", comparison.report(&database));
        identical &= comparison.is_identical();
    }
    Ok(if identical { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn databases(config: &ProxyConfig, wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let allowed = config.cluster.clients.get(&config.client).map(|client| client.databases.clone());
    let allowed = allowed.unwrap_or_default();
    for database in wanted {
        ensure!(allowed.contains(database), "client {} may not use database {database:?}", config.client.0);
    }
    Ok(if wanted.is_empty() { allowed } else { wanted.to_vec() })
}

/// What the replicas hold of one database.
struct Comparison<'a> {
    replicas: &'a [ReplicaId],
    held: BTreeMap<ReplicaId, BTreeMap<&'a str, &'a TableDigest>>,
    /// Why there is nothing to compare: no answer, or a failure.
    missing: Vec<(ReplicaId, String)>,
    positions: BTreeSet<Position>,
}

impl<'a> Comparison<'a> {
    fn new(replicas: &'a [ReplicaId], answers: &'a [VerifiedReplica]) -> Comparison<'a> {
        let mut comparison =
            Comparison { replicas, held: BTreeMap::new(), missing: Vec::new(), positions: BTreeSet::new() };
        for replica in replicas {
            let Some(answer) = answers.iter().find(|answer| answer.replica == *replica) else {
                comparison.missing.push((*replica, "no answer".into()));
                continue;
            };
            comparison.positions.insert(answer.position);
            match &answer.tables {
                Ok(tables) => {
                    let tables = tables.iter().map(|table| (table.table.as_str(), table)).collect();
                    comparison.held.insert(*replica, tables);
                }
                Err(reason) => comparison.missing.push((*replica, reason.clone())),
            }
        }
        comparison
    }

    fn tables(&self) -> BTreeSet<&'a str> {
        self.held.values().flat_map(|tables| tables.keys().copied()).collect()
    }

    fn agrees(&self, table: &str) -> bool {
        let contents: BTreeSet<_> = self
            .held
            .values()
            .map(|tables| tables.get(table).map(|held| (held.rows, held.digest.as_str())))
            .collect();
        contents.len() == 1
    }

    fn is_identical(&self) -> bool {
        self.missing.is_empty()
            && self.positions.len() == 1
            && self.tables().into_iter().all(|table| self.agrees(table))
    }

    fn report(&self, database: &str) -> String {
        let mut text = String::new();
        let positions: Vec<String> = self.positions.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "database {database} at position {}", positions.join(", "));
        let mut grid = Table::new();
        grid.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        let header =
            ["table".to_string()].into_iter().chain(self.replicas.iter().map(|r| format!("replica {}", r.0)));
        grid.set_header(header.chain(["".to_string()]));
        for table in self.tables() {
            let cells = self.replicas.iter().map(|replica| match self.held.get(replica) {
                None => "?".to_string(),
                Some(tables) => match tables.get(table) {
                    None => "no such table".to_string(),
                    Some(held) => {
                        let digest: String = held.digest.chars().take(DIGEST_CHARS).collect();
                        format!("{} rows\n{digest}", held.rows)
                    }
                },
            });
            let verdict = if self.agrees(table) { "identical" } else { "DIFFERS" };
            grid.add_row([table.to_string()].into_iter().chain(cells).chain([verdict.to_string()]));
        }
        let _ = writeln!(text, "{grid}");
        for (replica, reason) in &self.missing {
            let _ = writeln!(text, "replica {}: {reason}", replica.0);
        }
        if self.positions.len() > 1 {
            let _ = writeln!(text, "the replicas answered for different positions");
        }
        let differing: Vec<&str> = self.tables().into_iter().filter(|table| !self.agrees(table)).collect();
        let verdict = if self.is_identical() {
            format!("identical: {} tables on {} replicas", self.tables().len(), self.replicas.len())
        } else if differing.is_empty() {
            format!("not compared on all {} replicas", self.replicas.len())
        } else {
            format!("DIFFERENT: {}", differing.join(", "))
        };
        let _ = writeln!(text, "{verdict}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(replica: u16, position: u64, tables: &[(&str, u64, &str)]) -> VerifiedReplica {
        let tables = tables.iter().map(|(table, rows, digest)| TableDigest {
            table: table.to_string(),
            rows: *rows,
            digest: digest.to_string(),
        });
        VerifiedReplica {
            replica: ReplicaId(replica),
            position: Position(position),
            tables: Ok(tables.collect()),
        }
    }

    fn verdict(answers: &[VerifiedReplica]) -> (bool, String) {
        let replicas: Vec<ReplicaId> = (0..2).map(ReplicaId).collect();
        let comparison = Comparison::new(&replicas, answers);
        (comparison.is_identical(), comparison.report("app"))
    }

    #[test]
    fn equal_tables_at_one_position_are_identical() {
        let tables = [("public.a", 3, "0123456789abcdef"), ("public.b", 0, "00")];
        let (identical, report) = verdict(&[answer(0, 9, &tables), answer(1, 9, &tables)]);
        assert!(identical && report.contains("identical: 2 tables on 2 replicas"), "{report}");
        assert!(report.contains("at position #9") && report.contains("3 rows"), "{report}");
    }

    #[test]
    fn what_differs_is_named() {
        let same = ("public.a", 3, "aa");
        let cases = [
            (answer(1, 9, &[same, ("public.b", 1, "cc")]), "DIFFERENT: public.b"),
            (answer(1, 9, &[same, ("public.b", 2, "bb")]), "DIFFERENT: public.b"),
            (answer(1, 9, &[same]), "no such table"),
            (answer(1, 8, &[same, ("public.b", 1, "bb")]), "different positions"),
        ];
        for (other, said) in cases {
            let (identical, report) = verdict(&[answer(0, 9, &[same, ("public.b", 1, "bb")]), other]);
            assert!(!identical && report.contains(said), "{said}: {report}");
        }
    }

    #[test]
    fn a_replica_that_is_silent_or_fails_is_not_identical() {
        let good = answer(0, 9, &[("public.a", 3, "aa")]);
        let (identical, report) = verdict(std::slice::from_ref(&good));
        assert!(!identical && report.contains("replica 1: no answer"), "{report}");
        let failed = VerifiedReplica { tables: Err("out of disk".into()), ..answer(1, 9, &[]) };
        let (identical, report) = verdict(&[good, failed]);
        assert!(!identical && report.contains("replica 1: out of disk"), "{report}");
    }
}
