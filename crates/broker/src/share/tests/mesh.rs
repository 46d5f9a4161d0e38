//! Groups with members at other brokers, as one broker sees them.

use std::sync::atomic::Ordering;

use evermq_bridge::{Arrived, Directions, GroupId, Groups as _, Heard, Local as _, Members, Message, Stamp};
use evermq_store::Position;

use super::*;
use crate::broker::tests::FakeMesh;

/// This broker, "here", and others.
struct Cluster {
    scene: Scene,
    mesh: Arc<FakeMesh>,
}

impl Cluster {
    fn new() -> Self {
        let (broker, mesh) = broker();
        mesh.is_alone.store(false, Ordering::Relaxed);
        let now = crate::connection::clock();
        let publisher = broker.connect(connect("publisher"), now).unwrap().mailbox;
        let scene = Scene { broker, publisher, now };
        Self { scene, mesh }
    }

    fn heard(&self, broker: &str, heard: Heard) {
        self.scene.broker.router.heard(&Arc::from(broker), heard);
    }

    fn has(&self, broker: &str, filter: &str, connected: u32, all: u32, since: u64) {
        let members = Members { connected, all, since };
        self.heard(broker, Heard::Group { filter: Text::new(filter).unwrap(), members });
    }

    fn members(&self) -> Members {
        self.scene.broker.router.members(&Text::new(FILTER).unwrap())
    }

    /// Publishes so many here; which broker is to give each of them to the group.
    fn chosen(&self, count: usize, qos: QoS) -> Vec<Option<String>> {
        self.mesh.directions.lock().clear();
        (0..count).for_each(|number| self.scene.publish(&number.to_string(), qos));
        let broker = |directions: &Option<Directions>| Some(directions.as_ref()?.broker_of(id())?.to_owned());
        self.mesh.directions.lock().iter().map(broker).collect()
    }

    fn arrives(&self, origin: &str, payload: &str, qos: QoS, directions: Option<&Directions>) {
        let message = Arc::new(Message {
            publish: of(payload, qos),
            stamp: Stamp { time: 1, origin: origin.into() },
            received: self.scene.now,
            publisher: None,
        });
        let arrived = Arrived { message, epoch: 1, seq: 1, directions: directions.cloned() };
        self.scene.broker.router.deliver(&mut vec![arrived], &mut Position::default);
    }

    /// What was handed over since the last time: to whom, for this group.
    fn handed_over(&self) -> Vec<String> {
        let handed_over = std::mem::take(&mut *self.mesh.handed_over.lock());
        let broker = |(_, directions): (_, Directions)| {
            assert!(directions.is_handed_over());
            directions.broker_of(id()).unwrap().to_owned()
        };
        handed_over.into_iter().map(broker).collect()
    }
}

fn id() -> GroupId {
    super::super::cluster::id_of(&Text::new(FILTER).unwrap())
}

fn to(broker: &str) -> Directions {
    Directions::new(id(), broker)
}

fn names<const N: usize>(names: [&str; N]) -> Vec<Option<String>> {
    names.map(|name| Some(name.to_owned())).to_vec()
}

#[test]
fn a_message_says_which_broker_gives_it_to_the_group() {
    let cluster = Cluster::new();
    let scene = &cluster.scene;
    assert_eq!(cluster.chosen(1, QoS::AtLeastOnce), [None], "nobody has asked");
    let member = scene.member("m", QoS::AtMostOnce);
    assert_eq!(cluster.chosen(1, QoS::AtMostOnce), names(["here"]), "whoever comes elsewhere comes too late for it");
    cluster.heard("b", Heard::Linked(true));
    cluster.has("b", FILTER, 2, 2, 9);
    assert_eq!(cluster.chosen(6, QoS::AtMostOnce).iter().filter(|name| **name == Some("here".into())).count(), 2);
    assert_eq!(scene.payloads(&member).len(), 3);
    cluster.heard("b", Heard::Linked(false));
    assert_eq!(cluster.chosen(2, QoS::AtMostOnce), names(["here", "here"]));
    scene.end(&member);
    assert_eq!(cluster.chosen(2, QoS::AtMostOnce), names(["b", "b"]), "when it is back");
    cluster.has("b", FILTER, 0, 0, 9);
    assert_eq!(cluster.chosen(1, QoS::AtLeastOnce), [None], "there is no such group any more");
    assert_eq!(scene.broker.router.subscriptions(), 0);
}

#[test]
fn a_broker_without_others_says_nothing() {
    let cluster = Cluster::new();
    cluster.mesh.is_alone.store(true, Ordering::Relaxed);
    let member = cluster.scene.member("m", QoS::AtMostOnce);
    assert_eq!(cluster.chosen(2, QoS::AtMostOnce), [None, None]);
    assert_eq!(cluster.scene.payloads(&member).len(), 2);
}

