//! Messages to the client.

use super::*;
use crate::session::{Delivered, Transmit};

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

impl Client {
    fn deliver(&mut self, qos: QoS, number: u32) -> Delivered {
        self.session.deliver(delivery(qos, number, self.now))
    }
}

#[test]
fn the_window_holds_back_qos1_and_2_but_not_0() {
    let mut client = Client::connected(connect());
    for number in 1..=5 {
        assert!(client.deliver(if number % 2 == 0 { Q2 } else { Q1 }, number).dropped == 0);
    }
    assert_eq!(client.transmits(), [(Some(1), false, 1), (Some(2), false, 2), (Some(3), false, 3)]);
    assert!(!client.deliver(Q1, 6).ready, "the window is used up");
    assert!(client.deliver(Q0, 7).ready);
    assert_eq!(client.transmits(), [(Some(7), false, 0)]);
    assert_eq!(client.packet(Packet::PubAck(ack(3))), []);
    assert_eq!(client.transmits(), [(Some(4), false, 4)]);
    assert_eq!(client.packet(Packet::PubRec(ack(2))), [Action::Send(Packet::PubRel(ack(2)))]);
    assert_eq!(client.transmits(), [], "PUBREC frees no place");
    assert_eq!(client.packet(Packet::PubComp(ack(2))), []);
    assert_eq!(client.transmits(), [(Some(5), false, 5)]);
}

#[test]
fn a_client_s_receive_maximum_counts_if_it_is_lower() {
    let mut asked = connect();
    asked.properties.receive_maximum = Some(1);
    let mut client = Client::connected(asked);
    client.deliver(Q1, 1);
    client.deliver(Q1, 2);
    assert_eq!(client.transmits(), [(Some(1), false, 1)]);
    client.packet(Packet::PubAck(ack(1)));
    assert_eq!(client.transmits(), [(Some(2), false, 2)]);
}

