use std::time::Duration;

use bytes::Bytes;
use evermq_bridge::{Arrived, Claim, Clients, Directions, Hold, Local as _, Message, Stamp};
use evermq_mqtt::packet::{Subscribe, SubscribeFilter, SubscriptionOptions, Will};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties, WillProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, TopicFilter, TopicName};
use evermq_store::{Handle, SegmentId};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::backbone::Relief;
use crate::session::Transmit;

mod leaving;

/// A mesh that keeps what it is given, and is as far behind as the test says.
pub(crate) struct FakeMesh {
    pub(crate) sent: Mutex<Vec<Arc<Message>>>,
    /// Where each of these was to go.
    pub(crate) directions: Mutex<Vec<Option<Directions>>>,
    pub(crate) handed_over: Mutex<Vec<(Arc<Message>, Directions)>>,
    pub(crate) high: watch::Sender<bool>,
    pub(crate) is_alone: AtomicBool,
    pub(crate) clients: Mutex<Option<Arc<dyn Clients>>>,
    pub(crate) claims: Mutex<Vec<Claim>>,
    time: AtomicU64,
}

impl Default for FakeMesh {
    fn default() -> Self {
        Self {
            sent: Mutex::default(),
            directions: Mutex::default(),
            handed_over: Mutex::default(),
            high: watch::channel(false).0,
            is_alone: AtomicBool::new(true),
            clients: Mutex::default(),
            claims: Mutex::default(),
            time: AtomicU64::new(1),
        }
    }
}

impl FakeMesh {
    pub(crate) fn payloads(&self) -> Vec<String> {
        let sent = self.sent.lock();
        sent.iter().map(|message| String::from_utf8(message.publish.payload.to_vec()).unwrap()).collect()
    }
}

impl Backbone for FakeMesh {
    fn next_stamp(&self) -> Stamp {
        Stamp { time: self.time.fetch_add(1, Ordering::Relaxed), origin: "here".into() }
    }

    fn next_stamps(&self, count: u64) -> Stamp {
        Stamp { time: self.time.fetch_add(count, Ordering::Relaxed), origin: "here".into() }
    }

    fn recover(&self, _keeper: Arc<dyn evermq_bridge::Keeper>, _recovered: evermq_bridge::Recovered) {}

    fn keeps(&self, _publish: &Publish) -> bool {
        false
    }

    fn publish(
        &self,
        message: Arc<Message>,
        _stored: Option<Handle>,
        _hold: Option<Arc<Hold>>,
        directions: Option<Directions>,
    ) -> (Pressure, Position) {
        self.sent.lock().push(message);
        self.directions.lock().push(directions);
        (if *self.high.borrow() { Pressure::High } else { Pressure::Clear }, Position::default())
    }

    fn set_clients(&self, clients: Arc<dyn Clients>) {
        *self.clients.lock() = Some(clients);
    }

    fn claim(&self, claim: Claim) {
        self.claims.lock().push(claim);
    }

    fn hand_over(
        &self,
        message: Arc<Message>,
        _stored: Option<Handle>,
        _hold: Option<Arc<Hold>>,
        directions: Directions,
        _giver: Option<evermq_store::SessionId>,
    ) -> Position {
        self.handed_over.lock().push((message, directions));
        Position::default()
    }

    fn checkpoint(&self, _before: SegmentId) {}

    fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    fn relieved(self: Arc<Self>) -> Relief {
        let mut high = self.high.subscribe();
        Box::pin(async move {
            let _ = high.wait_for(|high| !high).await;
        })
    }

    fn unacknowledged(&self) -> u64 {
        0
    }

