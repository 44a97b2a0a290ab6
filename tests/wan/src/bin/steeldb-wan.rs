//! `steeldb-wan`: relays between sites, and how accurate they are.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use steeldb_wan::{EC2, Emulator, Matrix, Relay, RelayConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

#[derive(Parser)]
#[command(
    name = "steeldb-wan",
    about = "A wide-area network between processes of one machine.",
    after_help = "Examples:\n  steeldb-wan run --relays relays.toml\n  steeldb-wan run --relays relays.toml --control 127.0.0.1:7900\n  steeldb-wan accuracy --matrix middleware/sites/matrices/ec2.toml\n\nrelays.toml:\n  [[relay]]\n  from = \"oregon\"\n  to = \"ireland\"\n  listen = \"127.0.0.1:7101\"\n  target = \"127.0.0.1:7001\""
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run relays until the process is ended
    Run {
        /// The relays, TOML
        #[arg(long)]
        relays: PathBuf,
        /// What is between the sites, TOML; without it five regions of Amazon EC2
        #[arg(long)]
        matrix: Option<PathBuf>,
        /// Where commands are taken, one a line; an empty line lists them
        #[arg(long, value_name = "HOST:PORT")]
        control: Option<String>,
        /// What delays are drawn from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Measure the round trip of every pair of sites through relays, beside what it should be
    Accuracy {
        /// As with `run`
        #[arg(long)]
        matrix: Option<PathBuf>,
        /// Round trips of each pair
        #[arg(long, default_value_t = 30)]
        count: u32,
        /// As with `run`
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Relays {
    relay: Vec<RelayConfig>,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Cli::parse().command {
        Command::Run { relays, matrix, control, seed } => {
            runtime.block_on(run(&relays, matrix.as_deref(), control, seed))
        }
        Command::Accuracy { matrix, count, seed } => {
            runtime.block_on(accuracy(&read_matrix(matrix.as_deref())?, count, seed))
        }
    }
}

fn read_matrix(path: Option<&Path>) -> anyhow::Result<Matrix> {
    match path {
        None => Ok(Matrix::parse(EC2)?),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Matrix::parse(&text).with_context(|| path.display().to_string())
        }
    }
}

async fn run(relays: &Path, matrix: Option<&Path>, control: Option<String>, seed: u64) -> anyhow::Result<()> {
    let emulator = Emulator::new(&read_matrix(matrix)?, seed);
    let text = std::fs::read_to_string(relays).with_context(|| relays.display().to_string())?;
    let relays: Relays = toml::from_str(&text).with_context(|| relays.display().to_string())?;
    let mut running = Vec::new();
    for config in relays.relay {
        let said = format!("{} -> {}: {}", config.from, config.to, config.target);
        let relay = Relay::start(&emulator, config).await?;
        println!("{said} at {}", relay.address());
        running.push(relay);
    }
    if let Some(address) = control {
        let listener =
            TcpListener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
        println!("control at {}", listener.local_addr()?);
        tokio::spawn(steeldb_wan::serve_control(listener, emulator));
    }
    println!("ready");
    std::future::pending::<()>().await;
    drop(running);
    Ok(())
}

/// Ping-pong over TCP through a relay for each pair of sites, all pairs at the same time.
async fn accuracy(matrix: &Matrix, count: u32, seed: u64) -> anyhow::Result<()> {
    let emulator = Emulator::new(matrix, seed);
    let echo = TcpListener::bind("127.0.0.1:0").await?;
    let target = echo.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let sites: Vec<&str> = matrix.sites().collect();
    let mut pairs = Vec::new();
    for (index, a) in sites.iter().enumerate() {
        for b in &sites[index..] {
            let config = RelayConfig {
                from: a.to_string(),
                to: b.to_string(),
                listen: "127.0.0.1:0".into(),
                target: target.clone(),
            };
            let relay = Relay::start(&emulator, config).await?;
            let measured = tokio::spawn(ping(relay, count));
            pairs.push((*a, *b, measured));
        }
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["between", "should be, ms", "mean", "p50", "p99"]);
    for (a, b, measured) in pairs {
        let micros = measured.await??;
        let ms = |micros: f64| format!("{:.2}", micros / 1e3);
        table.add_row([
            format!("{a} - {b}"),
            format!("{:.2}", matrix.round_trip_ms(a, b).unwrap_or_default()),
            ms(micros.mean()),
            ms(micros.value_at_quantile(0.5) as f64),
            ms(micros.value_at_quantile(0.99) as f64),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn ping(relay: Relay, count: u32) -> anyhow::Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(relay.address()).await?;
    stream.set_nodelay(true)?;
    // A minute is beyond every round trip of interest.
    let mut micros = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    // The first round trip has the handshake in it.
    for number in 0..=count {
        let start = Instant::now();
        stream.write_u8(1).await?;
        stream.read_u8().await?;
        if number > 0 {
            micros.saturating_record(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
    Ok(micros)
}