#[test]
fn the_order_is_kept_across_qos() {
    let mut client = Client::connected(connect());
    for (number, qos) in [(1, Q0), (2, Q1), (3, Q0), (4, Q2)] {
        client.deliver(qos, number);
    }
    let numbers: Vec<_> = client.transmits().into_iter().map(|(number, _, _)| number).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn after_a_reconnect_open_exchanges_come_first_in_their_order() {
    let mut client = Client::connected(connect());
    for (number, qos) in [(1, Q1), (2, Q2), (3, Q2)] {
        client.deliver(qos, number);
    }
    client.transmits();
    client.packet(Packet::PubRec(ack(2)));
    client.lose();
    client.deliver(Q1, 4);
    client.deliver(Q0, 5);
    assert_eq!(client.transmits(), [], "nobody is there");
    client.connect(connect());
    assert!(client.session.has_transmit());
    assert_eq!(client.transmits(), [(Some(1), true, 1), (None, true, 2), (Some(3), true, 3)]);
    assert_eq!(client.packet(Packet::PubAck(ack(1))), []);
    assert_eq!(client.transmits(), [(Some(4), false, 4)], "and QoS 0 was not kept");
    assert_eq!(client.packet(Packet::PubComp(ack(2))), []);
    assert_eq!(client.packet(Packet::PubRec(ack(3))), [Action::Send(Packet::PubRel(ack(3)))]);
    assert_eq!(client.packet(Packet::PubComp(ack(3))), []);
    assert_eq!(client.packet(Packet::PubAck(ack(4))), []);
    assert!(client.session.inflight.is_empty());
}

#[test]
fn resending_keeps_to_a_smaller_window() {
    let mut client = Client::connected(connect());
    for number in 1..=3 {
        client.deliver(Q1, number);
    }
    client.transmits();
    client.lose();
    let mut asked = connect();
    asked.properties.receive_maximum = Some(2);
    client.connect(asked);
    client.deliver(Q1, 4);
    client.deliver(Q0, 5);
    assert_eq!(client.transmits(), [(Some(1), true, 1), (Some(2), true, 2), (Some(5), false, 0)]);
    client.packet(Packet::PubAck(ack(1)));
    assert_eq!(client.transmits(), [(Some(3), true, 3)]);
    client.packet(Packet::PubAck(ack(2)));
    assert_eq!(client.transmits(), [(Some(4), false, 4)]);
}

#[test]
fn acknowledgements_out_of_turn_end_the_connection() {
    for (qos, packet) in [
        (Q2, Packet::PubAck(ack(1))),
        (Q1, Packet::PubRec(ack(1))),
        (Q2, Packet::PubComp(ack(1))),
        (Q1, Packet::PubComp(ack(1))),
    ] {
        let mut client = Client::connected(connect());
        client.deliver(qos, 1);
        client.transmits();
        assert_eq!(disconnected(&client.packet(packet.clone())), Some(ReasonCode::ProtocolError), "{packet:?}");
    }
}

#[test]
fn acknowledgements_of_nothing() {
    let mut client = Client::connected(connect());
    assert_eq!(client.packet(Packet::PubAck(ack(9))), []);
    assert_eq!(client.packet(Packet::PubComp(ack(9))), []);
    let unknown = Ack { reason: ReasonCode::PacketIdentifierNotFound, ..ack(9) };
    assert_eq!(client.packet(Packet::PubRec(ack(9))), [Action::Send(Packet::PubRel(unknown))]);
}

#[test]
fn a_pubrec_with_an_error_ends_the_exchange() {
    let mut client = Client::connected(connect());
    client.deliver(Q2, 1);
    client.transmits();
    let refused = Ack { reason: ReasonCode::QuotaExceeded, ..ack(1) };
    assert_eq!(client.packet(Packet::PubRec(refused)), []);
    assert!(client.session.inflight.is_empty());
}

#[test]
fn a_pubrec_that_comes_twice_is_answered_twice() {
    let mut client = Client::connected(connect());
    client.deliver(Q2, 1);
    client.transmits();
    for _ in 0..2 {
        assert_eq!(client.packet(Packet::PubRec(ack(1))), [Action::Send(Packet::PubRel(ack(1)))]);
    }
}

#[test]
fn a_full_queue_drops_old_qos0_first_and_then_refuses() {
    let mut client = Client::connected(connect());
    client.deliver(Q0, 1);
    client.deliver(Q0, 2);
    for number in 3..=5 {
        client.deliver(Q1, number);
    }
    let told = client.deliver(Q1, 6);
    assert_eq!((told.dropped, told.overflowed), (1, true), "1 made room");
    let told = client.deliver(Q0, 7);
    assert_eq!((told.dropped, told.overflowed), (1, false), "2 made room; said once only");
    assert_eq!(client.deliver(Q1, 8).dropped, 1, "7 made room");
    assert_eq!(client.deliver(Q1, 9).dropped, 1, "refused");
    assert_eq!(client.deliver(Q0, 10).dropped, 1, "refused");
    let numbers: Vec<_> = client.transmits().into_iter().map(|(number, _, _)| number).collect();
    assert_eq!(numbers, [Some(3), Some(4), Some(5)]);
    assert_eq!(client.session.queued(), 2);
}

#[test]
fn bytes_bound_the_queue_too() {
    let mut client = Client::new(Limits { max_queued_bytes: 20, ..limits() });
    client.connect(connect());
    assert_eq!(client.deliver(Q1, 1).dropped, 0);
    assert_eq!(client.deliver(Q1, 2).dropped, 0);
    assert_eq!(client.deliver(Q1, 3).dropped, 1, "four bytes each, and a topic of three");
}

#[test]
fn properties_count_as_what_they_take_in_memory() {
    let mut client = Client::new(Limits { max_queued_bytes: 1000, ..limits() });
    client.connect(connect());
    let empty = || (text(""), text(""));
    let mut heavy = delivery(Q1, 1, client.now);
    let Message { publish, stamp, received, publisher } = heavy.message.message();
    let user_properties = std::iter::repeat_with(empty).take(20).collect();
    let properties = PublishProperties { user_properties, ..PublishProperties::default() };
    let publish = Publish { properties: Some(Box::new(properties)), ..publish.clone() };
    heavy.message =
        Shared::new(Message { publish, stamp: stamp.clone(), received: *received, publisher: *publisher }, false);
    assert_eq!(client.session.deliver(heavy).dropped, 1, "100 bytes on the wire");
    assert_eq!(client.deliver(Q1, 2).dropped, 0);
}

#[test]
fn retained_messages_count_apart() {
    let mut client = Client::connected(connect());
    for number in 1..=10 {
        let retained = Delivery { retain: true, ..delivery(Q0, number, client.now) };
        assert_eq!(client.session.deliver_retained(retained).dropped, 0);
    }
    assert_eq!(client.session.deliver_retained(delivery(Q0, 11, client.now)).dropped, 1, "as many as can be retained");
    assert_eq!(client.deliver(Q1, 12).dropped, 0);
    assert_eq!(client.transmits().len(), 11);
}

#[test]
fn half_a_queue_is_congestion_and_a_full_one_is_not() {
    let mut client = Client::connected(connect());
    let congested: Vec<_> = (1..=6).map(|number| client.deliver(Q1, number).congested).collect();
    assert_eq!(congested, [false, false, true, true, true, false]);
    client.lose();
    assert!(!client.deliver(Q1, 7).congested, "nobody is there to catch up");
}

#[test]
fn an_absent_client_keeps_qos1_and_2() {
    let mut client = Client::connected(connect());
    client.deliver(Q0, 1);
    client.deliver(Q1, 2);
    client.lose();
    client.deliver(Q0, 3);
    client.deliver(Q2, 4);
    assert_eq!(client.session.queued(), 2);
    client.connect(connect());
    assert_eq!(client.transmits(), [(Some(2), false, 1), (Some(4), false, 2)]);
}

#[test]
fn waiting_messages_share_one_copy_of_their_own() {
    let mut first = Client::connected(connect());
    let mut second = Client::connected(connect());
    let message = delivery(Q1, 1, first.now);
    for client in [&mut first, &mut second] {
        client.lose();
        client.session.deliver(message.clone());
        client.connect(connect());
    }
    let take = |client: &mut Client| match client.session.poll_transmit(client.now) {
        Some(Transmit::Publish { delivery, .. }) => delivery.message,
        other => panic!("{other:?}"),
    };
    let (one, other) = (take(&mut first), take(&mut second));
    assert!(Arc::ptr_eq(&one, &other));
    assert!(!Arc::ptr_eq(&one, &message.message), "not the one that holds the read buffer");
}

#[test]
fn expired_messages_are_not_sent_and_others_say_how_long_they_have() {
    let mut client = Client::connected(connect());
    client.lose();
    for (number, expiry) in [(1, 10), (2, 60)] {
        client.session.deliver(with_expiry(Q1, number, client.now, Some(expiry)));
    }
    client.now += Duration::from_millis(10_999);
    client.connect(connect());
    let transmit = client.session.poll_transmit(client.now).unwrap();
    let mut out = bytes::BytesMut::new();
    transmit.write(Version::V5, None, client.now, &mut out).unwrap();
    let decoded = evermq_mqtt::codec::decode(&mut out, Version::V5, &evermq_mqtt::codec::Limits::default());
    let Ok(Some(Packet::Publish(sent))) = decoded else { panic!("{decoded:?}") };
    assert_eq!(sent.payload[..], 2_u32.to_be_bytes());
    assert_eq!(sent.properties.unwrap().message_expiry, Some(50));
    assert_eq!(client.transmits(), []);
}

#[test]
fn what_is_too_large_for_the_client_counts_as_sent() {
    let mut asked = connect();
    // PUBLISH with topic a/b: 2 + 5 + 2 + 1 bytes and the payload.
    asked.properties.maximum_packet_size = Some(14);
    let mut client = Client::connected(asked);
    client.deliver(Q1, 1);
    assert_eq!(client.transmits(), [(Some(1), false, 1)]);

    client.lose();
    let mut smaller = connect();
    smaller.properties.maximum_packet_size = Some(13);
    client.connect(smaller);
    client.deliver(Q1, 2);
    assert_eq!(client.transmits(), []);
    assert!(client.session.inflight.is_empty());
}

#[test]
fn identifiers_wrap_around_and_skip_none_that_is_open() {
    let mut client = Client::connected(connect());
    let mut expected = 1_u16;
    for number in 0..140_000 {
        client.deliver(Q1, number);
        assert_eq!(client.transmits(), [(Some(number), false, expected)]);
        client.packet(Packet::PubAck(ack(expected)));
        expected = expected.checked_add(1).unwrap_or(1);
    }
}

#[test]
fn many_small_messages_do_not_keep_many_large_buffers() {
    let mut client = Client::new(Limits { max_queued_messages: 1000, max_queued_bytes: 1_000_000, ..limits() });
    client.connect(connect());
    let buffers: Vec<_> = (0..200).map(|_| Bytes::from(vec![0; 1 << 17])).collect();
    for buffer in &buffers {
        let mut delivery = delivery(Q1, 0, client.now);
        let mut message = delivery.message.message().clone();
        message.publish.payload = buffer.slice(..4);
        delivery.message = Shared::new(message, true);
        client.session.deliver(delivery);
    }
    let kept = buffers.iter().filter(|buffer| !buffer.is_unique()).count();
    assert!((32..=64).contains(&kept), "{kept}");
}

#[test]
fn messages_of_one_buffer_share_it() {
    let mut client = Client::new(Limits { max_queued_messages: 1000, max_queued_bytes: 1_000_000, ..limits() });
    client.connect(connect());
    let buffer = Bytes::from(vec![0; 4000]);
    for at in 0..1000 {
        let mut delivery = delivery(Q1, 0, client.now);
        let mut message = delivery.message.message().clone();
        message.publish.payload = buffer.slice(at * 4..at * 4 + 4);
        delivery.message = Shared::new(message, true);
        client.session.deliver(delivery.clone());
        let waiting = client.session.queue.last().unwrap();
        assert!(Arc::ptr_eq(&waiting.message, &delivery.message), "copied at {at}");
    }
}

#[test]
fn a_client_that_keeps_one_message_open_gets_all_others() {
    // Its Receive Maximum is 3: the one takes a third of it, and nothing else.
    let mut client = Client::connected(connect());
    client.deliver(Q2, 0);
    assert_eq!(client.transmits(), [(Some(0), false, 1)]);
    for number in 1..70_000 {
        client.deliver(Q1, number);
        let [(Some(got), false, packet_id)] = client.transmits()[..] else { panic!("message {number} is held up") };
        assert!(got == number && packet_id != 1);
        client.packet(Packet::PubAck(ack(packet_id)));
    }
    for number in [1, 2, 3] {
        client.deliver(Q1, number);
    }
    assert_eq!(client.transmits().len(), 2, "the window is what it was");
    client.packet(Packet::PubRec(ack(1)));
    client.packet(Packet::PubComp(ack(1)));
    assert_eq!(client.transmits().len(), 1);
}
