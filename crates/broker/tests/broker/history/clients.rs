//! The clients, and what they remember.

mod exchange;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use evermq_mqtt::packet::{Connect, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe, Will};
use evermq_mqtt::properties::{PublishProperties, SubscribeProperties, WillProperties};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, TopicFilter, TopicName, Version};
use evermq_store::simulated::Chance;

use super::wire::{Came, Line, lasting};
use super::{Alarm, Site};
use crate::client::{id, message, text};
use exchange::Exchanges;
pub(super) use subscriber::{Got, Manner, subscriber};

/// Filters that the changer subscribes to and leaves.
pub(super) const FILTERS: usize = 20;
/// Topics with retained messages.
pub(super) const TOPICS: usize = 12;
/// How long the messages live that expire, in seconds.
pub(super) const LIFE: u32 = 2;
/// Clients whose end the broker may not have noticed.
const LATE: usize = 100;
/// Subscribers that are there before anything is published.
const SUBSCRIBERS: usize = 3;

/// What a publisher was told.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) name: &'static str,
    /// By serial number: QoS, and whether it was acknowledged rather than refused.
    pub(super) messages: Vec<(QoS, bool)>,
}

/// What became of wills.
#[derive(Debug, Default)]
pub(super) struct Wills {
    /// Those of clients that were let in and then lost their connection.
    pub(super) owed: BTreeSet<u64>,
}

/// Of serial number `serial`: QoS 1 and 2 in turn.
pub(super) fn will_qos(serial: u64) -> QoS {
    if serial.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce }
}

