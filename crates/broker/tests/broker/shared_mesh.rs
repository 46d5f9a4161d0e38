//! Shared subscriptions with members at several brokers.

use std::collections::BTreeSet;

use evermq_config::BrokerConfig;
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode};

use crate::cable::Cable;
use crate::client::{Client, connect, message, resume};
use crate::running::{Running, Site, several};

const GROUP: &str = "$share/g/t/#";
const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Brokers that are linked with each other.
fn start(count: usize) -> (Site, Vec<BrokerConfig>, Vec<Running>) {
    let site = Site::new();
    let configs = several(&site, count, |_| {});
    let brokers: Vec<_> = configs.iter().map(Running::start).collect();
    brokers.iter().for_each(Running::wait_for_peer);
    (site, configs, brokers)
}

fn member_as(broker: &Running, connect: Connect) -> Client {
    let (mut member, connack) = Client::open(broker.plain, connect);
    if !connack.session_present {
        member.subscribe_at(GROUP, QoS::ExactlyOnce);
    }
    member
}

fn member(broker: &Running, id: &str) -> Client {
    member_as(broker, connect(id))
}

/// A member at `broker` without a connection, of which its only peer knows.
fn be_absent(peer: &Running, broker: &Running, id: &str) {
    let member = member_as(broker, resume(id));
    peer.wait_for_members(&[1]);
    member.vanish();
    peer.wait_for_members(&[0]);
}

/// Each of the QoS in turn.
fn publish(broker: &Running, numbers: std::ops::Range<usize>) {
    let mut publisher = broker.client("p");
    for number in numbers {
        publisher.publish(message("t/x", &number.to_string()), ALL[number % 3]);
    }
    publisher.disconnect(ReasonCode::Success);
}

/// So many messages of a member; when all brokers have everything of each other's logs, there are no more.
fn take(member: &mut Client, brokers: &[&Running], count: usize) -> Vec<usize> {
    let mut payloads = member.drain_at_least(count);
    for broker in brokers {
        broker.wait_for("acknowledgements", |state| {
            let peers = state["bridge"]["peers"].as_array().unwrap();
            peers.iter().all(|peer| peer["connected"] != true || peer["lag"] == 0)
        });
    }
    payloads.extend(member.drain_at_least(0));
    let mut numbers: Vec<_> = payloads.iter().map(|payload| payload.parse().unwrap()).collect();
    // Of different QoS one may overtake the other.
    numbers.sort_unstable();
    numbers
}

fn expect(member: &mut Client, brokers: &[&Running], wanted: impl IntoIterator<Item = usize>) {
    let wanted: Vec<_> = wanted.into_iter().collect();
    assert_eq!(take(member, brokers, wanted.len()), wanted);
}

#[test]
fn a_group_gets_each_message_once_and_its_members_equal_shares() {
    let (_site, _, brokers) = start(3);
    let [one, two, three] = &brokers[..] else { unreachable!() };
    let mut members = [member(one, "m1"), member(two, "m2"), member(two, "m3"), member(two, "m4")];
    one.wait_for_members(&[3, 0]);
    two.wait_for_members(&[1, 0]);
    three.wait_for_members(&[1, 3]);
    // Another group, and somebody on their own, get all of it.
    let mut other = three.client("other");
    other.subscribe_at("$share/h/t/+", QoS::AtLeastOnce);
    let mut own = three.client("own");
    own.subscribe_at("t/x", QoS::AtLeastOnce);
    one.wait_for_members(&[3, 1]);
    two.wait_for_members(&[1, 1]);
    for (index, broker) in brokers.iter().enumerate() {
        publish(broker, index * 24..(index + 1) * 24);
    }
    let all: Vec<_> = brokers.iter().collect();
    let got: Vec<_> = members.iter_mut().map(|member| take(member, &all, 18)).collect();
    let mut together = got.concat();
    together.sort_unstable();
    assert_eq!(together, (0..72).collect::<Vec<_>>(), "{got:?}");
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [18; 4], "{got:?}");
    for client in [&mut other, &mut own] {
        expect(client, &all, 0..72);
    }
    assert!(brokers.iter().all(|broker| broker.state()["bridge"]["handed_over"] == 0));
}

#[test]
fn absent_members_take_their_turn_when_nobody_is_there() {
    let (_site, _, brokers) = start(2);
    let [one, two] = &brokers[..] else { unreachable!() };
    let mut here = member_as(one, resume("here"));
    two.wait_for_members(&[1]);
    be_absent(one, two, "there");
    publish(one, 0..6);
    // Who is there comes first.
    expect(&mut here, &[one, two], 0..6);
    here.vanish();
    two.wait_for_members(&[0]);
    publish(two, 6..18);
    let mut here = member_as(one, resume("here"));
    let mut there = member_as(two, resume("there"));
    let got = [take(&mut here, &[one, two], 4), take(&mut there, &[one, two], 4)];
    let kept: BTreeSet<_> = (6..18).filter(|number| number % 3 != 0).collect();
    assert_eq!(got.concat().into_iter().collect::<BTreeSet<_>>(), kept, "of QoS 0 nobody wants any: {got:?}");
    assert_eq!((got[0].len(), got[1].len()), (4, 4), "{got:?}");
}