    fn state(&self) -> Value {
        Value::Null
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        forwarded: None,
        max_packet_size: 10_000,
        max_inflight: 10,
        max_queued_messages: 2000,
        max_queued_bytes: 100_000,
        max_session_expiry: Duration::from_secs(1000),
        max_keep_alive: Duration::ZERO,
        max_subscriptions: 10,
        max_topic_levels: 8,
        max_topic_alias: 10,
        denied: evermq_mqtt::ReasonCode::NotAuthorized,
        max_retained_messages: 10,
        budget: Arc::new(crate::session::budget::Budget::new(1 << 20)),
        lasting: Arc::new(crate::session::lasting::Lasting::new(1000)),
        durability: crate::session::Durability::default(),
    }
}

pub(crate) const BOUNDS: crate::retained::Bounds = crate::retained::Bounds { messages: 10, bytes: 10_000 };

pub(crate) fn broker() -> (Arc<Broker>, Arc<FakeMesh>) {
    let mesh = Arc::new(FakeMesh::default());
    let counters = Arc::new(Counters::default());
    let router = Arc::new(Router::new(BOUNDS, Arc::clone(&counters), None));
    let backbone = Arc::<FakeMesh>::clone(&mesh) as _;
    (Broker::new(limits(), router, counters, backbone, ClusterTopics::new(&[]), Access::open(), None), mesh)
}

pub(crate) fn connect(id: &str) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 0,
        client_id: Text::new(id).unwrap(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties { session_expiry: Some(100), ..ConnectProperties::default() },
        is_bridge: false,
    }
}

pub(crate) fn with_will(id: &str, delay: u32) -> Connect {
    let will = Will {
        topic: TopicName::new(Text::new("will").unwrap()).unwrap(),
        payload: Bytes::copy_from_slice(id.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: WillProperties { delay: Some(delay), ..WillProperties::default() },
    };
    Connect { will: Some(will), ..connect(id) }
}

pub(crate) fn publish(payload: &str, retain: bool) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain,
        topic: TopicName::new(Text::new("will").unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub(crate) fn subscribe(broker: &Broker, mailbox: &Arc<Mailbox>, filter: &str, now: Instant) {
    let filter = TopicFilter::new(Text::new(filter).unwrap()).unwrap();
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId(std::num::NonZeroU16::MIN),
        filters: vec![SubscribeFilter { filter, options }],
        properties: SubscribeProperties::default(),
    });
    broker.update(mailbox, now, |session| session.handle_packet(subscribe, now));
}

fn got(mailbox: &Mailbox, now: Instant) -> Vec<String> {
    let mut slot = mailbox.lock();
    std::iter::from_fn(|| slot.session.poll_transmit(now))
        .map(|transmit| match transmit {
            Transmit::Publish { delivery, .. } => {
                String::from_utf8(delivery.message.message().publish.payload.to_vec()).unwrap()
            }
            Transmit::PubRel(_) => panic!("no QoS 2 here"),
        })
        .collect()
}

pub(crate) fn lose(broker: &Broker, mailbox: &Arc<Mailbox>, now: Instant) {
    broker.update(mailbox, now, |session| session.handle_lost(now));
}

#[test]
fn own_messages_go_to_the_mesh_and_those_of_the_mesh_do_not() {
    let (broker, mesh) = broker();
    let now = crate::connection::clock();
    let subscriber = broker.connect(connect("s"), now).unwrap().mailbox;
    subscribe(&broker, &subscriber, "#", now);
    let publisher = broker.connect(connect("p"), now).unwrap().mailbox;
    broker.publish(&publisher, publish("own", false), now, &mut Wakes::default());
    let stamp = Stamp { time: 1, origin: "there".into() };
    let message = Arc::new(Message { publish: publish("theirs", false), stamp, received: now, publisher: None });
    broker.router.deliver(&mut vec![Arrived { message, epoch: 1, seq: 1, directions: None }], &mut Position::default);
    assert_eq!(got(&subscriber, now), ["own", "theirs"]);
    assert_eq!(mesh.payloads(), ["own"]);
}

