//! A session with messages of a shared subscription ends, and the power fails in the midst of that.

use std::collections::BTreeSet;

use evermq_store::simulated::{Chance, Simulated};
use evermq_store::{Record, Settings, Status, Store, Sync, WallTime};

use super::*;

const MESSAGES: usize = 80;
const WALL: WallTime = WallTime(1_000_000);
const SOON: Duration = Duration::from_secs(60);

struct Scene {
    broker: Arc<Broker>,
    store: Arc<Store>,
    now: Instant,
}

/// How the session of `a` ends.
#[derive(Debug, Clone, Copy)]
enum Ends {
    Expired,
    Replaced,
}

impl Scene {
    fn on(disk: &Simulated, now: Instant) -> Self {
        let settings =
            Settings { path: "/simulated".into(), sync: Sync::Always, segment_size: 1 << 20, max_size: 1 << 30 };
        let (store, recovered) = disk.open_store(&settings, WALL).unwrap();
        let (report, lost) = (&recovered.report.damage, recovered.report.replaced_sessions);
        assert_eq!((report.len(), lost), (0, 0));
        let journal = Journal::new(Arc::clone(&store), now, WALL);
        let counters = Arc::new(Counters::default());
        let router = Arc::new(Router::new(BOUNDS, Arc::clone(&counters), Some(Arc::clone(&journal))));
        let backbone = Arc::new(FakeMesh::default()) as _;
        let cluster = ClusterTopics::new(&[]);
        let broker = Broker::new(limits(), router, counters, backbone, cluster, Access::open(), Some(journal));
        broker.recover(recovered, now);
        store.set_live(Arc::new(Checkpoint::new(&broker)));
        Self { broker, store, now }
    }

    /// A member of the group that is away.
    fn member(&self, id: &str, expiry: u32) -> Arc<Mailbox> {
        let mut connect = connect(id);
        connect.properties.session_expiry = Some(expiry);
        let mailbox = self.broker.connect(connect, self.now).unwrap().mailbox;
        let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..SubscriptionOptions::default() };
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PacketId(std::num::NonZeroU16::MIN),
            filters: vec![SubscribeFilter {
                filter: TopicFilter::new(Text::new("$share/g/will").unwrap()).unwrap(),
                options,
            }],
            properties: SubscribeProperties::default(),
        });
        self.broker.update(&mailbox, self.now, |session| session.handle_packet(subscribe, self.now));
        self.broker.update(&mailbox, self.now, |session| session.handle_lost(self.now));
        mailbox
    }

    /// What the member holds, if it has a session.
    fn held(&self, id: &str) -> Option<Vec<String>> {
        let mailbox = self.broker.registry.get(&Text::new(id).unwrap())?;
        let slot = mailbox.lock();
        let payload = |delivery: &crate::message::Delivery| {
            String::from_utf8(delivery.message.message().publish.payload.to_vec()).unwrap()
        };
        Some(slot.session.kept_messages().map(payload).collect())
    }

    fn end(&self, how: Ends) {
        match how {
            Ends::Expired => self.broker.expire(self.now + 2 * SOON),
            Ends::Replaced => {
                let clean = Connect { clean_start: true, ..connect("a") };
                drop(self.broker.connect(clean, self.now + SOON).unwrap());
            }
        }
    }

    /// Until all is on the disk, or the disk is gone.
    fn settle(&self) {
        let end = self.store.append(&Record::SessionEnd { session: self.store.new_session() });
        let since = crate::connection::clock();
        while !self.store.is_durable(end) && self.store.status() != Status::Failed {
            assert!(since.elapsed() < SOON, "{:?}", self.store.status());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// How many messages `a` still had after the power came back; none if it had no session any more, or the new one.
fn power_fails(how: Ends, operations: u64, seed: u64) -> usize {
    let disk = Simulated::default();
    let now = crate::connection::clock();
    let scene = Scene::on(&disk, now);
    scene.member("a", 100);
    scene.member("b", 900);
    let publisher = scene.broker.connect(connect("publisher"), now).unwrap().mailbox;
    for number in 0..MESSAGES {
        let publish = Publish { qos: QoS::ExactlyOnce, ..publish(&number.to_string(), false) };
        scene.broker.publish(&publisher, publish, now, &mut Wakes::default());
    }
    assert_eq!(scene.held("a").map(|held| held.len()), Some(MESSAGES / 2));
    scene.settle();
    disk.lose_power_after(operations, Chance::new(seed));
    scene.end(how);
    scene.settle();

    let disk = disk.after_power_loss(Chance::new(seed));
    let scene = Scene::on(&disk, now);
    let left = scene.held("a").map_or(0, |held| held.len());
    scene.end(how);
    assert!(scene.held("a").unwrap_or_default().is_empty());
    let held = scene.held("b").unwrap();
    let each: BTreeSet<_> = held.iter().collect();
    assert_eq!(
        (each.len(), held.len()),
        (MESSAGES, MESSAGES),
        "{how:?}, {operations} operations, seed {seed}: {held:?}"
    );
    left
}

#[test]
fn what_a_session_gives_back_is_always_with_one_of_two() {
    for how in [Ends::Expired, Ends::Replaced] {
        let left: BTreeSet<_> = (0..24).map(|run| power_fails(how, run % 3, run)).collect();
        // Otherwise it would prove little.
        assert!(
            left.iter().any(|left| (1..MESSAGES / 2).contains(left)),
            "{how:?}: it failed at no moment between: {left:?}"
        );
    }
}
