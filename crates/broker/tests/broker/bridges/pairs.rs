//! Two brokers of a cluster, bridged to the same mosquitto: one of them has the connection, the other one stands by.

use std::collections::BTreeSet;

use evermq_mqtt::QoS;

use super::mosquitto::Mosquitto;
use super::{entry, listener, listener_at, next, publish};
use crate::client::{Client, connect};
use crate::killed::{Member, Program, SMALL, cluster};
use crate::running::{PATIENCE, Site};

const TOPICS: &str = "topics = ['# both 1 l/ r/']";

struct Pair {
    site: Site,
    remote: Mosquitto,
    members: Vec<Member>,
    programs: Vec<Option<Program>>,
}

impl Pair {
    fn new(takeover_delay: &str) -> Self {
        let site = Site::new();
        let remote = Mosquitto::start(site.directory.path(), "remote", "");
        let members = cluster(&site, &["broker1", "broker2"], SMALL);
        for member in &members {
            let mut file = std::fs::read_to_string(&member.file).unwrap();
            file.push_str(&entry(remote.address, &format!("{TOPICS}\ntakeover_delay = \"{takeover_delay}\"")));
            std::fs::write(&member.file, file).unwrap();
        }
        let mut pair = Self { site, remote, members, programs: vec![None, None] };
        [0, 1].into_iter().for_each(|index| pair.start(index));
        pair.wait_for(0, "connected");
        pair.wait_for(1, "standby");
        pair
    }

    fn start(&mut self, index: usize) {
        let member = &self.members[index];
        self.programs[index] = Some(Program::start(&member.file, member.host, member.plain));
    }

    fn wait_for(&self, index: usize, state: &str) {
        self.wait_until(index, state, |bridge| bridge["state"] == state);
    }

    fn wait_until(&self, index: usize, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
        let socket = self.site.directory.path().join(self.members[index].host).join("broker.sock");
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        loop {
            let request = serde_json::json!({ "request": "state" });
            // It may just be starting.
            let state = evermq_daemon::control::request(&socket, &request, PATIENCE).unwrap_or_default();
            if wanted(&state["bridges"][0]) {
                return;
            }
            assert!(evermq_broker::connection::clock() < deadline, "waited in vain for {what}: {:#}", state["bridges"]);
            std::thread::yield_now();
        }
    }

    fn client(&self, index: usize, id: &str) -> Client {
        Client::open(self.members[index].plain, connect(id)).0
    }
}

#[test]
fn messages_of_either_broker_cross_once() {
    // Nobody takes over here, however slowly this goes.
    let pair = Pair::new("1h");
    let mut there = listener_at(pair.remote.address, "there", "r/#", QoS::AtLeastOnce);
    let mut from_there = listener(pair.remote.address, "from_there", "unused");
    let mut heard =
        [0, 1].map(|index| listener_at(pair.members[index].plain, ["a", "b"][index], "l/in", QoS::AtLeastOnce));
    for (index, member) in pair.members.iter().enumerate() {
        let mut here = pair.client(index, &format!("here{index}"));
        publish(&mut here, &format!("l/{}", member.host), "x", QoS::AtLeastOnce, false);
        assert_eq!(next(&mut there).0, format!("r/{}", member.host));
    }
    publish(&mut from_there, "r/in", "x", QoS::AtLeastOnce, false);
    assert_eq!(next(&mut there).0, "r/in");
    for here in &mut heard {
        assert_eq!(next(here).0, "l/in");
    }
    for index in [0, 1] {
        pair.wait_until(index, "nothing that waits", |bridge| bridge["queued"] == 0 && bridge["inflight"] == 0);
    }
    there.expect_nothing();
}

/// What is published while nobody has the connection arrives by the next one who has it. What had arrived long before does not
/// come again.
#[test]
fn the_other_takes_over_and_gives_back() {
    let mut pair = Pair::new("500ms");
    let mut there = listener_at(pair.remote.address, "there", "r/#", QoS::AtLeastOnce);
    let mut second = pair.client(1, "second");
    publish(&mut second, "l/before", "x", QoS::AtLeastOnce, false);
    assert_eq!(next(&mut there).0, "r/before");
    // It says so to the other one, who then forgets it.
    pair.wait_until(1, "an empty queue", |bridge| bridge["queued"] == 0);
    pair.programs[0] = None;
    publish(&mut second, "l/between", "x", QoS::AtLeastOnce, false);
    assert_eq!(next(&mut there).0, "r/between");
    pair.wait_for(1, "connected");
    publish(&mut second, "l/after", "x", QoS::AtLeastOnce, false);
    assert_eq!(next(&mut there).0, "r/after");
    pair.wait_until(1, "acknowledgements", |bridge| bridge["inflight"] == 0 && bridge["queued"] == 0);

    pair.start(0);
    pair.wait_for(0, "connected");
    pair.wait_for(1, "standby");
    let mut first = pair.client(0, "first");
    publish(&mut first, "l/back", "x", QoS::AtLeastOnce, false);
    // The last second before may come again.
    let mut topics = BTreeSet::new();
    while !topics.contains("r/back") {
        topics.insert(next(&mut there).0);
    }
    assert!(!topics.contains("r/before"), "{topics:?}");
}
