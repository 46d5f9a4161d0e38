//! Clients that are in and make small things large: what they send stays within what it costs.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use evermq_broker::connection::clock;
use evermq_mqtt::packet::{Ack, Connect, Subscribe, SubscribeFilter, SubscriptionOptions};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, TopicFilter, Version};

use crate::client::{Client, connect, id, message, resume, text};
use crate::program::Program;
use crate::running::{Site, start_with};

/// A PUBLISH of QoS 1 to "t" without payload, and with as many empty user properties as fit into `len` bytes.
fn with_many_properties(number: u16, len: usize) -> BytesMut {
    let pairs = (len - 20) / 5;
    let mut body = BytesMut::new();
    body.put_slice(b"\x00\x01t");
    body.put_u16(number);
    integer(pairs * 5, &mut body);
    (0..pairs).for_each(|_| body.put_slice(b"\x26\0\0\0\0"));
    let mut packet = BytesMut::new();
    packet.put_u8(0x32);
    integer(body.len(), &mut packet);
    packet.unsplit(body);
    packet
}

/// A variable byte integer.
fn integer(mut value: usize, out: &mut BytesMut) {
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// A user property has five bytes on the wire, and a dozen times as many in memory: that is what counts.
#[test]
fn messages_of_properties_only_do_not_fill_memory() {
    let site = Site::new();
    let program = Program::start(&site, "max_queued_bytes = \"16MiB\"", None);
    let (mut away, _) = Client::open(program.plain, resume("away"));
    away.subscribe_at("t", QoS::AtLeastOnce);
    away.disconnect(ReasonCode::Success);
    let mut publisher = program.client("p");
    let before = program.resident();
    for number in 1..=40 {
        publisher.send_bytes(&with_many_properties(number, 1 << 20));
        assert!(matches!(publisher.receive(), Packet::PubAck(ack) if ack.packet_id == id(number)));
    }
    // One waits, a few are read and written; in all it would be half a gigabyte.
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 150 * 1024, "{grown} kB more");
    publisher.expect_nothing();
}

/// All filters of eight levels that match one topic, many times over: each client gets one copy, and that at once.
#[test]
fn wildcards_that_overlap_lead_to_one_copy_for_each_client() {
    const LEVELS: u32 = 8;
    let (_site, broker) = start_with(|config| config.max_subscriptions = 1 << LEVELS);
    let level = |mask: u32, at: u32| if mask & (1 << at) != 0 { "+" } else { "a" };
    let filter = |mask: u32| (0..LEVELS).map(|at| level(mask, at)).collect::<Vec<_>>().join("/");
    let filters: Vec<_> = (0..1 << LEVELS)
        .map(|mask| SubscribeFilter {
            filter: TopicFilter::new(text(&filter(mask))).unwrap(),
            options: SubscriptionOptions::default(),
        })
        .collect();
    let mut clients: Vec<Client> = (0..20).map(|number| broker.client(&format!("c{number}"))).collect();
    for client in &mut clients {
        let properties = SubscribeProperties::default();
        client.send(&Packet::Subscribe(Subscribe { packet_id: id(1), filters: filters.clone(), properties }));
        let Packet::SubAck(suback) = client.receive() else { panic!("no SUBACK") };
        assert!(suback.reasons.iter().all(|reason| !reason.is_error()));
    }
    let mut publisher = broker.client("p");
    let topic = filter(0);
    let began = clock();
    for number in 0..100 {
        publisher.send(&Packet::Publish(message(&topic, &number.to_string())));
    }
    publisher.expect_nothing();
    for client in &mut clients {
        for number in 0..100 {
            assert_eq!(client.message().1, number.to_string());
        }
        client.expect_nothing();
    }
    // 512,000 subscriptions have matched.
    assert!(clock() - began < Duration::from_secs(10));
}

#[test]
fn topics_of_very_many_levels_are_refused_one_by_one() {
    let site = Site::new();
    let program = Program::start(&site, "max_subscriptions = 100", None);
    let mut client = program.client("c");
    let deep = "/".repeat(usize::from(u16::MAX));
    let before = program.resident();
    for _ in 0..100 {
        assert_eq!(client.publish(message(&deep, "x"), QoS::AtLeastOnce), ReasonCode::TopicNameInvalid);
        assert_eq!(client.subscribe(&deep, SubscriptionOptions::default()), ReasonCode::TopicFilterInvalid);
    }
    // As many as there may be, each as long as can be.
    let long = |number: usize| format!("{number}/{}", "x".repeat(60_000));
    for number in 0..200 {
        let reason = client.subscribe(&long(number), SubscriptionOptions::default());
        assert_eq!(reason.is_error(), number >= 100, "{reason:?}");
    }
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 60 * 1024, "{grown} kB more");
}

