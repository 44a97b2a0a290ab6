//! One direction of one connection: a line on which bytes are under way.

use crate::emulator::Pair;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// About what one segment carries once the kernel has merged some.
const SEGMENT_BYTES: usize = 16 * 1024;

/// Bytes under way on one connection; then its sender waits, as with a full TCP window.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// Timers are rounded up to whole milliseconds: half of one less makes it right on the average.
const TIMER_ROUNDING: Duration = Duration::from_micros(500);

/// Passes on what comes from `reader` to `writer`, each byte when `pair` lets it arrive, until the reader ends.
///
/// # Errors
/// What either side says.
pub async fn pass_on<R, W>(mut reader: R, mut writer: W, pair: Pair) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let window = Arc::new(Semaphore::new(WINDOW_BYTES));
    let (sent, mut under_way) = mpsc::unbounded_channel();
    let reading = async {
        let mut last: Option<Instant> = None;
        loop {
            let mut bytes = Vec::with_capacity(SEGMENT_BYTES);
            if reader.read_buf(&mut bytes).await? == 0 {
                // Its end arrives after what was sent before it.
                drop(sent);
                return Ok(());
            }
            let permits = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            // Never closed.
            let Ok(permit) = Arc::clone(&window).acquire_many_owned(permits).await else { return Ok(()) };
            let mut arrival = pair.arrival(Instant::now(), bytes.len());
            arrival = last.map_or(arrival, |last| last.max(arrival));
            last = Some(arrival);
            if sent.send((arrival, bytes, permit)).is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((arrival, bytes, permit)) = under_way.recv().await {
            if arrival.saturating_duration_since(Instant::now()) > TIMER_ROUNDING {
                tokio::time::sleep_until(arrival - TIMER_ROUNDING).await;
            }
            pair.mended().await;
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            drop(permit);
        }
        writer.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_: ((), ())| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conditions, Emulator, Matrix};
    use tokio::io::DuplexStream;

    /// A line under `conditions`, its two ends, and the pair. Time is virtual in these tests.
    fn line(conditions: Conditions) -> (DuplexStream, DuplexStream, Pair) {
        let matrix = Matrix::parse("sites = ['a']").unwrap();
        let pair = Emulator::new(&matrix, 1).pair("a", "a").unwrap();
        pair.set(conditions);
        let (sender, from) = tokio::io::duplex(1 << 20);
        let (to, receiver) = tokio::io::duplex(1 << 20);
        tokio::spawn(pass_on(from, to, pair.clone()));
        (sender, receiver, pair)
    }

    async fn next(receiver: &mut DuplexStream) -> u8 {
        receiver.read_u8().await.unwrap()
    }

    fn latency(latency_ms: f64) -> Conditions {
        Conditions { latency_ms, ..Conditions::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_take_the_latency_and_many_are_under_way_at_once() {
        let (mut sender, mut receiver, _) = line(latency(100.0));
        let start = Instant::now();
        sender.write_u8(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        sender.write_u8(2).await.unwrap();
        assert_eq!(next(&mut receiver).await, 1);
        assert_eq!(start.elapsed().as_millis(), 100);
        assert_eq!(next(&mut receiver).await, 2);
        assert_eq!(start.elapsed().as_millis(), 150);
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_and_loss_delay_and_never_reorder() {
        let conditions = Conditions { jitter_ms: 30.0, loss: 0.3, ..latency(100.0) };
        let (mut sender, mut receiver, _) = line(conditions);
        tokio::spawn(async move {
            for number in 0..100 {
                sender.write_u8(number).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let start = Instant::now();
        for number in 0..100 {
            assert_eq!(next(&mut receiver).await, number);
        }
        // The last was sent at 99 ms; among a hundred at 30 % some were lost more than once.
        assert!(start.elapsed() > Duration::from_millis(300));
        assert_eq!(receiver.read(&mut [0]).await.unwrap(), 0, "the end comes, too");
    }

    #[tokio::test(start_paused = true)]
    async fn bandwidth_is_shared_by_the_connections_of_a_pair() {
        // 8 Mbit/s: a megabyte a second.
        let (mut one, mut received, pair) = line(Conditions { bandwidth_mbit: Some(8.0), ..latency(0.0) });
        let (mut two, from) = tokio::io::duplex(1 << 20);
        let (to, mut also) = tokio::io::duplex(1 << 20);
        tokio::spawn(pass_on(from, to, pair));
        let start = Instant::now();
        one.write_all(&[0; 500_000]).await.unwrap();
        two.write_all(&[0; 500_000]).await.unwrap();
        drop((one, two));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let (a, b) = tokio::join!(received.read_to_end(&mut a), also.read_to_end(&mut b));
        assert_eq!((a.unwrap(), b.unwrap()), (500_000, 500_000));
        assert_eq!(start.elapsed().as_secs_f64().round(), 1.0);
        assert!(start.elapsed() >= Duration::from_millis(999));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_holds_everything_until_it_is_mended() {
        let (mut sender, mut receiver, pair) = line(latency(10.0));
        pair.cut(true);
        sender.write_u8(7).await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_secs(60), next(&mut receiver)).await;
        assert!(nothing.is_err());
        pair.cut(false);
        assert_eq!(next(&mut receiver).await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let emulator = Emulator::new(&Matrix::parse(crate::EC2).unwrap(), seed);
            let pair = emulator.pair("oregon", "sydney").unwrap();
            let now = Instant::now();
            (0..20).map(|_| pair.arrival(now, 1) - now).collect::<Vec<_>>()
        };
        assert_eq!(delays(5), delays(5));
        assert_ne!(delays(5), delays(6));
    }
}
