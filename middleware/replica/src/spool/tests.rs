use super::*;
use std::fs::OpenOptions;
use std::sync::mpsc;

const MEGABYTE: usize = 1024 * 1024;

fn tx(counter: u64) -> TxId {
    TxId { counter, ..TxId::default() }
}

fn open(directory: &Path) -> (Copies, Writing, mpsc::Receiver<TxId>) {
    let (sender, reports) = mpsc::channel();
    let (spool, writing) = Spool::open(directory, move |tx| sender.send(tx).unwrap_or_default()).unwrap();
    (Copies::new(spool), writing, reports)
}

/// A chunk that is told from others.
fn chunk(number: usize, length: usize) -> Bytes {
    Bytes::from((0..length).map(|at| (number * 31 + at * 7) as u8).collect::<Vec<u8>>())
}

async fn rest(reader: &mut Reader) -> (Vec<u8>, Next) {
    let mut read = Vec::new();
    loop {
        match reader.next().await {
            Next::Bytes(bytes) => read.extend_from_slice(&bytes),
            end => return (read, end),
        }
    }
}

/// All that was handed to the thread is done.
fn settle(spool: &Spool, data: &Data) {
    let waits = || {
        let state = lock(&data.0.state);
        state.lost.is_none() && state.blocks.iter().any(|block| matches!(block, Block::Waiting(_)))
    };
    while waits() || !lock(&spool.0.queue).jobs.is_empty() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_is_read_is_what_was_written_in_memory_and_on_disk_as_often_as_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut copies, _writing, _) = open(directory.path());
    let data = copies.of(tx(1), 1);
    let mut all = Vec::new();
    for (number, length) in
        [1, 100, MEGABYTE, 5, BLOCK_BYTES, 17 * MEGABYTE, 3, 2 * MEGABYTE].into_iter().enumerate()
    {
        let chunk = chunk(number, length);
        all.extend_from_slice(&chunk);
        data.push(chunk);
    }
    data.end(None);
    data.end(Some("the first end counts".into()));
    data.push(chunk(0, 10));
    settle(&copies.spool, &data);
    assert!(copies.bytes_on_disk() >= 17 * MEGABYTE as u64);
    assert!(data.0.memory.load(Ordering::Relaxed) <= limits::COPY_MEMORY_BYTES);
    for _ in 0..2 {
        let (read, end) = rest(&mut data.reader(false)).await;
        assert!(read == all);
        assert_eq!(end, Next::End(None));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files have no name");
    drop(data);
    copies.drop(tx(1), None);
    while copies.bytes_on_disk() > 0 {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn up_to_16_mib_of_a_transaction_stay_in_memory_and_not_a_byte_more() {
    let directory = tempfile::tempdir().unwrap();
    let (mut copies, _writing, _) = open(directory.path());
    let (first, second) = (copies.of(tx(1), 1), copies.of(tx(1), 2));
    for number in 0..limits::COPY_MEMORY_BYTES / MEGABYTE - 1 {
        first.push(chunk(number, MEGABYTE));
    }
    second.push(chunk(0, MEGABYTE));
    settle(&copies.spool, &second);
    assert_eq!(copies.bytes_on_disk(), 0);
    second.push(chunk(1, BLOCK_BYTES));
    settle(&copies.spool, &second);
    assert_eq!(copies.bytes_on_disk(), BLOCK_BYTES as u64);
    let other = copies.of(tx(2), 1);
    other.push(chunk(2, MEGABYTE));
    settle(&copies.spool, &other);
    assert_eq!(copies.bytes_on_disk(), BLOCK_BYTES as u64, "another transaction has its own");
    // What was taken leaves room.
    drop(first);
    copies.drop(tx(1), Some(1));
    second.push(chunk(3, MEGABYTE));
    settle(&copies.spool, &second);
    assert_eq!(copies.bytes_on_disk(), BLOCK_BYTES as u64);
}

#[tokio::test]
async fn a_reader_that_consumes_lets_go_of_what_it_has_read_and_waits_for_more() {
    let directory = tempfile::tempdir().unwrap();
    let (mut copies, _writing, _) = open(directory.path());
    let data = copies.of(tx(1), 1);
    let mut reader = data.reader(true);
    for number in 0..40 {
        data.push(chunk(number, MEGABYTE));
        assert_eq!(reader.next().await, Next::Bytes(chunk(number, MEGABYTE)));
    }
    settle(&copies.spool, &data);
    assert_eq!(copies.bytes_on_disk(), 0, "who keeps pace needs no disk");
    data.push(chunk(1, 3));
    assert_eq!(reader.next().await, Next::Bytes(chunk(1, 3)), "less than a block is not kept back");
    let mut waits = std::pin::pin!(reader.next());
    assert!(
        std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context).is_pending()))
            .await
    );
    data.end(Some("no more".into()));
    assert_eq!(waits.await, Next::End(Some("no more".into())));
}

