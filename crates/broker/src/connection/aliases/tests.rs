use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use evermq_bridge::{Message, Stamp};
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, TopicName};

use super::*;
use crate::message::Shared;

fn transmit(topic: &str, qos: QoS, many: bool, properties: Option<PublishProperties>) -> Transmit {
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
        packet_id: None,
        properties: properties.map(Box::new),
        payload: Bytes::from_static(b"payload"),
    };
    let stamp = Stamp { time: 1, origin: "here".into() };
    let message = Arc::new(Message { publish, stamp, received: crate::connection::clock(), publisher: None });
    let delivery = Delivery { message: Shared::new(message, many), qos, retain: false, ids: None, share: None };
    let packet_id = (qos > QoS::AtMostOnce).then_some(PacketId(NonZeroU16::MIN));
    Transmit::Publish { delivery, dup: false, packet_id }
}

/// The alias that each topic's packet gets, and whether the packet sets it.
fn choose(aliases: &mut Aliases, topic: &str) -> Option<(u16, bool)> {
    let alias =
        aliases.choose(&transmit(topic, QoS::AtMostOnce, true, None), Version::V5, crate::connection::clock())?;
    Some((alias.number.get(), alias.is_new))
}

#[test]
fn the_first_topics_get_one_at_once_and_later_ones_must_come_twice() {
    let mut aliases = Aliases::new(2, u32::MAX);
    assert!(aliases.table.is_none());
    assert_eq!(choose(&mut aliases, "t/12"), None, "too short to save anything");
    assert_eq!(choose(&mut aliases, "sensor/1"), Some((1, true)));
    assert_eq!(choose(&mut aliases, "sensor/2"), Some((2, true)));
    assert_eq!(choose(&mut aliases, "sensor/1"), Some((1, false)));
    assert_eq!(choose(&mut aliases, "sensor/3"), None);
    // The hand takes the hits of others first.
    let given: Vec<_> = (0..6).filter_map(|_| choose(&mut aliases, "sensor/3")).collect();
    assert!(matches!(given[..], [(_, true), (_, false), ..]), "{given:?}");
}

#[test]
fn nobody_gets_one_who_takes_none() {
    let mut aliases = Aliases::new(0, u32::MAX);
    assert!((0..10).all(|_| choose(&mut aliases, "sensor/1").is_none()));
    assert!(aliases.table.is_none());
}

#[test]
fn topics_that_come_often_keep_theirs() {
    let mut aliases = Aliases::new(4, u32::MAX);
    let mut saved = 0;
    for round in 0..500 {
        for often in ["often/1", "often/2", "often/3"] {
            saved += usize::from(matches!(choose(&mut aliases, often), Some((_, false))));
        }
        // Twice in a row, so that each of them asks for an alias.
        let rare = format!("rare/{round}");
        choose(&mut aliases, &rare);
        if let Some((number, _)) = choose(&mut aliases, &rare) {
            assert!((1..=4).contains(&number));
        }
    }
    assert!(saved > 1400, "{saved} of 1500");
    assert_eq!(aliases.table.unwrap().by_topic.len(), 4);
}

#[test]
fn a_packet_is_never_larger_than_the_client_takes() {
    let plain = transmit("sensor/1", QoS::AtMostOnce, true, None);
    let Transmit::Publish { delivery, .. } = &plain else { unreachable!() };
    let len = u32::try_from(delivery.encoded_len(Version::V5, crate::connection::clock()).unwrap()).unwrap();
    for (max, expected) in [(len, false), (len + 2, false), (len + 5, true)] {
        let mut aliases = Aliases::new(2, max);
        assert_eq!(choose(&mut aliases, "sensor/1").is_some(), expected, "{max}");
    }
}

#[test]
fn an_alias_that_was_not_written_is_not_used() {
    let mut aliases = Aliases::new(2, u32::MAX);
    let set = choose(&mut aliases, "sensor/1").unwrap();
    aliases.withdraw(Some(Alias { number: NonZeroU16::new(set.0).unwrap(), is_new: true }));
    assert!(!matches!(choose(&mut aliases, "sensor/1"), Some((_, false))));
}

/// A client that keeps to the standard gets the topic and all else of each message, whichever way it is encoded.
#[test]
fn what_is_written_says_the_same() {
    let long = "sensor/".to_owned() + &"x".repeat(200);
    let user = |len: usize| PublishProperties {
        payload_is_utf8: Some(true),
        user_properties: vec![(Text::new("k").unwrap(), Text::new(&"v".repeat(len)).unwrap())],
        ..PublishProperties::default()
    };
    let expiring = PublishProperties { message_expiry: Some(100), ..PublishProperties::default() };
    let now = crate::connection::clock();
    for topic in ["sensor/1", &long] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            // 120 and 121: the length of the properties, and that of the packet, gets one byte more.
            for properties in
                [None, Some(user(1)), Some(user(116)), Some(user(118)), Some(user(120)), Some(expiring.clone())]
            {
                for many in [true, false] {
                    let transmit = transmit(topic, qos, many, properties.clone());
                    let number = NonZeroU16::new(7).unwrap();
                    let mut packets = Vec::new();
                    for alias in [None, Some(Alias { number, is_new: true }), Some(Alias { number, is_new: false })] {
                        let mut out = BytesMut::new();
                        transmit.write(Version::V5, alias, now, &mut out).unwrap();
                        let decoded = codec::decode(&mut out, Version::V5, &Limits::default()).unwrap().unwrap();
                        assert!(out.is_empty());
                        let Packet::Publish(publish) = decoded else { panic!("no PUBLISH") };
                        packets.push(publish);
                    }
                    let [plain, mut sets, mut uses] = <[Publish; 3]>::try_from(packets).unwrap();
                    assert_eq!(uses.topic.as_str(), "");
                    uses.topic = plain.topic.clone();
                    for aliased in [&mut sets, &mut uses] {
                        let found = aliased.properties.as_mut().unwrap();
                        assert_eq!(found.topic_alias.take(), Some(7));
                        if **found == PublishProperties::default() {
                            aliased.properties = None;
                        }
                    }
                    assert_eq!((&sets, &uses), (&plain, &plain));
                }
            }
        }
    }
}
