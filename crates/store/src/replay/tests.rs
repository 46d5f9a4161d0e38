use std::borrow::Cow;

use bytes::BytesMut;

use super::*;
use crate::record::{OriginLog, StoredMessage, decode, encode_message};
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
fn a_message_that_moves_is_with_one_session_only() {
    const B: SessionId = SessionId(2);
    let moved = |message| {
        let waiting =
            Waiting { message: MessageId(message), qos: QoS::AtLeastOnce, retain: false, ids: Cow::Owned(Vec::new()) };
        Record::Moved { from: A, session: B, waiting }
    };
    let mut log = with_session();
    log.record(Record::Session(state(B, "b"))).message(7, "t", |_| {}).message(8, "t", |_| {}).message(9, "t", |_| {});
    log.waits_for(7).waits_for(8).waits_for(9);
    log.record(Record::Sent { session: A, message: MessageId(7), packet_id: 1 });
    let outcome = log.record(moved(7)).record(moved(9)).finish();
    let waiting = |index: usize| outcome.sessions[index].waiting.iter().map(|copy| copy.message.0).collect::<Vec<_>>();
    assert_eq!((waiting(0), outcome.sessions[0].inflight.len(), waiting(1)), (vec![8], 0, vec![7, 9]));
}

#[test]
fn qos_2_from_a_client_counts_when_it_is_complete() {
    let from = Some(Source::Client { session: A, packet_id: 5 });
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

fn origin_log(first: u64) -> Record<'static> {
    Record::OriginLog(OriginLog { epoch: 9, reserved: 100, first, kept: 0 })
}

fn forward(id: u64) -> Record<'static> {
    Record::Forward { seq: id * 10, message: MessageId(id), giver: None, directions: Cow::default() }
}

#[test]
fn the_origin_log_has_what_others_may_need_and_the_latest_word_counts() {
    let mut log = Log::default();
    log.record(origin_log(1));
    for id in 1..=5 {
        log.message(id, "t", |_| {}).record(forward(id));
    }
    let cursor = |seq| Record::PeerCursor { peer: "b".into(), seq };
    // Written again by a checkpoint, and one whose message is gone.
    log.record(forward(4)).record(forward(7)).record(cursor(10)).record(cursor(20));
    log.record(Record::OriginLog(OriginLog { epoch: 9, reserved: 60, first: 30, kept: 20 }));
    let outcome = log.record(forward(2)).finish();
    assert_eq!(outcome.mesh.forwards, [3, 4, 5].map(|id| (id * 10, MessageId(id), Box::default())));
    assert_eq!(outcome.mesh.log.map(|(log, _)| log), Some(OriginLog { epoch: 9, reserved: 60, first: 30, kept: 20 }));
    assert_eq!(outcome.mesh.cursors, [("b".into(), 20)]);
    assert_eq!((outcome.messages.len(), outcome.lost_messages), (3, 0), "what peers need is kept");
}

#[test]
fn an_incomplete_message_of_a_client_is_not_for_peers_either() {
    let from = Some(Source::Client { session: A, packet_id: 5 });
    let mut log = with_session();
    log.record(origin_log(1)).message(7, "t", |message| message.from = from).record(forward(7));
    assert_eq!(log.finish().mesh.forwards, []);
    let mut log = with_session();
    log.record(origin_log(1)).message(7, "t", |message| message.from = from).record(forward(7));
    let outcome = log.record(Record::Received { session: A, packet_id: 5 }).finish();
    assert_eq!(outcome.mesh.forwards, [(70, MessageId(7), Box::default())]);
}

#[test]
fn a_message_that_a_session_gives_to_another_broker_is_not_the_sessions_any_more() {
    let directions = Cow::Borrowed(&b"to broker-2"[..]);
    let mut log = with_session();
    log.record(origin_log(1)).message(7, "t", |_| {}).waits_for(7).message(8, "t", |_| {}).waits_for(8);
    log.record(Record::Forward { seq: 1, message: MessageId(8), giver: Some(A), directions });
    let outcome = log.finish();
    let waiting: Vec<_> = outcome.sessions[0].waiting.iter().map(|copy| copy.message).collect();
    assert_eq!(waiting, [MessageId(7)]);
    assert_eq!(outcome.mesh.forwards, [(1, MessageId(8), Box::from(&b"to broker-2"[..]))]);
}

