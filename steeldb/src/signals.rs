//! SIGTERM, SIGINT and SIGHUP.

use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals this close to one another are one: `timeout` and terminals send to a process and to its group.
const TOGETHER: Duration = Duration::from_secs(1);

/// The signals that ask a process to end.
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

/// Resolves at the first of the signals; the second one ends the process at once.
///
/// # Errors
/// When the system refuses.
pub(crate) fn shutdown() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::new()?;
    let (first, asked) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let number = signals.recv().await;
        tracing::info!(signal = number, "stopping");
        let _ = first.send(());
        let number = signals.recv().await;
        tracing::warn!(signal = number, "ending at once");
        std::process::exit(exit_code(number).into());
    });
    Ok(async move {
        let _ = asked.await;
    })
}

/// What a shell reports for a process that a signal ended.
pub(crate) fn exit_code(signal: u8) -> u8 {
    signal.saturating_add(128)
}
