//! Nodes on loopback: replicas, clients and strangers.

use crate::dial::Dialler;
use crate::*;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use steeldb_types::ClientId;
use steeldb_wire::auth::SecretKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

const CLIENT: ClientId = ClientId(7);

fn replica_key(id: u16) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 1; 32])
}

fn client_key() -> SecretKey {
    SecretKey::from_seed(&[100; 32])
}

fn stranger_key() -> SecretKey {
    SecretKey::from_seed(&[200; 32])
}

fn options() -> LinkOptions {
    LinkOptions { redial_pause_max: Duration::from_millis(200), ..LinkOptions::default() }
}

fn r(id: u16) -> ReplicaId {
    ReplicaId(id)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn address(id: u16, at: SocketAddr) -> ReplicaAddress {
    ReplicaAddress { id: r(id), address: at.to_string(), key: replica_key(id).public() }
}

fn config(id: u16, peers: &[ReplicaAddress], options: LinkOptions) -> ReplicaConfig {
    ReplicaConfig {
        id: r(id),
        key: replica_key(id),
        listen: peers[usize::from(id)].address.clone(),
        peers: peers.to_vec(),
        clients: vec![(CLIENT, client_key().public())],
        options,
    }
}

type Node = (ReplicaLinks, Receiver<LinkEvent>);

/// `n` replicas, listening before any of them dials.
async fn replicas(n: u16, options: LinkOptions) -> (Vec<ReplicaAddress>, Vec<Node>) {
    let mut listeners = Vec::new();
    for _ in 0..n {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> =
        (0..n).map(|id| address(id, listeners[usize::from(id)].local_addr().unwrap())).collect();
    let nodes = listeners
        .into_iter()
        .zip(0..)
        .map(|(listener, id)| ReplicaTransport::start_on(listener, config(id, &addresses, options)).unwrap());
    let nodes = nodes.collect();
    (addresses, nodes)
}

async fn one_replica(options: LinkOptions) -> (Vec<ReplicaAddress>, ReplicaLinks, Receiver<LinkEvent>) {
    let (addresses, mut nodes) = replicas(1, options).await;
    let (links, events) = nodes.remove(0);
    (addresses, links, events)
}

fn client(replicas: &[ReplicaAddress], options: LinkOptions) -> (ClientLinks, Receiver<ClientEvent>) {
    let config = ClientConfig { client: CLIENT, key: client_key(), replicas: replicas.to_vec(), options };
    ClientTransport::start(config).unwrap()
}

fn dialler(to: &ReplicaAddress, own: SecretKey) -> Dialler {
    Dialler::new(to.clone(), &own, options(), CancellationToken::new(), Default::default()).unwrap()
}

/// An authenticated connection of the client that can be made to misbehave.
async fn raw_client(to: &ReplicaAddress) -> tls::Stream {
    let connector = tls::connector(&client_key(), to.key).unwrap();
    let tcp = TcpStream::connect(to.address.as_str()).await.unwrap();
    let mut stream = tls::connect(&connector, tcp).await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0, "the welcome");
    stream
}

async fn client_up(events: &mut Receiver<LinkEvent>) -> ConnectionId {
    match events.recv().await {
        Some(LinkEvent::ClientUp(connection, CLIENT)) => connection,
        other => panic!("{other:?}"),
    }
}

/// Reads until the other side closes, however it does so.
async fn closed_by_peer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
}