#[test]
fn what_is_chosen_for_a_broker_that_is_away_waits_for_it_and_stays_chosen() {
    let (_site, configs, mut brokers) = start(2);
    be_absent(&brokers[0], &brokers[1], "there");
    publish(&brokers[0], 0..3);
    brokers.pop().unwrap().stop().unwrap();
    // Only there was a member of the group: it waits.
    publish(&brokers[0], 3..9);
    // One comes here, which is for what comes now.
    let mut here = member_as(&brokers[0], resume("here"));
    publish(&brokers[0], 9..15);
    expect(&mut here, &[&brokers[0]], [9, 10, 11, 12, 13, 14]);
    here.vanish();
    // What was chosen stays chosen, although nobody knows any more why.
    brokers.pop().unwrap().stop().unwrap();
    let one = Running::start(&configs[0]);
    let two = Running::start(&configs[1]);
    one.wait_for_peer();
    let mut there = member_as(&two, resume("there"));
    // Of QoS 0 nothing outlives the process.
    expect(&mut there, &[&one, &two], [1, 2, 4, 5, 7, 8]);
    let mut here = member_as(&one, resume("here"));
    expect(&mut here, &[&one, &two], []);
}

/// Three brokers; the cables between the second one and the others can be pulled out.
struct Partition {
    cables: Vec<Cable>,
    brokers: Vec<Running>,
    _site: Site,
}

impl Partition {
    fn new() -> Self {
        let site = Site::new();
        let mut configs = several(&site, 3, |_| {});
        let mut cables = Vec::new();
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
            let cable = Cable::to(configs[to].peer_listen);
            let name = configs[to].host.clone();
            configs[from]
                .peers
                .iter_mut()
                .filter(|peer| peer.name == name)
                .for_each(|peer| peer.address = cable.address);
            cables.push(cable);
        }
        let brokers: Vec<_> = configs.iter().map(Running::start).collect();
        brokers.iter().for_each(Running::wait_for_peer);
        Self { cables, brokers, _site: site }
    }

    fn begin(&self) {
        self.cables.iter().for_each(Cable::pull_out);
        for (broker, cut_off) in self.brokers.iter().zip([1, 2, 1]) {
            broker.wait_for("the partition", |state| {
                let is_cut = |peer: &&serde_json::Value| peer["connected"] == false && peer["receiving"] == false;
                state["bridge"]["peers"].as_array().unwrap().iter().filter(is_cut).count() == cut_off
            });
        }
    }

    fn end(&self) {
        self.cables.iter().for_each(Cable::put_in);
        self.brokers.iter().for_each(Running::wait_for_peer);
    }

    fn all(&self) -> [&Running; 3] {
        std::array::from_fn(|index| &self.brokers[index])
    }
}

#[test]
fn in_a_partition_each_part_gives_its_own_messages_to_its_own_members() {
    let partition = Partition::new();
    let [one, two, three] = partition.all();
    let mut members = [member(one, "m1"), member(two, "m2")];
    one.wait_for_members(&[1, 0]);
    two.wait_for_members(&[1, 0]);
    three.wait_for_members(&[1, 1]);
    partition.begin();
    publish(one, 0..6);
    publish(two, 6..12);
    publish(three, 12..18);
    expect(&mut members[0], &[one, three], (0..6).chain(12..18));
    expect(&mut members[1], &[two], 6..12);
    partition.end();
    for member in &mut members {
        // All of it has had its member.
        expect(member, &partition.all(), []);
    }
}

#[test]
fn what_finds_no_member_any_more_is_handed_over() {
    let partition = Partition::new();
    let [one, two, three] = partition.all();
    let there = member(two, "there");
    one.wait_for_members(&[1, 0]);
    three.wait_for_members(&[0, 1]);
    partition.begin();
    // As far as can be known here only the broker that is away has a member. That one goes.
    publish(one, 0..9);
    there.disconnect(ReasonCode::Success);
    two.wait_for("its end", |state| state["sessions"] == 0);
    let mut elsewhere = member(three, "elsewhere");
    one.wait_for_members(&[1, 1]);
    publish(one, 9..12);
    expect(&mut elsewhere, &[one, three], [9, 10, 11]);
    partition.end();
    two.wait_for("what was for its member", |state| state["bridge"]["handed_over"] == 9);
    expect(&mut elsewhere, &partition.all(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    one.wait_for_members(&[0, 1]);
    for broker in partition.all() {
        publish(broker, 12..15);
        expect(&mut elsewhere, &partition.all(), [12, 13, 14]);
    }
}

#[test]
fn what_a_session_leaves_goes_to_another_broker() {
    let (_site, _, brokers) = start(2);
    let [one, two] = &brokers[..] else { unreachable!() };
    be_absent(two, one, "leaves");
    publish(one, 0..6);
    let mut stays = member_as(two, resume("stays"));
    one.wait_for_members(&[1]);
    // Its clean start ends the session that has them.
    let returned = one.client("leaves");
    one.wait_for("what it had", |state| state["bridge"]["handed_over"] == 4);
    expect(&mut stays, &[one, two], [1, 2, 4, 5]);
    returned.disconnect(ReasonCode::Success);
    publish(one, 6..9);
    expect(&mut stays, &[one, two], [6, 7, 8]);
}
