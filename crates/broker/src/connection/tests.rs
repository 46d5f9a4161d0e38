use bytes::Bytes;
use evermq_bridge::{Hold, Message, Stamp};
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::broker::tests::{FakeMesh, broker, connect};
use crate::mailbox::Wakes;
use crate::message::{Delivery, Origin, Shared};
use crate::rate::Rates;

/// A connection over a pipe, on a clock that stands still unless everyone waits.
struct Pair {
    client: DuplexStream,
    received: BytesMut,
    mesh: Arc<FakeMesh>,
    broker: Arc<Broker>,
    task: tokio::task::JoinHandle<()>,
}

impl Pair {
    async fn new(connect: Connect, pipe: usize) -> Self {
        Self::metered(connect, pipe, None).await
    }

    async fn metered(connect: Connect, pipe: usize, rates: Option<Rates>) -> Self {
        let (broker, mesh) = broker();
        let (client, server) = tokio::io::duplex(pipe);
        let version = connect.version;
        broker.rates.set(rates);
        let accepted = broker.connect(connect, clock()).unwrap();
        let connection = Connection::new(server, Arc::clone(&broker), version, accepted, BytesMut::new());
        let mut pair = Self { client, received: BytesMut::new(), mesh, broker, task: tokio::spawn(connection) };
        assert!(matches!(pair.receive().await, Some(Packet::ConnAck(_))));
        pair
    }

    async fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        codec::encode(packet, Version::V5, &mut out).unwrap();
        self.client.write_all(&out).await.unwrap();
    }

    async fn receive(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = codec::decode(&mut self.received, Version::V5, &codec::Limits::default()).unwrap() {
                return Some(packet);
            }
            if self.client.read_buf(&mut self.received).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

fn publish(number: u32) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::new(Text::new("t").unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::from(number.to_string()),
    })
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_behind_stops_reading_until_it_has_caught_up() {
    let mut pair = Pair::new(Connect { keep_alive: 10, ..connect("p") }, 1 << 20).await;
    pair.mesh.high.send_replace(true);
    pair.send(&publish(1)).await;
    // Time stands still until nothing else can happen, so the connection has read what it wants to read.
    tokio::time::sleep(Duration::from_millis(1)).await;
    pair.send(&publish(2)).await;
    // Longer than the keep alive: who is not read from is not silent.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pair.mesh.payloads(), ["1"]);
    pair.mesh.high.send_replace(false);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(pair.mesh.payloads(), ["1", "2"]);
    pair.send(&Packet::PingReq).await;
    assert_eq!(pair.receive().await, Some(Packet::PingResp));
}