/// Asserts that the replica still serves a well-behaved client.
async fn still_serves(addresses: &[ReplicaAddress], links: &ReplicaLinks, events: &mut Receiver<LinkEvent>) {
    let (client_links, mut client_events) = client(addresses, options());
    let connection = client_up(events).await;
    assert_eq!(client_events.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    assert!(client_links.send(r(0), bytes("ping")));
    assert_eq!(events.recv().await, Some(LinkEvent::ClientFrame(connection, bytes("ping"))));
    assert!(links.send_client(connection, bytes("pong")));
    assert_eq!(client_events.recv().await, Some(ClientEvent::Frame(r(0), bytes("pong"))));
    client_links.stop();
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
}

#[tokio::test]
async fn four_replicas_exchange_frames_both_ways_in_order() {
    const FRAMES: u32 = 2000;
    let (_, nodes) = replicas(4, options()).await;
    let mut tasks = Vec::new();
    for (id, (links, mut events)) in nodes.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            let mut up = 0;
            let mut expected = [0u32; 4];
            while expected.iter().sum::<u32>() < 3 * FRAMES {
                match events.recv().await.unwrap() {
                    LinkEvent::PeerUp(_) => {
                        up += 1;
                        if up == 3 {
                            for number in 0..FRAMES {
                                links.broadcast(Bytes::copy_from_slice(&number.to_be_bytes()));
                            }
                        }
                    }
                    LinkEvent::PeerFrame(peer, frame) => {
                        assert_ne!(usize::from(peer.0), id);
                        let next = &mut expected[usize::from(peer.0)];
                        assert_eq!(frame.as_ref(), next.to_be_bytes());
                        *next += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            // Both are kept: dropping them would end the links while others still read.
            (links, events)
        }));
    }
    let mut ended = Vec::new();
    for task in tasks {
        ended.push(task.await.unwrap());
    }
}

