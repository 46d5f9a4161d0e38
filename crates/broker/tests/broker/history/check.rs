//! What clients were told beside what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evermq_mqtt::packet::{Ack, Subscribe, SubscribeFilter, SubscriptionOptions};
use evermq_mqtt::properties::SubscribeProperties;
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, TopicFilter, Version};

use super::Site;
use super::clients::{FILTERS, Got, LIFE, Sent, TOPICS, Wills, answer, will_qos};
use super::wire::{Came, Line, lasting};
use crate::client::{connect, id, message, text};

/// Where the last message comes.
pub(super) const LAST: &str = "h/last";
/// Whole seconds are counted, and a packet may be on its way for a while.
const SLACK: Duration = Duration::from_millis(2500);

/// What clients were told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) sent: [Sent; 2],
    pub(super) subscribed: BTreeSet<usize>,
    pub(super) retained: BTreeMap<usize, Option<u64>>,
    pub(super) wills: Wills,
}

/// How much of it there was.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    /// Messages of QoS 1 that came more than once, which they may.
    pub(crate) repeated: usize,
    pub(crate) wills: usize,
    pub(crate) subscribed: usize,
    pub(crate) retained: usize,
    pub(crate) expiring: usize,
}

/// Nothing that the subscribers wait for comes after this.
pub(super) fn say_that_all_is_sent(site: &Site) {
    tell(site, &[LAST.to_owned()]);
}

/// Everything is as the clients were told.
pub(super) fn check(site: &Site, told: &Told, got: &[Got]) -> Totals {
    let mut totals = Totals { wills: told.wills.owed.len(), ..Totals::default() };
    for sent in &told.sent {
        let acknowledged = sent.messages.iter().filter(|(_, is_acknowledged)| *is_acknowledged).count();
        totals.acknowledged += acknowledged;
        totals.refused += sent.messages.len() - acknowledged;
        for got in got {
            check_messages(sent, got, &mut totals);
        }
    }
    for got in got {
        check_wills(&told.wills, got);
        check_expiry(got, &mut totals);
    }
    totals.retained = check_retained(site, &told.retained);
    totals.subscribed = check_subscriptions(site, &told.subscribed);
    totals
}

fn check_messages(sent: &Sent, got: &Got, totals: &mut Totals) {
    let topic = format!("h/{}", sent.name);
    let mut counts = vec![0_usize; sent.messages.len()];
    let mut last = BTreeMap::<u8, usize>::new();
    for message in got.messages.iter().filter(|message| message.topic == topic) {
        let serial: usize = message.payload.parse().unwrap();
        counts[serial] += 1;
        if counts[serial] > 1 {
            continue;
        }
        // [MQTT-4.6.0-6]
        let before = last.insert(message.qos as u8, serial);
        assert!(before.is_none_or(|before| before < serial), "{}: {topic} {serial} came after {before:?}", got.name);
    }
    for (serial, (qos, is_acknowledged)) in sent.messages.iter().enumerate() {
        let (name, count) = (got.name, counts[serial]);
        assert!(count > 0 || !is_acknowledged, "{name}: {topic} {serial} of {qos:?} was acknowledged and is lost");
        assert!(count < 2 || *qos < QoS::ExactlyOnce, "{name}: {topic} {serial} of QoS 2 came {count} times");
        totals.repeated += usize::from(count > 1);
    }
}

fn check_wills(wills: &Wills, got: &Got) {
    let mut counts = BTreeMap::<u64, usize>::new();
    for message in got.messages.iter().filter(|message| message.topic == "w/gone") {
        *counts.entry(message.payload.parse().unwrap()).or_default() += 1;
    }
    let missing: Vec<_> = wills.owed.iter().filter(|serial| !counts.contains_key(serial)).collect();
    assert!(missing.is_empty(), "{}: wills that never came: {missing:?}", got.name);
    let twice = |(serial, count): &(&u64, &usize)| will_qos(**serial) == QoS::ExactlyOnce && **count > 1;
    let twice: Vec<_> = counts.iter().filter(twice).collect();
    assert!(twice.is_empty(), "{}: wills of QoS 2 that came twice: {twice:?}", got.name);
}

