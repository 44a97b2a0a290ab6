//! SIGTERM, SIGINT and SIGHUP.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Signals this close to one another are one: `timeout` and terminals send to a process and to its group.
const TOGETHER: Duration = Duration::from_secs(1);

/// The signals that ask a process to end, SIGHUP among them: of a demo, which has nothing to reload.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    last: Option<Instant>,
}

impl Signals {
    /// From now on the signals no longer end the process by themselves. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            last: None,
        })
    }

    /// Waits for one of them; its number. Those that follow at once are part of it.
    pub(crate) async fn recv(&mut self) -> u8 {
        loop {
            let number = self.each().await;
            if self.last.is_none_or(|last| last.elapsed() > TOGETHER) {
                self.last = Some(Instant::now());
                return number;
            }
        }
    }

    /// Waits for one of them, whatever came before; its number.
    pub(crate) async fn each(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or_default()
    }
}

/// What a server is asked by signals.
pub(crate) struct Asked {
    /// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once.
    pub(crate) stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// SIGHUP: read the configuration again. Those that come before the last one is done are one.
    pub(crate) reload: mpsc::Receiver<()>,
}

/// From now on the signals no longer end the process by themselves. Call it inside a tokio runtime.
///
/// # Errors
/// When the system refuses.
pub(crate) fn asked() -> std::io::Result<Asked> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let (first, asked) = tokio::sync::oneshot::channel();
    let (reloads, reload) = mpsc::channel(1);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            let _ = reloads.try_send(());
        }
    });
    tokio::spawn(async move {
        let mut first = Some(first);
        let mut last: Option<Instant> = None;
        loop {
            let kind = tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            };
            if last.is_some_and(|last| last.elapsed() <= TOGETHER) {
                continue;
            }
            last = Some(Instant::now());
            let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
            match first.take() {
                Some(first) => {
                    tracing::info!(signal = number, "stopping");
                    let _ = first.send(());
                }
                None => {
                    tracing::warn!(signal = number, "ending at once");
                    std::process::exit(exit_code(number).into());
                }
            }
        }
    });
    let stop = Box::pin(async move {
        let _ = asked.await;
    });
    Ok(Asked { stop, reload })
}

/// What a shell reports for a process that a signal ended.
pub(crate) fn exit_code(signal: u8) -> u8 {
    signal.saturating_add(128)
}
