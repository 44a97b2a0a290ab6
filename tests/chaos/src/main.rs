//! `chaos`: one run, its report, and an exit status to match.

use anyhow::Context as _;
use clap::{Parser, ValueEnum as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_chaos::cluster::REPLICAS;
use steeldb_chaos::progress::Progress;
use steeldb_chaos::scenario::{self, Options};
use steeldb_chaos::schedule::{Kind, Replies};
use steeldb_types::ReplicaId;

/// What is done by default: all but what this build cannot do, and what is there to be timed.
fn by_default() -> Vec<Kind> {
    let all = Kind::value_variants().iter().copied().filter(|kind| !Kind::TIMED.contains(kind));
    all.filter(|kind| cfg!(feature = "adversary") || *kind != Kind::Byzantine).collect()
}

#[derive(Parser)]
#[command(
    name = "chaos",
    about = "Does faults to a whole cluster in processes of its own, and checks what is left."
)]
struct Cli {
    /// How long faults are done, seconds
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// How many are done, however long that takes
    #[arg(long, conflicts_with = "seconds")]
    count: Option<u64>,
    /// The schedule's seed [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// What COMMIT waits for [default: as the seed chooses, in a third of the seeds tentative]
    #[arg(long, value_enum)]
    replies: Option<Replies>,
    /// What is done [default: all but the last four, which time the next commit after a kill]
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Do nothing to it: what the workloads find without faults
    #[arg(long, conflicts_with_all = ["faults", "count"])]
    no_faults: bool,
    /// To whom it is done [default: all]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(..i64::from(REPLICAS)))]
    replicas: Vec<u16>,
    /// The longest that a fault lasts, milliseconds
    #[arg(long, default_value_t = 600)]
    hold_ms: u64,
    /// Leave TPC-C out
    #[arg(long)]
    no_tpcc: bool,
    /// Where data, logs and the history go; kept [default: a temporary folder, kept if something is wrong]
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    let kinds = match cli.faults.is_empty() {
        _ if cli.no_faults => Vec::new(),
        true => by_default(),
        false => cli.faults.clone(),
    };
    anyhow::ensure!(
        cfg!(feature = "adversary") || !kinds.contains(&Kind::Byzantine),
        "this build has no adversary: make chaos builds one"
    );
    let all = (0..REPLICAS).map(ReplicaId);
    let replicas =
        all.filter(|replica| cli.replicas.is_empty() || cli.replicas.contains(&replica.0)).collect();
    let temporary =
        tempfile::Builder::new().prefix("steeldb-chaos-").tempdir().context("no temporary folder")?;
    let folder = cli.dir.clone().unwrap_or_else(|| temporary.path().to_path_buf());
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let names: Vec<String> = kinds.iter().map(|kind: &Kind| kind.name()).collect();
    let replies = cli.replies.unwrap_or_else(|| Replies::chosen_by(seed));
    println!("seed {seed}, {} replies; again with: {}", replies.name(), again(&cli, seed, replies, &names));
    let options = Options {
        program: under_test()?,
        duration: Duration::from_secs(cli.seconds),
        count: cli.count,
        seed,
        replies,
        kinds,
        replicas,
        hold_max: Duration::from_millis(cli.hold_ms),
        tpcc: !cli.no_tpcc,
        folder: folder.clone(),
    };
    // One thread, the main one: the kernel ends children with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(scenario::run(&options, &Progress::new()));
    let good = result.as_ref().is_ok_and(|report| report.is_good());
    if !good && cli.dir.is_none() {
        let kept = temporary.keep();
        println!("logs, data and the history: {}", kept.display());
    }
    println!("{}", result?);
    Ok(good)
}

/// The command that makes the same run.
fn again(cli: &Cli, seed: u64, replies: Replies, kinds: &[String]) -> String {
    let mut options = vec![match cli.count {
        Some(count) => format!("--count {count}"),
        None => format!("--seconds {}", cli.seconds),
    }];
    options.push(format!("--hold-ms {}", cli.hold_ms));
    options.push(format!("--replies {}", replies.name()));
    options.extend(cli.no_tpcc.then(|| "--no-tpcc".to_string()));
    if !cli.replicas.is_empty() {
        let names: Vec<String> = cli.replicas.iter().map(u16::to_string).collect();
        options.push(format!("--replicas {}", names.join(",")));
    }
    options.push(match kinds.is_empty() {
        true => "--no-faults".to_string(),
        false => format!("--faults {}", kinds.join(",")),
    });
    // Both executables are built for a run; without liars that is the one of the tests.
    match cfg!(feature = "adversary") {
        true => format!("make chaos SEED={seed} CHAOS='{}'", options.join(" ")),
        false => format!("make chaos SEED={seed} FEATURES= CHAOS='{}'", options.join(" ")),
    }
}

/// The command under test stands beside this one.
fn under_test() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("steeldb-under-test");
    anyhow::ensure!(
        program.exists(),
        "{} is not there: cargo build -p steeldb-chaos --bins",
        program.display()
    );
    Ok(program)
}