#[tokio::test]
async fn a_small_frame_is_not_noted_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (mut copies, _writing, _) = open(directory.path());
    let data = copies.of(tx(1), 1);
    for _ in 0..10 * BLOCK_BYTES {
        data.push(Bytes::from_static(b"x"));
    }
    assert_eq!(lock(&data.0.state).blocks.len(), 10);
}

#[tokio::test]
async fn a_full_disk_is_told_with_53100_and_what_is_lost_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, reports) = mpsc::channel();
    let full = |_: &Path| OpenOptions::new().read(true).write(true).open("/dev/full");
    let (spool, _writing) =
        Spool::with(directory.path(), full, Box::new(move |tx| sender.send(tx).unwrap_or_default())).unwrap();
    let mut copies = Copies::new(spool);
    let data = copies.of(tx(7), 1);
    for number in 0..17 {
        data.push(chunk(number, MEGABYTE));
    }
    assert_eq!(reports.recv().unwrap(), tx(7));
    let Next::Lost(lost) = data.reader(false).next().await else { panic!("they are lost") };
    assert_eq!(lost.sqlstate, "53100");
    data.push(chunk(1, MEGABYTE));
    assert_eq!(data.0.memory.load(Ordering::Relaxed), 0, "what is lost takes no room");
}

#[tokio::test]
async fn a_byte_that_changed_on_disk_is_an_error_and_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut copies, _writing, reports) = open(directory.path());
    let data = copies.of(tx(1), 1);
    data.push(chunk(1, 17 * MEGABYTE));
    data.end(None);
    settle(&copies.spool, &data);
    let file = lock(&data.0.state).file.clone().unwrap();
    file.write_all_at(&[0xff, 0x00, 0xff], 1000).unwrap();
    let (read, end) = rest(&mut data.reader(false)).await;
    assert!(read.is_empty());
    assert!(matches!(end, Next::Lost(Lost { sqlstate: "58030", .. })), "{end:?}");
    assert_eq!(reports.recv().unwrap(), tx(1));
}

#[tokio::test]
async fn what_waits_for_the_disk_keeps_its_frame_and_nothing_else_does() {
    struct Frame {
        bytes: Vec<u8>,
        _room: Arc<()>,
    }
    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut copies, _writing, _) = open(directory.path());
    let data = copies.of(tx(1), 1);
    let room = Arc::new(());
    let frame = |length: usize| Bytes::from_owner(Frame { bytes: vec![1; length], _room: Arc::clone(&room) });
    data.push(frame(16 * MEGABYTE));
    assert_eq!(Arc::strong_count(&room), 1, "what stays in memory is a copy");
    data.push(frame(MEGABYTE));
    settle(&copies.spool, &data);
    assert_eq!(Arc::strong_count(&room), 1, "what is written lets go of it");
}

#[test]
fn what_an_earlier_process_left_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("left"), "over").unwrap();
    drop(open(directory.path()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