#[test]
fn a_retained_message_of_the_mesh_counts_by_its_stamp() {
    let (broker, _) = broker();
    let now = crate::connection::clock();
    let publisher = broker.connect(connect("p"), now).unwrap().mailbox;
    broker.publish(&publisher, publish("own", true), now, &mut Wakes::default());
    let theirs = |time, payload| {
        let stamp = Stamp { time, origin: "there".into() };
        Arc::new(Message { publish: publish(payload, true), stamp, received: now, publisher: None })
    };
    broker.router.apply_retained(theirs(0, "older"));
    let first = broker.connect(connect("s1"), now).unwrap().mailbox;
    subscribe(&broker, &first, "#", now);
    assert_eq!(got(&first, now), ["own"]);
    broker.router.apply_retained(theirs(u64::MAX, "newer"));
    assert!(got(&first, now).is_empty(), "a peer's snapshot is not news to subscribers");
    let second = broker.connect(connect("s2"), now).unwrap().mailbox;
    subscribe(&broker, &second, "#", now);
    assert_eq!(got(&second, now), ["newer"]);
}

#[test]
fn time_passes_for_sessions_without_a_connection() {
    let (broker, mesh) = broker();
    let start = crate::connection::clock();
    let at = |seconds| start + Duration::from_secs(seconds);
    let [first, second, third] = [("first", 30), ("second", 10), ("third", 500)]
        .map(|(id, delay)| broker.connect(with_will(id, delay), start).unwrap().mailbox);
    for mailbox in [&first, &second, &third] {
        subscribe(&broker, mailbox, "x", start);
        lose(&broker, mailbox, start);
    }
    broker.expire(at(9));
    assert!(mesh.payloads().is_empty());
    broker.expire(at(29));
    assert_eq!(mesh.payloads(), ["second"]);
    let back = broker.connect(connect("first"), at(29)).unwrap();
    assert!(Arc::ptr_eq(&back.mailbox, &first));
    broker.expire(at(99));
    assert_eq!(mesh.payloads(), ["second"], "the first is back");
    assert_eq!((broker.sessions().0, broker.router.subscriptions()), (3, 3));
    broker.expire(at(100));
    assert_eq!(mesh.payloads(), ["second", "third"], "a session that ends takes its will along");
    assert_eq!((broker.sessions().0, broker.router.subscriptions()), (1, 1));
}

#[test]
fn a_clean_start_replaces_the_session_and_its_subscriptions() {
    let (broker, mesh) = broker();
    let now = crate::connection::clock();
    let old = broker.connect(with_will("c", 500), now).unwrap();
    subscribe(&broker, &old.mailbox, "x", now);
    let new = broker.connect(Connect { clean_start: true, ..connect("c") }, now).unwrap();
    assert!(!Arc::ptr_eq(&old.mailbox, &new.mailbox));
    assert!(old.mailbox.lock().session.is_ended());
    assert_eq!(mesh.payloads(), ["c"]);
    assert_eq!((broker.sessions().0, broker.router.subscriptions()), (1, 0));
}

#[test]
fn a_stopping_broker_lets_nobody_in_and_sends_every_will() {
    let (broker, mesh) = broker();
    let now = crate::connection::clock();
    let detached = broker.connect(with_will("detached", 500), now).unwrap().mailbox;
    lose(&broker, &detached, now);
    let connected = broker.connect(with_will("connected", 0), now).unwrap().mailbox;
    broker.close_all(ReasonCode::ServerShuttingDown);
    assert_eq!(connected.lock().close, Some(Box::new(ReasonCode::ServerShuttingDown.into())));
    assert_eq!(broker.connect(connect("late"), now).unwrap_err(), ReasonCode::ServerUnavailable);
    broker.end_all(now);
    let mut wills = mesh.payloads();
    wills.sort();
    assert_eq!(wills, ["connected", "detached"]);
    assert_eq!(broker.sessions().0, 0);
}

#[test]
fn places_are_given_back() {
    let (broker, _) = broker();
    let first = broker.place(1);
    assert!(first.is_some());
    assert!(broker.place(1).is_none());
    drop(first);
    assert_eq!(broker.connections(), 0);
    assert!(broker.place(1).is_some());
}
