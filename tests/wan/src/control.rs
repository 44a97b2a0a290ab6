//! The control port: commands, one a line, that change the network while it runs.

use crate::emulator::Emulator;
use std::fmt::Write as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a command.
const LINE_BYTES_MAX: u64 = 1024;

/// What the port understands.
const HELP: &str = "cut FROM TO | mend FROM TO | isolate SITE | rejoin SITE | heal | latency FROM TO MS | \
     jitter FROM TO MS | loss FROM TO SHARE | bandwidth FROM TO MBIT|unlimited | show";

/// Serves commands until the listener fails. Each is answered by `ok`, by what was asked, or by `error: ...`.
pub async fn serve(listener: TcpListener, emulator: Emulator) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(session(stream, emulator.clone()));
    }
}

async fn session(stream: TcpStream, emulator: Emulator) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        match (&mut reader).take(LINE_BYTES_MAX).read_line(&mut line).await {
            Ok(length) if length > 0 && line.ends_with('\n') => {}
            _ => return,
        }
        let answer = match command(&emulator, &line) {
            Ok(answer) => answer,
            Err(reason) => format!("error: {reason}\n"),
        };
        if writer.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn command(emulator: &Emulator, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pair = |from, to| emulator.pair(from, to).map_err(|error| error.to_string());
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("{text:?} is not a number"));
    match words[..] {
        ["cut", from, to] => pair(from, to)?.cut(true),
        ["mend", from, to] => pair(from, to)?.cut(false),
        ["isolate", site] => emulator.isolate(site, true).map_err(|error| error.to_string())?,
        ["rejoin", site] => emulator.isolate(site, false).map_err(|error| error.to_string())?,
        ["heal"] => emulator.heal(),
        ["show"] => return Ok(show(emulator)),
        [what @ ("latency" | "jitter" | "loss" | "bandwidth"), from, to, value] => {
            let pair = pair(from, to)?;
            let mut conditions = pair.conditions();
            match what {
                "latency" => conditions.latency_ms = number(value)?,
                "jitter" => conditions.jitter_ms = number(value)?,
                "loss" => conditions.loss = number(value)?,
                _ if value == "unlimited" => conditions.bandwidth_mbit = None,
                _ => conditions.bandwidth_mbit = Some(number(value)?),
            }
            conditions.check()?;
            pair.set(conditions);
        }
        _ => return Err(format!("what is understood: {HELP}")),
    }
    Ok("ok\n".into())
}

fn show(emulator: &Emulator) -> String {
    let mut text = String::new();
    for (from, to, pair) in emulator.pairs() {
        let c = pair.conditions();
        let cut = if pair.is_cut() { " cut" } else { "" };
        let bandwidth = c.bandwidth_mbit.map_or("unlimited".to_string(), |rate| format!("{rate} Mbit/s"));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{from} {to}: {} ms +- {}, {bandwidth}, loss {}{cut}",
            c.latency_ms, c.jitter_ms, c.loss
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;

    #[test]
    fn commands_change_the_network_and_mistakes_are_named() {
        let emulator = Emulator::new(&Matrix::parse(crate::EC2).unwrap(), 1);
        let say = |line: &str| command(&emulator, line);
        let pair = emulator.pair("oregon", "ireland").unwrap();
        assert_eq!(say("cut oregon ireland"), Ok("ok\n".into()));
        assert!(pair.is_cut() && !emulator.pair("ireland", "oregon").unwrap().is_cut());
        say("heal").unwrap();
        assert!(!pair.is_cut());
        say("isolate ireland").unwrap();
        assert!(pair.is_cut());
        say("rejoin ireland").unwrap();
        say("latency oregon ireland 5").unwrap();
        say("bandwidth oregon ireland 100").unwrap();
        assert_eq!((pair.conditions().latency_ms, pair.conditions().bandwidth_mbit), (5.0, Some(100.0)));
        say("bandwidth oregon ireland unlimited").unwrap();
        assert!(say("show").unwrap().contains("oregon ireland: 5 ms"));
        for (line, named) in [
            ("cut oregon atlantis", "atlantis"),
            ("latency oregon ireland soon", "soon"),
            ("loss oregon ireland 1", "loss is 1"),
            ("", "cut FROM TO"),
        ] {
            assert!(say(line).unwrap_err().contains(named), "{line}");
        }
        assert_eq!(pair.conditions().loss, 0.0);
    }
}