#[tokio::test]
async fn a_client_reaches_all_replicas_and_may_connect_twice() {
    let (addresses, mut nodes) = replicas(2, options()).await;
    let (links, mut events) = client(&addresses, options());
    let (_second, mut second_events) = client(&addresses, options());
    for client_events in [&mut events, &mut second_events] {
        for _ in 0..2 {
            assert!(matches!(client_events.recv().await, Some(ClientEvent::ReplicaUp(_))));
        }
    }
    links.broadcast(bytes("to all"));
    for (_, replica_events) in &mut nodes {
        let mut connections = Vec::new();
        let from = loop {
            match replica_events.recv().await.unwrap() {
                LinkEvent::ClientUp(connection, CLIENT) => connections.push(connection),
                LinkEvent::ClientFrame(connection, frame) => {
                    assert_eq!(frame, "to all");
                    break connection;
                }
                LinkEvent::PeerUp(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(connections.contains(&from));
    }
}

#[tokio::test]
async fn what_goes_over_links_is_counted_on_both_sides() {
    let (addresses, links, mut events) = one_replica(options()).await;
    still_serves(&addresses, &links, &mut events).await;
    let told = links.client_traffic()[&CLIENT];
    // A ping and a pong of four bytes each, with their headers.
    assert_eq!((told.frames_sent, told.bytes_sent, told.frames_received, told.bytes_received), (1, 8, 1, 8));
    assert_eq!((told.links, told.failures), (1, 0));
    let stranger = dialler(&addresses[0], stranger_key());
    assert!(stranger.connect().await.is_err());
    while links.refusals() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(links.refusals(), 1);
    still_serves(&addresses, &links, &mut events).await;
    assert_eq!(links.client_traffic()[&CLIENT].links, 2);

    let (client_links, mut client_events) = client(&addresses, options());
    assert_eq!(client_events.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    assert!(client_links.send(r(0), bytes("ping")));
    let connection = client_up(&mut events).await;
    assert_eq!(events.recv().await, Some(LinkEvent::ClientFrame(connection, bytes("ping"))));
    assert_eq!(client_links.traffic()[&r(0)].links, 1);
}

#[tokio::test]
async fn a_client_that_is_closed_still_gets_what_was_queued() {
    let (addresses, links, mut events) = one_replica(options()).await;
    let (_client_links, mut client_events) = client(&addresses, options());
    let connection = client_up(&mut events).await;
    assert!(links.send_client(connection, bytes("last words")));
    links.close_client(connection);
    assert!(!links.send_client(connection, bytes("too late")));
    assert_eq!(client_events.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    assert_eq!(client_events.recv().await, Some(ClientEvent::Frame(r(0), bytes("last words"))));
    assert_eq!(client_events.recv().await, Some(ClientEvent::ReplicaDown(r(0))));
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
    assert_eq!(links.client_backlog(connection), None);
}

#[tokio::test]
async fn a_key_that_is_not_configured_is_refused_by_the_listener() {
    let (addresses, links, mut events) = one_replica(options()).await;
    let refused = dialler(&addresses[0], stranger_key()).connect().await;
    assert!(refused.is_err());
    // A peer's key is no way in either, when it is this side that dials that peer.
    let (two, nodes) = replicas(2, options()).await;
    let refused = dialler(&two[1], replica_key(0)).connect().await;
    assert!(matches!(refused, Err(LinkError::NotWelcome | LinkError::Io(_))));
    drop(nodes);
    still_serves(&addresses, &links, &mut events).await;
    assert_eq!(links.refused(), 1);
}

#[tokio::test]
async fn a_key_that_is_not_the_expected_one_is_refused_by_the_dialler() {
    let (mut addresses, links, mut events) = one_replica(options()).await;
    let right = addresses[0].clone();
    addresses[0].key = stranger_key().public();
    let refused = dialler(&addresses[0], client_key()).connect().await;
    assert!(matches!(refused, Err(LinkError::Io(_))));
    still_serves(&[right], &links, &mut events).await;
}

#[tokio::test]
async fn garbage_disturbs_nothing() {
    let (addresses, links, mut events) = one_replica(options()).await;
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 5000], &[0x16, 0x03, 0x01, 0x40, 0x00], &[0; 5]];
    for bytes in garbage {
        let mut tcp = TcpStream::connect(addresses[0].address.as_str()).await.unwrap();
        // The replica may close before all is written.
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        closed_by_peer(&mut tcp).await;
    }
    still_serves(&addresses, &links, &mut events).await;
    assert_eq!(links.refused(), garbage.len() as u64);
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed() {
    let short = LinkOptions { handshake_timeout: Duration::from_millis(20), ..options() };
    let (addresses, _links, _events) = one_replica(short).await;
    let mut silent = TcpStream::connect(addresses[0].address.as_str()).await.unwrap();
    closed_by_peer(&mut silent).await;
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out() {
    let few = LinkOptions { half_open_max: 2, ..options() };
    let (addresses, links, mut events) = one_replica(few).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(addresses[0].address.as_str()).await.unwrap());
    }
    for tcp in &mut silent[..3] {
        closed_by_peer(tcp).await;
    }
    still_serves(&addresses, &links, &mut events).await;
}

#[tokio::test]
async fn half_a_frame_ends_the_link_and_delivers_nothing() {
    let (addresses, links, mut events) = one_replica(options()).await;
    let mut stream = raw_client(&addresses[0]).await;
    let connection = client_up(&mut events).await;
    stream.write_all(&[0, 0, 0, 9, b'h', b'a', b'l', b'f']).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
    still_serves(&addresses, &links, &mut events).await;
}

#[tokio::test]
async fn an_oversized_frame_ends_the_link_before_it_is_read() {
    let (addresses, links, mut events) = one_replica(options()).await;
    let mut stream = raw_client(&addresses[0]).await;
    let connection = client_up(&mut events).await;
    stream.write_u32(steeldb_types::limits::FRAME_BYTES_MAX as u32 + 1).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
    closed_by_peer(&mut stream).await;
    still_serves(&addresses, &links, &mut events).await;
}

#[tokio::test]
async fn a_frame_of_exactly_the_bound_passes_and_a_larger_one_is_not_sent() {
    let bounded = LinkOptions { frame_bytes_max: 100_000, ..options() };
    let (addresses, links, mut events) = one_replica(bounded).await;
    let (_client_links, mut client_events) = client(&addresses, bounded);
    let connection = client_up(&mut events).await;
    assert_eq!(client_events.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    assert!(!links.send_client(connection, vec![1; 100_001].into()));
    assert!(links.send_client(connection, vec![1; 100_000].into()));
    assert_eq!(client_events.recv().await, Some(ClientEvent::Frame(r(0), vec![1; 100_000].into())));
}

#[tokio::test]
async fn too_many_connections_of_one_client_are_refused() {
    let few = LinkOptions { connections_per_client_max: 1, ..options() };
    let (addresses, _links, mut events) = one_replica(few).await;
    let first = raw_client(&addresses[0]).await;
    let connection = client_up(&mut events).await;
    assert!(dialler(&addresses[0], client_key()).connect().await.is_err());
    drop(first);
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
    let _second = raw_client(&addresses[0]).await;
    assert_ne!(client_up(&mut events).await, connection);
}

#[tokio::test]
async fn a_peer_that_restarts_is_found_again_from_both_sides() {
    let (addresses, mut nodes) = replicas(2, options()).await;
    // The lower one is dialled, the higher one dials: each is restarted once.
    for restarted in [0u16, 1] {
        let (other, me) = (1 - usize::from(restarted), usize::from(restarted));
        let (links, mut events) = nodes.remove(me);
        let survivor = nodes.remove(0);
        let (survivor_links, mut survivor_events) = survivor;
        assert_eq!(survivor_events.recv().await, Some(LinkEvent::PeerUp(r(restarted))));
        assert_eq!(events.recv().await, Some(LinkEvent::PeerUp(r(other as u16))));
        links.stop();
        while events.recv().await.is_some() {}
        assert_eq!(survivor_events.recv().await, Some(LinkEvent::PeerDown(r(restarted))));
        let (new_links, mut new_events) =
            ReplicaTransport::start(config(restarted, &addresses, options())).await.unwrap();
        assert_eq!(survivor_events.recv().await, Some(LinkEvent::PeerUp(r(restarted))));
        assert_eq!(new_events.recv().await, Some(LinkEvent::PeerUp(r(other as u16))));
        assert!(survivor_links.send_peer(r(restarted), bytes("welcome back")));
        assert_eq!(
            new_events.recv().await,
            Some(LinkEvent::PeerFrame(r(other as u16), bytes("welcome back")))
        );
        // The next round starts afresh.
        for (links, mut events) in [(new_links, new_events), (survivor_links, survivor_events)] {
            links.stop();
            while events.recv().await.is_some() {}
        }
        if restarted == 0 {
            nodes.clear();
            for id in 0..2 {
                nodes.push(ReplicaTransport::start(config(id, &addresses, options())).await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn links_open_and_close_as_the_peers_change() {
    let (addresses, mut nodes) = replicas(3, options()).await;
    let (newcomer, mut newcomer_events) = nodes.remove(2);
    let (one, mut one_events) = nodes.remove(1);
    let (zero, mut zero_events) = nodes.remove(0);
    let up = |events: Vec<Option<LinkEvent>>| {
        let mut ids: Vec<u16> = events
            .into_iter()
            .map(|event| match event {
                Some(LinkEvent::PeerUp(peer)) => peer.0,
                other => panic!("{other:?}"),
            })
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(up(vec![zero_events.recv().await, zero_events.recv().await]), [1, 2]);
    assert_eq!(up(vec![one_events.recv().await, one_events.recv().await]), [0, 2]);
    assert_eq!(up(vec![newcomer_events.recv().await, newcomer_events.recv().await]), [0, 1]);
    // Removed: its links end, and it is let in no more.
    zero.set_peers(addresses[..2].to_vec()).unwrap();
    assert_eq!(zero_events.recv().await, Some(LinkEvent::PeerDown(r(2))));
    assert_eq!(newcomer_events.recv().await, Some(LinkEvent::PeerDown(r(0))));
    assert!(!zero.send_peer(r(2), bytes("nothing")) && zero.send_peer(r(1), bytes("still there")));
    assert_eq!(one_events.recv().await, Some(LinkEvent::PeerFrame(r(0), bytes("still there"))));
    let refused = dialler(&addresses[0], replica_key(2)).connect().await;
    assert!(refused.is_err());
    // Added again, by whom it dials, and by one that dials it and believes it elsewhere at first.
    zero.set_peers(addresses.clone()).unwrap();
    assert_eq!(zero_events.recv().await, Some(LinkEvent::PeerUp(r(2))));
    newcomer.stop();
    while newcomer_events.recv().await.is_some() {}
    assert_eq!(one_events.recv().await, Some(LinkEvent::PeerDown(r(2))));
    let moved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = address(1, moved.local_addr().unwrap());
    one.stop();
    while one_events.recv().await.is_some() {}
    let (_one, mut one_events) = ReplicaTransport::start_on(moved, config(1, &addresses, options())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (newcomer, mut newcomer_events) =
        ReplicaTransport::start_on(listener, config(2, &addresses, options())).unwrap();
    assert_eq!(newcomer_events.recv().await, Some(LinkEvent::PeerUp(r(0))));
    newcomer.set_peers(vec![addresses[0].clone(), place]).unwrap();
    assert_eq!(newcomer_events.recv().await, Some(LinkEvent::PeerUp(r(1))));
    assert_eq!(up(vec![one_events.recv().await, one_events.recv().await]), [0, 2]);
    // A key stands for one node.
    let twice = ReplicaAddress { id: r(7), ..addresses[0].clone() };
    assert!(newcomer.set_peers(vec![addresses[0].clone(), twice]).is_err());
    assert!(newcomer.is_up(r(0)) && newcomer.is_up(r(1)));
}

#[tokio::test]
async fn a_newer_link_of_a_peer_takes_the_place_of_the_older_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = address(0, listener.local_addr().unwrap());
    let nowhere = address(1, "127.0.0.1:9".parse().unwrap());
    let (_links, mut events) =
        ReplicaTransport::start_on(listener, config(0, &[at.clone(), nowhere], options())).unwrap();
    let _first = dialler(&at, replica_key(1)).connect().await.unwrap();
    assert_eq!(events.recv().await, Some(LinkEvent::PeerUp(r(1))));
    let _second = dialler(&at, replica_key(1)).connect().await.unwrap();
    assert_eq!(events.recv().await, Some(LinkEvent::PeerDown(r(1))));
    assert_eq!(events.recv().await, Some(LinkEvent::PeerUp(r(1))));
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_link_at_the_bound() {
    let small = LinkOptions { queue_bytes_max: 1 << 20, ..options() };
    let (addresses, links, mut events) = one_replica(small).await;
    let mut stream = raw_client(&addresses[0]).await;
    let connection = client_up(&mut events).await;
    let frame = Bytes::from(vec![0; 64 * 1024]);
    let mut sent = 0;
    while links.send_client(connection, frame.clone()) {
        sent += 1;
        assert!(links.client_backlog(connection).unwrap_or_default() <= small.queue_bytes_max);
        assert!(sent < 10_000, "600 MiB do not fit into the buffers of a socket");
        tokio::task::yield_now().await;
    }
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
    closed_by_peer(&mut stream).await;
    still_serves(&addresses, &links, &mut events).await;
}

#[tokio::test]
async fn a_slow_consumer_loses_nothing() {
    let tiny = LinkOptions { events_max: 1, ..options() };
    let (addresses, _links, mut events) = one_replica(tiny).await;
    let (client_links, mut client_events) = client(&addresses, options());
    assert_eq!(client_events.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    for number in 0..5000u32 {
        assert!(client_links.send(r(0), Bytes::copy_from_slice(&number.to_be_bytes())));
    }
    let connection = client_up(&mut events).await;
    for number in 0..5000u32 {
        let frame = Bytes::copy_from_slice(&number.to_be_bytes());
        assert_eq!(events.recv().await, Some(LinkEvent::ClientFrame(connection, frame)));
    }
}

#[tokio::test]
async fn frames_that_are_not_done_with_are_bounded_in_bytes_over_all_links() {
    let little = LinkOptions { event_bytes_max: 100_000, ..options() };
    let (addresses, _links, mut events) = one_replica(little).await;
    let (one_links, mut one) = client(&addresses, options());
    assert_eq!(one.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    let first = client_up(&mut events).await;
    let frame = Bytes::from(vec![7; 60_000]);
    for _ in 0..3 {
        assert!(one_links.send(r(0), frame.clone()));
    }
    // Whoever keeps a frame keeps its room: the second one is read, and not handed over.
    let Some(LinkEvent::ClientFrame(_, held)) = events.recv().await else { panic!("a frame was sent") };
    // That a link is up takes no room.
    let (_two_links, mut two) = client(&addresses, options());
    assert_eq!(two.recv().await, Some(ClientEvent::ReplicaUp(r(0))));
    client_up(&mut events).await;
    assert!(events.try_recv().is_err());
    drop(held);
    for _ in 0..2 {
        assert_eq!(events.recv().await, Some(LinkEvent::ClientFrame(first, frame.clone())));
    }
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = address(0, listener.local_addr().unwrap());
    let Err(error) = ReplicaTransport::start(config(0, std::slice::from_ref(&at), options())).await else {
        panic!("the port is taken")
    };
    assert!(error.to_string().contains(&at.address), "{error}");
}

#[tokio::test]
async fn keys_and_numbers_stand_for_one_node_each() {
    let at = |id| address(id, "127.0.0.1:0".parse().unwrap());
    let listener = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let mut same_key = config(0, &[at(0), at(1)], options());
    same_key.clients.push((ClientId(8), replica_key(1).public()));
    let refused = ReplicaTransport::start_on(listener().await, same_key);
    assert!(matches!(refused, Err(StartError::RepeatedKey(_))));
    let same_id = config(0, &[at(0), at(1), at(1)], options());
    let refused = ReplicaTransport::start_on(listener().await, same_id);
    assert!(matches!(refused, Err(StartError::RepeatedId(_))));
}

/// Connects with a key of its own; whoever it is.
async fn raw_guest(to: &ReplicaAddress, seed: u8) -> tls::Stream {
    let connector = tls::connector(&SecretKey::from_seed(&[seed; 32]), to.key).unwrap();
    let tcp = TcpStream::connect(to.address.as_str()).await.unwrap();
    let mut stream = tls::connect(&connector, tcp).await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0, "the welcome");
    stream
}

async fn guest_up(events: &mut Receiver<LinkEvent>, seed: u8) -> ConnectionId {
    let expected = SecretKey::from_seed(&[seed; 32]).public();
    match events.recv().await {
        Some(LinkEvent::GuestUp(connection, key)) if key == expected => connection,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_guest_is_known_by_its_key_and_sends_small_frames_only() {
    let options = LinkOptions { guests_max: 4, guest_frame_bytes_max: 100, ..options() };
    let (addresses, links, mut events) = one_replica(options).await;
    let mut guest = raw_guest(&addresses[0], 150).await;
    let connection = guest_up(&mut events, 150).await;
    guest.write_u32(5).await.unwrap();
    guest.write_all(b"hello").await.unwrap();
    guest.flush().await.unwrap();
    assert_eq!(events.recv().await, Some(LinkEvent::ClientFrame(connection, bytes("hello"))));
    assert!(links.send_client(connection, bytes("welcome")));
    assert_eq!(guest.read_u32().await.unwrap(), 7);
    guest.write_u32(101).await.unwrap();
    guest.flush().await.unwrap();
    assert_eq!(events.recv().await, Some(LinkEvent::ClientDown(connection)));
}

#[tokio::test]
async fn guests_crowd_each_other_out_and_never_who_is_welcome() {
    let options = LinkOptions { guests_max: 2, ..options() };
    let (addresses, links, mut events) = one_replica(options).await;
    let mut first = raw_guest(&addresses[0], 150).await;
    let first_connection = guest_up(&mut events, 150).await;
    links.welcome(SecretKey::from_seed(&[150; 32]).public(), true);
    let mut kept = Vec::new();
    for seed in 151..153 {
        kept.push(raw_guest(&addresses[0], seed).await);
        guest_up(&mut events, seed).await;
    }
    let _another = raw_guest(&addresses[0], 153).await;
    closed_by_peer(&mut kept[0]).await;
    let mut seen = [events.recv().await.unwrap(), events.recv().await.unwrap()];
    seen.sort_by_key(|event| matches!(event, LinkEvent::GuestUp(..)));
    assert!(matches!(seen, [LinkEvent::ClientDown(_), LinkEvent::GuestUp(..)]), "{seen:?}");
    assert!(links.send_client(first_connection, bytes("still here")));
    assert_eq!(first.read_u32().await.unwrap(), 10);
    links.welcome(SecretKey::from_seed(&[150; 32]).public(), false);
    let _one_more = raw_guest(&addresses[0], 154).await;
    closed_by_peer(&mut first).await;
}
