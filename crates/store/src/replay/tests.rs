use std::borrow::Cow;

use bytes::BytesMut;

use super::*;
use crate::record::{StoredMessage, decode, encode_message};
use crate::tests::sample::{enqueue, publish, state, stored};

const A: SessionId = SessionId(1);

/// A log: each entry in a segment of its own.
#[derive(Default)]
struct Log {
    replay: Replay,
    segment: u64,
}

impl Log {
    fn place(&mut self) -> Place {
        self.segment += 1;
        Place { segment: SegmentId(self.segment), offset: 96 }
    }

    fn record(&mut self, record: Record<'_>) -> &mut Self {
        let place = self.place();
        self.replay.apply(Entry::Record(record), place);
        self
    }

    fn message(&mut self, id: u64, topic: &str, message: impl FnOnce(&mut StoredMessage<'_>)) -> &mut Self {
        let publish = publish(topic, "payload");
        let mut given = stored(&publish, id, false);
        message(&mut given);
        let mut out = BytesMut::new();
        encode_message(MessageId(id), &given, given.retained, given.from, &mut out).unwrap();
        let place = self.place();
        self.replay.apply(decode(crate::frame::Kind::Message, &out).unwrap(), place);
        self
    }

    fn waits_for(&mut self, id: u64) -> &mut Self {
        self.record(enqueue(A, MessageId(id)))
    }

    fn finish(&mut self) -> Outcome {
        std::mem::take(&mut self.replay).finish()
    }
}

fn with_session() -> Log {
    let mut log = Log::default();
    log.record(Record::Session(state(A, "a")));
    log
}

fn waiting(outcome: &Outcome) -> Vec<u64> {
    outcome.sessions[0].waiting.iter().map(|copy| copy.message.0).collect()
}

#[test]
fn a_message_may_come_after_who_waits_for_it_and_its_latest_place_counts() {
    let mut log = with_session();
    let outcome = log.waits_for(7).message(7, "t", |_| {}).message(7, "t", |_| {}).message(8, "t", |_| {}).finish();
    assert_eq!(waiting(&outcome), [7]);
    assert_eq!(outcome.messages, [(MessageId(7), Place { segment: SegmentId(4), offset: 96 })]);
    assert_eq!(outcome.lost_messages, 0);
}

#[test]
fn a_message_that_waits_twice_leaves_once_each_time() {
    let mut log = with_session();
    log.message(7, "t", |_| {}).message(8, "t", |_| {}).waits_for(7).waits_for(8).waits_for(7);
    let outcome = log.record(Record::Sent { session: A, message: MessageId(7), packet_id: u16::MAX }).finish();
    assert_eq!(waiting(&outcome), [8, 7]);
    assert_eq!(outcome.sessions[0].next_packet_id, 1, "0 is no packet identifier");
}

#[test]
fn qos_2_from_a_client_counts_when_it_is_complete() {
    let from = Some((A, 5));
    let received = |packet_id| Record::Received { session: A, packet_id };
    // The power failed between the message and what its PUBREC waits for.
    let mut log = with_session();
    let outcome = log.message(7, "t", |message| message.from = from).waits_for(7).finish();
    assert_eq!((waiting(&outcome), outcome.messages.len(), outcome.lost_messages), (vec![], 0, 0));
    let mut log = with_session();
    log.message(7, "t", |message| message.from = from).waits_for(7).record(received(5));
    // The same identifier again, for another message; and another identifier.
    log.record(Record::ReceivedDone { session: A, packet_id: 5 });
    log.message(8, "t", |message| message.from = from).waits_for(8).record(received(6));
    assert_eq!(waiting(&log.finish()), [7]);
    // It came, the broker stopped, it came again: then it is the second one, however often the log is read.
    let mut log = with_session();
    log.message(7, "t", |message| message.from = from).waits_for(7);
    log.message(8, "t", |message| message.from = from).waits_for(8).record(received(5));
    assert_eq!(waiting(&log.finish()), [8]);
    // A retained one is its topic's message all the same.
    let mut log = with_session();
    log.message(7, "t", |message| (message.from, message.retained) = (from, true)).waits_for(7);
    let outcome = log.finish();
    assert_eq!((waiting(&outcome), outcome.retained), (vec![], vec![MessageId(7)]));
}

#[test]
fn the_latest_stamp_is_retained_whatever_the_order() {
    let retained = |message: &mut StoredMessage<'_>| message.retained = true;
    let mut log = Log::default();
    log.message(2, "t", retained).message(1, "t", retained).message(3, "u", retained);
    assert_eq!(log.finish().retained, [MessageId(2), MessageId(3)]);
    let mut log = Log::default();
    log.message(1, "t", retained).record(Record::RetainedGone { topic: "t".into() });
    let outcome = log.finish();
    assert_eq!((outcome.retained.len(), outcome.messages.len()), (0, 0));
}

#[test]
fn records_of_a_session_that_is_not_known_say_nothing() {
    let mut log = Log::default();
    let filter = Cow::Borrowed("t");
    log.waits_for(7).record(Record::Subscribe { session: A, filter, options: 0, id: None });
    assert_eq!(log.finish().sessions, []);
    let mut log = with_session();
    let outcome = log.record(Record::SessionEnd { session: A }).waits_for(7).finish();
    assert_eq!((outcome.sessions.len(), outcome.lost_messages), (0, 0));
}

#[test]
fn what_is_missing_is_counted() {
    let mut log = with_session();
    log.record(Record::Session(state(SessionId(2), "a"))).waits_for(7);
    let outcome = log.record(enqueue(SessionId(2), MessageId(7))).finish();
    assert_eq!((outcome.replaced_sessions, outcome.lost_messages), (1, 1));
    assert_eq!(outcome.sessions[0].state.session, SessionId(2));
}