fn check_expiry(got: &Got, totals: &mut Totals) {
    for message in got.messages.iter().filter(|message| message.topic.starts_with("x/")) {
        totals.expiring += 1;
        let sent = Duration::from_millis(message.payload.parse().unwrap());
        let age = message.at.saturating_sub(sent);
        let bound = Duration::from_secs(LIFE.into()) + SLACK;
        // What was on its way already may be sent again.
        assert!(message.dup || age < bound, "{}: a message came {age:?} after it was sent", got.name);
    }
}

fn check_retained(site: &Site, expected: &BTreeMap<usize, Option<u64>>) -> usize {
    let (mut line, _) = Line::open(site, &connect("reader"));
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let filters = vec![SubscribeFilter { filter: TopicFilter::new(text("r/#")).unwrap(), options }];
    let properties = SubscribeProperties::default();
    assert!(line.send(&Packet::Subscribe(Subscribe { packet_id: id(1), filters, properties })));
    assert!(matches!(answer(site, &mut line), Some(Packet::SubAck(_))));
    let found: BTreeMap<String, String> = collect(site, &mut line).into_iter().collect();
    for topic in 0..TOPICS {
        let is = found.get(&format!("r/{topic}")).map(String::as_str);
        let expected = expected.get(&topic).copied().flatten().map(|value| value.to_string());
        assert_eq!(is, expected.as_deref(), "what r/{topic} has retained");
    }
    found.len()
}

fn check_subscriptions(site: &Site, expected: &BTreeSet<usize>) -> usize {
    let topics: Vec<_> = (0..FILTERS).map(|number| format!("c/{number}")).collect();
    tell(site, &topics);
    let (mut line, connack) = Line::open(site, &lasting("changer", Version::V5));
    assert!(connack.session_present, "the changer's session was forgotten");
    let found: BTreeSet<String> = collect(site, &mut line).into_iter().map(|(topic, _)| topic).collect();
    let expected: BTreeSet<String> = expected.iter().map(|number| format!("c/{number}")).collect();
    assert_eq!(found, expected, "the subscriptions of the changer");
    found.len()
}

/// Publishes to each of `topics` until it is acknowledged. At QoS 2: what is of QoS 1 overtakes what waits for the store.
fn tell(site: &Site, topics: &[String]) {
    let since = site.now();
    let mut left = topics.iter().peekable();
    while left.peek().is_some() {
        let (mut line, _) = Line::open(site, &connect("herald"));
        while let Some(topic) = left.peek() {
            site.go_on("the herald", since);
            let publish = Publish { qos: QoS::ExactlyOnce, packet_id: Some(id(1)), ..message(topic, "now") };
            line.send(&Packet::Publish(publish));
            match answer(site, &mut line) {
                Some(Packet::PubRec(ack)) if !ack.reason.is_error() => {
                    left.next();
                    line.send(&Packet::PubRel(Ack { reason: ReasonCode::Success, ..ack }));
                    if answer(site, &mut line).is_none() {
                        break;
                    }
                }
                // There is no room yet.
                Some(Packet::PubRec(_)) => std::thread::park_timeout(Duration::from_millis(5)),
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
    }
}

/// The messages that wait for a client: topics and payloads up to the padding. A PINGRESP may overtake what was there; the
/// second one comes after it.
fn collect(site: &Site, line: &mut Line) -> Vec<(String, String)> {
    let since = site.now();
    let mut found = Vec::new();
    for _ in 0..2 {
        assert!(line.send(&Packet::PingReq));
        loop {
            match line.look() {
                Came::Packet(Packet::PingResp) => break,
                Came::Packet(Packet::Publish(publish)) => {
                    let payload = String::from_utf8_lossy(&publish.payload);
                    let payload = payload.split(':').next().unwrap_or_default().to_owned();
                    found.push((publish.topic.to_string(), payload));
                    if let Some(packet_id) = publish.packet_id {
                        let ack = Ack { packet_id, reason: ReasonCode::Success, properties: None };
                        assert!(line.send(&Packet::PubAck(ack)));
                    }
                }
                Came::Packet(other) => panic!("{other:?}"),
                Came::Nothing => site.go_on("a PINGRESP", since),
                Came::End => panic!("the connection has ended"),
            }
        }
    }
    found
}