/// Publishes at QoS 1 and 2, several at a time, until the site winds down and all is acknowledged.
pub(super) fn publisher(site: &Site, name: &'static str, version: Version, mut chance: Chance) -> Sent {
    let _alarm = Alarm(site);
    site.until("subscribers", || site.subscribed.load(Ordering::SeqCst) == SUBSCRIBERS);
    let mut messages: Vec<(QoS, bool)> = Vec::new();
    let mut exchanges = Exchanges::new(site, name, version);
    loop {
        let is_over = site.is_winding_down();
        if is_over && exchanges.is_empty() {
            return Sent { name, messages };
        }
        if !is_over && exchanges.len() < 8 {
            let serial = messages.len();
            let qos = if chance.one_in(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            let padding = [0, 10, 3000, 9000][chance.below(4)];
            let mut publish =
                Publish { qos, ..message(&format!("h/{name}"), &format!("{serial}:{}", "x".repeat(padding))) };
            if version == Version::V5 && chance.one_in(10) {
                // It says when it was sent, and is not to come later than it lives.
                let properties = PublishProperties { message_expiry: Some(LIFE), ..PublishProperties::default() };
                let payload = Bytes::from(site.now().as_millis().to_string());
                publish = Publish {
                    properties: Some(Box::new(properties)),
                    payload,
                    qos,
                    ..message(&format!("x/{name}"), "")
                };
                exchanges.begin(publish, None);
                continue;
            }
            messages.push((qos, false));
            exchanges.begin(publish, Some(serial));
        }
        for (serial, reason) in exchanges.go_on() {
            messages[serial].1 = !reason.is_error();
            let count = if reason.is_error() { &site.refused } else { &site.acknowledged };
            count.fetch_add(1, Ordering::SeqCst);
            if reason.is_error() {
                assert_eq!(reason, ReasonCode::QuotaExceeded);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
    }
}

/// Subscribes and unsubscribes; the filters of which the last word was a SUBACK.
pub(super) fn changer(site: &Site, mut chance: Chance) -> BTreeSet<usize> {
    let _alarm = Alarm(site);
    let mut held = BTreeSet::new();
    let mut line: Option<Line> = None;
    let mut is_new = true;
    while !site.is_winding_down() {
        let number = chance.below(FILTERS);
        let wanted = chance.one_in(2);
        let filter = TopicFilter::new(text(&format!("c/{number}"))).unwrap();
        // Until it is answered, over as many connections as that takes.
        loop {
            let open = line.get_or_insert_with(|| {
                let (line, connack) = Line::open(site, &lasting("changer", Version::V5));
                assert!(connack.session_present || std::mem::take(&mut is_new), "the changer's session was forgotten");
                line
            });
            let packet = if wanted {
                let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
                let filters = vec![SubscribeFilter { filter: filter.clone(), options }];
                Packet::Subscribe(Subscribe { packet_id: id(1), filters, properties: SubscribeProperties::default() })
            } else {
                Packet::Unsubscribe(Unsubscribe {
                    packet_id: id(1),
                    filters: vec![filter.clone()],
                    user_properties: Vec::new(),
                })
            };
            match open.send(&packet).then(|| answer(site, open)).flatten() {
                Some(Packet::SubAck(suback)) if suback.reasons[0].is_error() => {
                    assert_eq!(suback.reasons[0], ReasonCode::QuotaExceeded);
                    std::thread::park_timeout(Duration::from_millis(5));
                    break;
                }
                Some(Packet::SubAck(_)) => drop(held.insert(number)),
                Some(Packet::UnsubAck(_)) => drop(held.remove(&number)),
                Some(other) => panic!("{other:?}"),
                None => {
                    line = None;
                    // A full store lets nobody in who is not known.
                    if is_new && site.is_winding_down() {
                        return held;
                    }
                    continue;
                }
            }
            break;
        }
    }
    held
}

/// The next packet; none if the connection ends.
pub(super) fn answer(site: &Site, line: &mut Line) -> Option<Packet> {
    let since = site.now();
    loop {
        match line.look() {
            Came::Packet(packet) => return Some(packet),
            Came::End => return None,
            Came::Nothing => site.go_on("an answer", since),
        }
    }
}

/// Publishes retained messages and deletes them; what each topic has, `None` for nothing. Refused ones change nothing.
pub(super) fn retainer(site: &Site, mut chance: Chance) -> BTreeMap<usize, Option<u64>> {
    let _alarm = Alarm(site);
    let mut kept = BTreeMap::new();
    let mut exchanges = Exchanges::new(site, "retainer", Version::V5);
    for serial in 0_u64.. {
        if site.is_winding_down() {
            break;
        }
        let topic = chance.below(TOPICS);
        let value = (!chance.one_in(5)).then_some(serial);
        let payload = value.map(|value| format!("{value}:{}", "r".repeat(chance.below(2000)))).unwrap_or_default();
        let qos = if chance.one_in(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        exchanges.begin(Publish { retain: true, qos, ..message(&format!("r/{topic}"), &payload) }, Some(0));
        while !exchanges.is_empty() {
            for (_, reason) in exchanges.go_on() {
                if !reason.is_error() {
                    kept.insert(topic, value);
                }
            }
        }
    }
    kept
}

/// Clients with wills that lose their connections, or are taken over.
pub(super) fn mortals(site: &Site, mut chance: Chance) -> Wills {
    let _alarm = Alarm(site);
    site.until("subscribers", || site.subscribed.load(Ordering::SeqCst) == SUBSCRIBERS);
    let mut wills = Wills::default();
    let mut serial = 0;
    let mut clients = Vec::new();
    while !site.is_winding_down() {
        let client_id = format!("m{serial}");
        // Sometimes another connection of the same client comes while the first one is there.
        let lives = 1 + usize::from(chance.one_in(3));
        let mut lines = Vec::new();
        for _ in 0..lives {
            serial += 1;
            if let Some((line, _)) = Line::try_open(site, &with_will(&client_id, serial)) {
                wills.owed.insert(serial);
                lines.push(line);
            }
        }
        clients.push(client_id);
        std::thread::park_timeout(Duration::from_millis(chance.below(6) as u64));
    }
    // The broker may not have noticed yet that they are gone. It has when they are back.
    for client_id in clients.iter().rev().take(LATE) {
        Line::open(site, &lasting(client_id, Version::V5));
    }
    wills
}

fn with_will(client_id: &str, serial: u64) -> Connect {
    let will = Will {
        topic: TopicName::new(text("w/gone")).unwrap(),
        payload: Bytes::from(serial.to_string()),
        qos: will_qos(serial),
        retain: false,
        properties: WillProperties::default(),
    };
    Connect { will: Some(will), ..lasting(client_id, Version::V5) }
}