/// Before MQTT 5.0 nothing but the identifiers bounds how many messages of QoS 2 a client leaves open.
#[test]
fn a_client_that_never_releases_its_identifiers_uses_them_up() {
    let site = Site::new();
    let program = Program::start(&site, "", None);
    let mut reader = program.client("reader");
    reader.subscribe_at("t", QoS::AtMostOnce);
    let (mut client, _) = Client::open(program.plain, Connect { version: Version::V4, ..connect("c") });
    let before = program.resident();
    let publish = |number: u16| {
        let qos = QoS::ExactlyOnce;
        Packet::Publish(Publish { qos, packet_id: Some(id(number)), ..message("t", &number.to_string()) })
    };
    for numbers in (1..=u16::MAX).collect::<Vec<_>>().chunks(200) {
        numbers.iter().for_each(|number| client.send(&publish(*number)));
        for number in numbers {
            assert!(matches!(client.receive(), Packet::PubRec(ack) if ack.packet_id == id(*number)));
            assert_eq!(reader.message().1, number.to_string());
        }
    }
    // Each identifier is that of a message now, so what comes is that message.
    client.send(&publish(7));
    assert!(matches!(client.receive(), Packet::PubRec(ack) if ack.packet_id == id(7)));
    reader.expect_nothing();
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} kB more");
    client.send(&Packet::PubRel(Ack { packet_id: id(7), reason: ReasonCode::Success, properties: None }));
    assert!(matches!(client.receive(), Packet::PubComp(_)));
    client.send(&publish(7));
    assert!(matches!(client.receive(), Packet::PubRec(_)));
    assert_eq!(reader.message().1, "7");
}

/// The broker's own identifiers for one client: what is beyond them waits.
#[test]
fn a_client_that_never_acknowledges_uses_up_the_broker_s_identifiers() {
    const COUNT: usize = 70_000;
    let site = Site::new();
    let program = Program::start(&site, "max_inflight = 65535\nmax_queued_messages = 100000", None);
    let (mut client, _) = Client::open(program.plain, connect("c"));
    client.subscribe_at("t", QoS::AtLeastOnce);
    let mut reader = program.client("reader");
    reader.subscribe_at("t", QoS::AtMostOnce);
    let mut publisher = program.client("p");
    let mut seen = BTreeSet::new();
    let mut take = |client: &mut Client, number: usize| {
        let Packet::Publish(publish) = client.receive() else { panic!("not a PUBLISH") };
        assert_eq!(publish.payload, number.to_string());
        assert!(seen.insert(publish.packet_id.unwrap()) || number >= usize::from(u16::MAX), "in use");
    };
    for numbers in (0..COUNT).collect::<Vec<_>>().chunks(200) {
        for number in numbers {
            let publish = Publish { packet_id: Some(id(1)), ..message("t", &number.to_string()) };
            publisher.send(&Packet::Publish(Publish { qos: QoS::AtLeastOnce, ..publish }));
        }
        for number in numbers {
            assert!(matches!(publisher.receive(), Packet::PubAck(_)));
            assert_eq!(reader.message().1, number.to_string());
            if *number < usize::from(u16::MAX) {
                take(&mut client, *number);
            }
        }
    }
    client.expect_nothing();
    let ack = |packet_id| Packet::PubAck(Ack { packet_id, reason: ReasonCode::Success, properties: None });
    // Whichever is acknowledged, there is an identifier again, also where older ones stay open.
    for (number, packet_id) in (usize::from(u16::MAX)..COUNT).zip([5, 3].into_iter().chain(6..=u16::MAX)) {
        client.send(&ack(id(packet_id)));
        take(&mut client, number);
        if number > usize::from(u16::MAX) + 50 {
            break;
        }
    }
}

/// Many clients, each with the beginning of a packet of a megabyte: they cost what they have sent, and time does not stand still
/// for who sends a byte now and then.
#[test]
fn packets_that_never_end_cost_what_has_come_of_them() {
    let site = Site::new();
    let program = Program::start(&site, "", None);
    let mut inside = program.client("inside");
    let before = program.resident();
    let mut slow: Vec<Client> = (0..200).map(|number| program.client(&format!("slow{number}"))).collect();
    let begin = b"\x30\xf0\xff\x3f\x00\x01t\x00xxx";
    for client in &mut slow {
        client.send_bytes(begin);
    }
    for _ in 0..5 {
        slow.iter_mut().for_each(|client| client.send_bytes(b"x"));
        inside.expect_nothing();
    }
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} kB more");
    let (mut late, _) = Client::open(program.plain, Connect { keep_alive: 1, ..connect("late") });
    late.send_bytes(begin);
    let began = clock();
    while clock() - began < Duration::from_millis(1400) {
        late.send_bytes(b"x");
        inside.expect_nothing();
    }
    late.expect_disconnect(ReasonCode::KeepAliveTimeout);
}

/// A CONNECT of properties only, as large as one may be, again and again.
#[test]
fn a_connect_of_properties_only_leaves_nothing_behind() {
    let site = Site::new();
    let program = Program::start(&site, "", None);
    let mut inside = program.client("inside");
    let user_properties = vec![(text(""), text("")); 12_000];
    let properties = ConnectProperties { user_properties, ..ConnectProperties::default() };
    let connect = Connect { properties, ..connect("c") };
    Client::open(program.plain, connect.clone());
    let before = program.resident();
    for _ in 0..200 {
        Client::open(program.plain, connect.clone());
    }
    inside.expect_nothing();
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} kB more");
}
