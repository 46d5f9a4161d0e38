use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evermq_bridge::{Message, Stamp};
use evermq_mqtt::{Publish, QoS, Text, TopicName};

use super::*;
use crate::message::Shared;

const BOUNDS: Bounds = Bounds { messages: 10_000, bytes: 100 << 20, retained: 10 };

#[expect(clippy::disallowed_methods, reason = "when it came does not matter")]
fn delivery(qos: QoS, payload: usize) -> Delivery {
    let topic = TopicName::new(Text::new("t").unwrap()).unwrap();
    let payload = Bytes::from(vec![7; payload]);
    let publish = Publish { dup: false, qos, retain: false, topic, packet_id: None, properties: None, payload };
    let message =
        Message { publish, stamp: Stamp { time: 1, origin: "here".into() }, received: Instant::now(), publisher: None };
    Delivery { message: Shared::new(message, false), qos, retain: false, ids: None, share: None }
}

fn queue() -> Queue {
    Queue::new(Arc::new(Budget::new(1 << 30)))
}

#[test]
fn a_message_that_fills_a_buffer_is_never_copied() {
    let mut queue = queue();
    let all: Vec<_> = (0..MAX_BUFFERS * 2).map(|_| delivery(QoS::AtLeastOnce, 64 * 1024)).collect();
    for delivery in &all {
        assert_eq!(queue.push(delivery.clone(), BOUNDS), Pushed::Queued);
    }
    for delivery in &all {
        let popped = queue.pop(true).unwrap();
        assert!(Arc::ptr_eq(&popped.message, &delivery.message));
    }
}

#[test]
fn smaller_ones_keep_a_bounded_number_of_buffers() {
    let mut queue = queue();
    // Each in a buffer of its own that is much larger.
    let buffers: Vec<_> = (0..MAX_BUFFERS * 2).map(|_| Bytes::from(vec![7; PAGE * PAGES as usize * 2])).collect();
    for buffer in &buffers {
        let mut delivery = delivery(QoS::AtLeastOnce, 0);
        let publish = Publish { payload: buffer.slice(..100), ..delivery.message.message().publish.clone() };
        let Message { stamp, received, publisher, .. } = delivery.message.message().clone();
        delivery.message = Shared::new(Message { publish, stamp, received, publisher }, false);
        assert_eq!(queue.push(delivery, BOUNDS), Pushed::Queued);
    }
    let is_kept = |popped: &Delivery| {
        buffers.iter().any(|buffer| buffer.as_ptr() == popped.message.message().publish.payload.as_ptr())
    };
    let kept = std::iter::from_fn(|| queue.pop(true)).filter(is_kept).count();
    assert!(kept <= MAX_BUFFERS, "{kept}");
}

#[test]
fn what_is_taken_out_gives_back_what_it_was_counted_for() {
    let mut queue = queue();
    for payload in [0, 10, 70_000] {
        for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
            assert_eq!(queue.push(delivery(qos, payload), BOUNDS), Pushed::Queued);
        }
    }
    assert_eq!(queue.bytes(), 2 * (3 + 10 + 70_000));
    queue.look_ahead();
    queue.detach();
    assert_eq!(queue.len(), 6);
    queue.clear_qos0();
    assert_eq!(queue.bytes(), 3 + 10 + 70_000);
    while queue.pop(true).is_some() {}
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    queue.look_ahead();
}