#[test]
fn a_peers_message_counts_when_its_place_is_applied() {
    fn applied(epoch: u64, seq: u64) -> Record<'static> {
        Record::Applied { origin: "broker-1".into(), epoch, seq }
    }
    let came = |log: &mut Log, id, epoch, seq| {
        log.message(id, "t", |message| message.from = Some(Source::Peer { epoch, seq })).waits_for(id);
    };
    let mut log = with_session();
    log.record(applied(1, 4));
    came(&mut log, 7, 1, 5);
    log.record(applied(1, 5));
    came(&mut log, 8, 1, 6);
    came(&mut log, 9, 1, 7);
    // It has another log now, of which nothing was ever applied.
    came(&mut log, 10, 2, 1);
    let outcome = log.finish();
    assert_eq!(waiting(&outcome), [7, 10], "8 and 9 come again");
    assert_eq!(outcome.forgotten, [(A, MessageId(8)), (A, MessageId(9))]);

    // The broker starts, says so, and both come again.
    let mut log = with_session();
    log.record(applied(1, 4));
    came(&mut log, 8, 1, 5);
    log.record(Record::Dropped { session: A, message: MessageId(8) });
    came(&mut log, 9, 1, 5);
    let outcome = log.record(applied(1, 5)).finish();
    assert_eq!((waiting(&outcome), outcome.forgotten.len()), (vec![9], 0));
}

#[test]
fn the_log_of_a_peer_that_was_used_last_is_the_last() {
    let applied = |epoch, seq| Record::Applied { origin: "b".into(), epoch, seq };
    let mut log = Log::default();
    log.record(applied(1, 5)).record(applied(2, 1)).record(applied(2, 2)).record(applied(1, 6)).record(applied(1, 7));
    let got: Vec<_> = log.finish().mesh.applied.iter().map(|applied| (applied.epoch, applied.seq)).collect();
    assert_eq!(got, [(2, 2), (1, 7)]);
}

#[test]
fn a_will_that_is_due_is_there_until_it_is_with_all_who_get_it() {
    let will = SessionId(9);
    let with_will = |publish: &'static [u8]| SessionState {
        will: Some(StoredWill { delay: 5, publish: Cow::Borrowed(publish) }),
        ..state(A, "a")
    };
    let due = |session| Record::WillDue { will, session, publish: Cow::Borrowed(b"gone") };
    let from = Some(Source::Will { will });
    // Whatever prefix of the log is there: it is the session's, or it is due, or it has gone out.
    let mut log = Log::default();
    let session_has = |outcome: &Outcome| outcome.sessions[0].state.will.is_some();
    let outcome = log.record(Record::Session(with_will(b"gone"))).finish();
    assert_eq!((session_has(&outcome), outcome.wills.len()), (true, 0));
    let prefix = |log: &mut Log| {
        log.record(Record::Session(with_will(b"gone"))).record(due(A));
    };
    prefix(&mut log);
    let outcome = log.finish();
    assert_eq!((session_has(&outcome), &outcome.wills[..]), (false, &[(will, Box::from(*b"gone"))][..]));
    // It has reached some: they wait for the one that goes out after the restart, not for this one too.
    prefix(&mut log);
    let outcome = log.message(7, "t", |message| message.from = from).waits_for(7).finish();
    assert_eq!((waiting(&outcome), outcome.wills.len(), outcome.lost_messages), (vec![], 1, 0));
    assert_eq!(outcome.forgotten, [(A, MessageId(7))], "the log still says that it waits for it");
    prefix(&mut log);
    log.message(7, "t", |message| message.from = from).waits_for(7);
    log.message(8, "t", |message| message.from = from).waits_for(8).record(Record::WillSent { will });
    let outcome = log.finish();
    assert_eq!((waiting(&outcome), outcome.wills.len()), (vec![8], 0));
    // Written again by a checkpoint, it is not that of a session which has another one by then.
    prefix(&mut log);
    let outcome = log.record(Record::Session(with_will(b"other"))).record(due(SessionId(0))).finish();
    assert_eq!((session_has(&outcome), outcome.wills.len(), outcome.sessions.len()), (true, 1, 1));
    // Its number is not given out again.
    prefix(&mut log);
    assert_eq!(log.replay.next_session, 10);
}