#[tokio::test(start_paused = true)]
async fn who_sends_too_fast_is_read_from_more_slowly_and_loses_nothing() {
    let rates = Some(Rates { messages: Some(10), bytes: None });
    let mut pair = Pair::metered(Connect { keep_alive: 10, ..connect("p") }, 1 << 20, rates).await;
    pair.mesh.is_alone.store(false, Ordering::Relaxed);
    let started = clock();
    // Much more than one turn takes, so it waits in the pipe; and all the while the client cannot be heard.
    let count = u32::try_from(MAX_PACKETS).unwrap() * 2;
    for number in 0..count {
        pair.send(&publish(number)).await;
    }
    pair.send(&Packet::PingReq).await;
    assert_eq!(pair.receive().await, Some(Packet::PingResp), "longer than its keep alive");
    let took = (clock() - started).as_secs();
    assert!((40..=102).contains(&took), "{took} s for {count} messages at 10 a second");
    assert_eq!(pair.mesh.payloads().len(), count as usize);
    assert!(pair.broker.counters.slowed.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn keep_alive_is_kept_without_moving_the_timer_for_each_packet() {
    let mut pair = Pair::new(Connect { keep_alive: 10, ..connect("p") }, 1 << 20).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(14)).await;
        pair.send(&Packet::PingReq).await;
        assert_eq!(pair.receive().await, Some(Packet::PingResp));
    }
    let silent_since = clock();
    match pair.receive().await {
        Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason, ReasonCode::KeepAliveTimeout),
        other => panic!("{other:?}"),
    }
    let silence = clock() - silent_since;
    assert!((15_000..15_010).contains(&silence.as_millis()), "{silence:?}");
    assert_eq!(pair.receive().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_last_packet_is_cut_off() {
    let mut pair = Pair::new(connect("p"), 64).await;
    pair.broker.close_all(ReasonCode::ServerShuttingDown);
    let started = clock();
    // It has its DISCONNECT, but does not close its side.
    (&mut pair.task).await.unwrap();
    assert_eq!((clock() - started).as_secs(), CLOSE_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_task_lets_go_of_the_session() {
    let mut pair = Pair::new(connect("p"), 1 << 20).await;
    pair.task.abort();
    assert!((&mut pair.task).await.unwrap_err().is_cancelled());
    assert_eq!(pair.broker.sessions().0, 1);
    let accepted = pair.broker.connect(connect("p"), clock()).unwrap();
    assert!(accepted.mailbox.lock().session.link().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tiny_packets_is_taken_in_turns() {
    let mut pair = Pair::new(connect("p"), 1 << 20).await;
    let count = MAX_PACKETS * 3 + 7;
    let bytes: Vec<u8> = [0xC0, 0x00].repeat(count);
    pair.client.write_all(&bytes).await.unwrap();
    for _ in 0..count {
        assert_eq!(pair.receive().await, Some(Packet::PingResp));
    }
}

#[tokio::test(start_paused = true)]
async fn more_messages_than_one_turn_or_a_small_socket_takes_all_arrive() {
    const COUNT: u32 = 2000;
    const { assert!(COUNT as usize > MAX_TRANSMITS * 3) };
    for pipe in [1 << 20, 100] {
        let mut pair = Pair::new(connect("s"), pipe).await;
        subscribe_to_t(&mut pair).await;
        let publisher = pair.broker.connect(connect("p"), clock()).unwrap().mailbox;
        // As many as the queue holds, several times, each time without a chance for the connection to take any.
        for round in 0..3_u32 {
            for number in 0..COUNT {
                let Packet::Publish(publish) = publish(round * COUNT + number) else { unreachable!() };
                pair.broker.publish(&publisher, publish, clock(), &mut crate::mailbox::Wakes::default());
            }
            for number in 0..COUNT {
                match pair.receive().await {
                    Some(Packet::Publish(publish)) => {
                        assert_eq!(publish.payload, (round * COUNT + number).to_string());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

async fn subscribe_to_t(pair: &mut Pair) {
    let filter = evermq_mqtt::TopicFilter::new(Text::new("t").unwrap()).unwrap();
    let subscribe = evermq_mqtt::packet::Subscribe {
        packet_id: evermq_mqtt::PacketId(std::num::NonZeroU16::MIN),
        filters: vec![evermq_mqtt::packet::SubscribeFilter { filter, options: Default::default() }],
        properties: Default::default(),
    };
    pair.send(&Packet::Subscribe(subscribe)).await;
    assert!(matches!(pair.receive().await, Some(Packet::SubAck(_))));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_may_not_go_yet_goes_as_soon_as_it_may() {
    let mut pair = Pair::new(connect("c"), 1 << 20).await;
    let mailbox = pair.broker.registry.get(&Text::new("c").unwrap()).unwrap();
    let Packet::Publish(publish) = publish(1) else { unreachable!() };
    let stamp = Stamp { time: 1, origin: "other".into() };
    let message =
        Message { publish: Publish { qos: QoS::ExactlyOnce, ..publish }, stamp, received: clock(), publisher: None };
    let hold = Hold::new();
    let message = Shared::with_origin(Arc::new(message), false, Some(Origin::peer(1, 1, &hold)));
    let delivery = Delivery { qos: QoS::ExactlyOnce, retain: false, message, ids: None, share: None };
    // The connection is at work just now, so whoever delivers has nobody to wake.
    mailbox.lock().waker = None;
    mailbox.deliver([delivery], &mut Wakes::default(), |_| {});
    pair.send(&Packet::PingReq).await;
    assert_eq!(pair.receive().await, Some(Packet::PingResp));
    hold.release(Position::default());
    let next = tokio::time::timeout(Duration::from_secs(1), pair.receive()).await;
    assert!(matches!(next, Ok(Some(Packet::Publish(_)))), "{next:?}");
}

/// What an idle connection keeps in this process, but for what tokio, the allocator and the client's own names add. Each of
/// these is there once for each connection, so what is added here is added ten thousand times.
#[test]
fn an_idle_connection_is_small() {
    let task = size_of::<Connection<crate::stream::Stream>>() + size_of::<crate::places::Held>();
    assert!(task <= 448, "the task: {task}");
    let mailbox = size_of::<Mailbox>();
    assert!(mailbox <= 704, "the session: {mailbox}");
    let tls = size_of::<crate::stream::TlsStream>();
    assert!(tls <= 1280, "TLS besides what rustls allocates: {tls}");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_that_is_gone_did_not_take_is_sent_to_nobody_else() {
    let mut gone = Pair::new(connect("gone"), 1 << 20).await;
    let mut other = Pair::new(connect("other"), 1 << 20).await;
    // Its request is read, and the answer cannot be written.
    gone.send(&Packet::PingReq).await;
    let Pair { client, task, .. } = gone;
    drop(client);
    task.await.unwrap();
    other.send(&Packet::PingReq).await;
    assert_eq!(other.receive().await, Some(Packet::PingResp));
    let more = tokio::time::timeout(Duration::from_secs(60), other.receive()).await;
    assert!(more.is_err(), "{more:?} was for another client");
}