#[test]
fn connected_members_are_counted() {
    let cluster = Cluster::new();
    let scene = &cluster.scene;
    let counts = || (cluster.members().connected, cluster.members().all);
    let [one, two] = ["one", "two"].map(|id| scene.member(id, QoS::AtLeastOnce));
    let since = cluster.members().since;
    assert!(since > 0);
    assert_eq!(counts(), (2, 2));
    scene.subscribe(&one, FILTER, QoS::AtMostOnce);
    assert_eq!(counts(), (2, 2), "once is enough");
    scene.lose(&one);
    scene.lose(&two);
    assert_eq!(counts(), (0, 2));
    let resume = Connect { clean_start: false, ..connect("one") };
    scene.broker.connect(resume, scene.now).unwrap();
    assert_eq!(counts(), (1, 2));
    let filters = vec![TopicFilter::new(Text::new(FILTER).unwrap()).unwrap()];
    let packet_id = PacketId(std::num::NonZeroU16::MIN);
    scene.packet(&one, Packet::Unsubscribe(Unsubscribe { packet_id, filters, user_properties: Vec::new() }));
    assert_eq!((counts(), cluster.members().since), ((0, 1), since));
    scene.end(&two);
    assert_eq!(counts(), (0, 0));
    scene.lose(&one);
    assert_eq!(counts(), (0, 0), "it is in no group any more");
    scene.member("three", QoS::AtLeastOnce);
    assert!(cluster.members().since > since, "it is another group");
}

#[test]
fn groups_that_a_broker_does_not_name_any_more_are_gone() {
    let cluster = Cluster::new();
    for filter in ["$share/a/t", "$share/b/t", "$share/c/t", "no group"] {
        cluster.has("b", filter, 3, 3, 9);
    }
    cluster.has("c", "$share/a/t", 5, 5, 9);
    let router = &cluster.scene.broker.router;
    assert_eq!((router.connected_at("b"), router.connected_at("c")), (9, 5));
    cluster.heard("b", Heard::Begin);
    assert_eq!(router.connected_at("b"), 9, "until it has named them all");
    cluster.has("b", "$share/b/t", 2, 3, 9);
    cluster.heard("b", Heard::Complete);
    assert_eq!((router.connected_at("b"), router.connected_at("c")), (2, 5));
    assert_eq!((router.shared(), router.filters().len(), router.subscriptions()), ((0, 0), 0, 0), "none of them here");
}

#[test]
fn a_message_of_another_broker_goes_where_that_one_says() {
    let cluster = Cluster::new();
    let scene = &cluster.scene;
    let member = scene.member("m", QoS::AtLeastOnce);
    let own = scene.client("own");
    scene.subscribe(&own, "t/#", QoS::AtLeastOnce);
    cluster.arrives("b", "1", QoS::AtLeastOnce, Some(&to("here")));
    cluster.arrives("b", "2", QoS::AtLeastOnce, Some(&to("c")));
    cluster.arrives("b", "3", QoS::AtLeastOnce, to("here").handed_over(None).as_ref());
    cluster.arrives("b", "4", QoS::AtLeastOnce, Some(&Directions::new(GroupId([0; 16]), "c")));
    assert_eq!(scene.payloads(&member), ["1", "3", "4"], "who knew of no group leaves it to others");
    assert_eq!(scene.payloads(&own), ["1", "2", "4"]);
    // Of the two that have the group, the other one has had it for longer.
    cluster.heard("c", Heard::Linked(true));
    cluster.has("c", FILTER, 1, 1, 0);
    cluster.arrives("b", "5", QoS::AtLeastOnce, None);
    cluster.arrives("c", "6", QoS::AtLeastOnce, None);
    assert_eq!(scene.payloads(&member), ["6"], "or it had none when it sent this one");
    assert_eq!(cluster.handed_over(), Vec::<String>::new());
}

#[test]
fn what_nobody_here_takes_goes_on_and_never_in_circles() {
    let cluster = Cluster::new();
    let scene = &cluster.scene;
    // Nothing is known of the group: whoever has sent it may know more.
    cluster.arrives("b", "1", QoS::AtLeastOnce, Some(&to("here")));
    assert_eq!(cluster.handed_over(), ["b"]);
    cluster.arrives("b", "1", QoS::AtLeastOnce, Some(&to("c")));
    assert_eq!(cluster.handed_over(), Vec::<String>::new());
    cluster.heard("c", Heard::Linked(true));
    cluster.has("c", FILTER, 1, 1, 9);
    let mut directions = to("here");
    for _ in 0..3 {
        cluster.arrives("b", "2", QoS::AtLeastOnce, Some(&directions));
        assert_eq!(cluster.handed_over(), ["c"]);
        directions = to("here").handed_over(Some(&directions)).unwrap();
    }
    cluster.arrives("b", "2", QoS::AtLeastOnce, Some(&directions));
    assert_eq!(cluster.handed_over(), Vec::<String>::new(), "it has been to three brokers in vain");
    assert_eq!(scene.broker.counters.to_json()["dropped_without_member"], 1);
    // Absent members keep none of QoS 0.
    scene.lose(&scene.member("absent", QoS::AtLeastOnce));
    cluster.arrives("b", "3", QoS::AtMostOnce, Some(&to("here")));
    assert_eq!(cluster.handed_over(), ["c"]);
    cluster.has("c", FILTER, 0, 1, 9);
    cluster.arrives("b", "4", QoS::AtMostOnce, Some(&to("here")));
    assert_eq!(cluster.handed_over(), Vec::<String>::new());
}

#[test]
fn what_the_last_member_leaves_goes_to_another_broker() {
    let cluster = Cluster::new();
    let scene = &cluster.scene;
    let member = scene.member("m", QoS::ExactlyOnce);
    (0..3).for_each(|number| scene.publish(&number.to_string(), QoS::AtLeastOnce));
    cluster.heard("c", Heard::Linked(true));
    cluster.has("c", FILTER, 0, 1, 9);
    scene.end(&member);
    assert_eq!(cluster.handed_over(), ["c"; 3]);
}
