use std::time::Duration;

use bytes::BytesMut;

use super::*;
use crate::directions::{Directions, GroupId};
use crate::frame::{Claim, Entry, Head, Retained};

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}

fn hello(instance: u64) -> Hello {
    Hello { oldest: 1, newest: 1, minor: 0, instance, cluster: "c".into(), host: "origin".into(), last: None }
}

fn entry(seq: u64) -> Entry {
    Entry { head: Head { seq, age: 0, time: seq, publisher: None }, packet: BytesMut::new() }
}

fn actions(inbound: &mut Inbound) -> Vec<Action> {
    std::iter::from_fn(|| inbound.poll_action()).collect()
}

fn welcome(resume: Option<u64>) -> Action {
    Action::Send(Frame::Welcome(Welcome { version: 1, minor: MINOR, instance: 7, resume, max_body: 1000 }))
}

fn ack(seq: u64) -> Action {
    Action::Send(Frame::Ack { seq })
}

fn deliver(seq: u64) -> Action {
    Action::Deliver { epoch: 1, entry: entry(seq), directions: None }
}

fn record(seq: u64) -> Action {
    Action::Record { epoch: 1, seq }
}

/// What is more than QoS 0.
fn kept(seq: u64) -> Entry {
    Entry { packet: BytesMut::from(&[0x32][..]), ..entry(seq) }
}

/// The disk keeps whatever it is given, at once.
fn settle(inbound: &mut Inbound) -> Vec<Action> {
    inbound.handle_read_end();
    let mut all = Vec::new();
    while let Some(action) = inbound.poll_action() {
        if let Action::Record { epoch, seq } = action {
            inbound.handle_recorded(epoch, seq);
        }
        all.push(action);
    }
    all
}

/// A link on which the snapshot ended at `base`.
fn linked(base: u64, now: Instant) -> (Inbound, LinkId) {
    let mut inbound = Inbound::new(7, 1000);
    let id = inbound.handle_hello(&hello(1), now);
    inbound.handle_frame(Frame::SnapshotEnd { base });
    settle(&mut inbound);
    (inbound, id)
}

fn is_broken_off(actions: &[Action]) -> bool {
    matches!(
        actions,
        [
            Action::Send(Frame::Error { .. }),
            Action::Close,
            Action::Changed(Change { violated: true, to: "no link", .. })
        ]
    )
}

#[test]
fn a_new_origin_is_welcomed_and_gives_its_snapshot_first() {
    let now = start();
    let mut inbound = Inbound::new(7, 1000);
    let id = inbound.handle_hello(&hello(1), now);
    assert!(inbound.is_current(id));
    assert!(matches!(&actions(&mut inbound)[..], [first, Action::Changed(_)] if *first == welcome(None)));
    let retained = Retained { age: 0, time: 1, origin: "x".into(), packet: BytesMut::new() };
    inbound.handle_frame(Frame::Retained(retained.clone()));
    inbound.handle_frame(Frame::SnapshotEnd { base: 4 });
    inbound.handle_frame(Frame::Entry(entry(5)));
    inbound.handle_frame(Frame::Entry(entry(6)));
    assert_eq!(settle(&mut inbound), [Action::ApplyRetained(retained), deliver(5), deliver(6), record(6), ack(6)]);
    assert_eq!(settle(&mut inbound), [], "one acknowledgement is enough");
}

#[test]
fn what_came_before_is_not_delivered_again() {
    let (mut inbound, _) = linked(0, start());
    for seq in [1, 2, 1, 2, 3] {
        inbound.handle_frame(Frame::Entry(entry(seq)));
    }
    inbound.handle_read_end();
    assert_eq!(
        actions(&mut inbound),
        [deliver(1), deliver(2), Action::Duplicate, Action::Duplicate, deliver(3), ack(3)]
    );
}

#[test]
fn a_hole_breaks_the_connection_off() {
    let frames: [Frame; 5] = [
        Frame::Entry(entry(7)),
        Frame::Gap(Range { from: 7, to: 9 }),
        Frame::Skip(Range { from: 7, to: 9 }),
        Frame::SnapshotEnd { base: 9 },
        Frame::Pong,
    ];
    for frame in frames {
        let (mut inbound, id) = linked(5, start());
        inbound.handle_frame(frame.clone());
        assert!(is_broken_off(&actions(&mut inbound)), "{frame:?}");
        assert!(!inbound.is_current(id));
        inbound.handle_frame(Frame::Entry(entry(6)));
        assert_eq!(actions(&mut inbound), [], "nothing is delivered from a broken connection");
    }
}

#[test]
fn nothing_is_delivered_before_the_snapshot_is_complete() {
    for frame in [Frame::Entry(entry(1)), Frame::Gap(Range { from: 1, to: 2 })] {
        let mut inbound = Inbound::new(7, 1000);
        inbound.handle_hello(&hello(1), start());
        actions(&mut inbound);
        inbound.handle_frame(frame);
        assert!(is_broken_off(&actions(&mut inbound)));
    }
}

#[test]
fn gaps_are_counted_exactly_and_skips_are_not() {
    let (mut inbound, _) = linked(5, start());
    inbound.handle_frame(Frame::Gap(Range { from: 6, to: 8 }));
    inbound.handle_frame(Frame::Gap(Range { from: 6, to: 8 }));
    inbound.handle_frame(Frame::Gap(Range { from: 7, to: 10 }));
    inbound.handle_frame(Frame::Skip(Range { from: 11, to: 12 }));
    inbound.handle_frame(Frame::Entry(entry(13)));
    assert_eq!(
        settle(&mut inbound),
        [
            Action::Missed(Range { from: 6, to: 8 }),
            Action::Missed(Range { from: 9, to: 10 }),
            deliver(13),
            record(13),
            ack(13)
        ]
    );
}

#[test]
fn a_returning_origin_goes_on_where_it_was() {
    let now = start();
    let (mut inbound, old) = linked(0, now);
    inbound.handle_frame(Frame::Entry(entry(1)));
    inbound.handle_lost("reset".into(), false);
    assert_eq!(inbound.poll_timeout(), None);
    actions(&mut inbound);
    let new = inbound.handle_hello(&hello(1), now);
    assert_eq!(actions(&mut inbound)[0], welcome(Some(1)));
    assert!(inbound.is_current(new) && !inbound.is_current(old));
}

#[test]
fn a_newer_connection_replaces_the_older_one() {
    let now = start();
    let (mut inbound, old) = linked(3, now);
    let new = inbound.handle_hello(&hello(1), now);
    assert!(inbound.is_current(new) && !inbound.is_current(old));
    let all = actions(&mut inbound);
    assert_eq!(all[0], welcome(Some(3)));
    assert!(matches!(&all[1..], [Action::Changed(Change { from: "linked", to: "linked", .. })]));
}

#[test]
fn instances_do_not_disturb_each_other() {
    let now = start();
    let (mut inbound, _) = linked(3, now);
    inbound.handle_hello(&hello(2), now);
    assert_eq!(actions(&mut inbound)[0], welcome(None), "the origin has restarted");
    inbound.handle_frame(Frame::SnapshotEnd { base: 0 });
    inbound.handle_frame(Frame::Entry(entry(1)));
    settle(&mut inbound);
    inbound.handle_hello(&hello(1), now);
    assert_eq!(actions(&mut inbound)[0], welcome(Some(3)), "a connection of before, accepted late");
    inbound.handle_hello(&hello(2), now);
    assert_eq!(actions(&mut inbound)[0], welcome(Some(1)));
    for instance in 3..=20 {
        inbound.handle_hello(&hello(instance), now);
    }
    assert_eq!(inbound.instances.len(), INSTANCES, "what is remembered is bounded");
}

#[test]
fn silence_ends_the_link() {
    let now = start();
    let (mut inbound, _) = linked(0, now);
    assert_eq!(inbound.poll_timeout(), Some(now + DEAD_AFTER));
    inbound.handle_bytes(now + Duration::from_secs(1));
    inbound.handle_frame(Frame::Ping);
    assert_eq!(actions(&mut inbound), [Action::Send(Frame::Pong)]);
    let end = now + Duration::from_secs(1) + DEAD_AFTER;
    assert_eq!(inbound.poll_timeout(), Some(end));
    inbound.handle_timeout(end);
    assert!(matches!(actions(&mut inbound)[..], [Action::Close, Action::Changed(_)]));
    assert!(!inbound.is_linked());
}

#[test]
fn a_long_frame_brings_signs_of_life_back() {
    let now = start();
    let (mut inbound, _) = linked(0, now);
    let mut at = now;
    let mut pongs = 0;
    for _ in 0..100 {
        at += Duration::from_millis(100);
        inbound.handle_bytes(at);
        inbound.handle_read_end();
        if inbound.poll_timeout().is_some_and(|timeout| timeout <= at) {
            inbound.handle_timeout(at);
        }
        pongs += actions(&mut inbound).iter().filter(|action| **action == Action::Send(Frame::Pong)).count();
    }
    assert!((15..=20).contains(&pongs), "one each half second: {pongs}");
    assert!(inbound.is_linked());
}

#[test]
fn shutdown_acknowledges_and_says_bye() {
    let (mut inbound, _) = linked(0, start());
    inbound.handle_frame(Frame::Entry(entry(1)));
    inbound.handle_shutdown("shutdown");
    let all = actions(&mut inbound);
    assert_eq!(all[..4], [deliver(1), ack(1), Action::Send(Frame::Bye), Action::Close]);
    assert!(matches!(all[4..], [Action::Changed(_)]));
    inbound.handle_shutdown("shutdown");
    assert_eq!(actions(&mut inbound), []);
}

#[test]
fn what_is_not_on_the_disk_is_not_acknowledged_and_comes_again() {
    let now = start();
    let (mut inbound, _) = linked(0, now);
    inbound.handle_frame(Frame::Entry(kept(1)));
    inbound.handle_read_end();
    inbound.handle_frame(Frame::Entry(entry(2)));
    inbound.handle_read_end();
    inbound.handle_frame(Frame::Entry(kept(3)));
    inbound.handle_read_end();
    let all = actions(&mut inbound);
    let seqs = |seq: u64| all.contains(&record(seq));
    assert!(seqs(1) && seqs(3) && !seqs(2), "QoS 0 alone is not worth a record: {all:?}");
    assert!(!all.iter().any(|action| matches!(action, Action::Send(_))), "{all:?}");
    inbound.handle_recorded(1, 1);
    assert_eq!(actions(&mut inbound), [ack(1)]);
    inbound.handle_hello(&hello(1), now);
    assert_eq!(actions(&mut inbound)[0], welcome(Some(1)), "3 is applied, but a crash would take it back");
    inbound.handle_frame(Frame::Entry(entry(2)));
    inbound.handle_frame(Frame::Entry(kept(3)));
    inbound.handle_recorded(1, 3);
    assert_eq!(actions(&mut inbound), [Action::Duplicate, Action::Duplicate, ack(3)]);
    inbound.handle_frame(Frame::Entry(entry(4)));
    inbound.handle_read_end();
    let delivered = Action::Deliver { epoch: 1, entry: entry(4), directions: None };
    assert_eq!(actions(&mut inbound), [delivered, ack(4)], "nobody was promised QoS 0 after a crash");
}

#[test]
fn what_came_before_the_connection_broke_is_written_down() {
    let (mut inbound, _) = linked(0, start());
    inbound.handle_frame(Frame::Entry(kept(1)));
    inbound.handle_lost("reset".into(), false);
    assert_eq!(actions(&mut inbound)[1], record(1));
}

#[test]
fn a_broker_that_comes_back_knows_what_it_has() {
    let now = start();
    let mut inbound = Inbound::new(7, 1000);
    inbound.recover(7, [(5, 10), (1, 20)]);
    inbound.handle_hello(&hello(1), now);
    assert_eq!(actions(&mut inbound)[0], welcome(Some(20)));
    inbound.handle_hello(&hello(5), now);
    assert_eq!(actions(&mut inbound)[0], welcome(Some(10)));
    assert_eq!(inbound.applied().collect::<Vec<_>>(), [(1, 20), (5, 10)]);
}

#[test]
fn who_is_not_read_from_is_not_dead() {
    let now = start();
    let (mut inbound, _) = linked(0, now);
    for tick in 1..100 {
        let now = now + PING_INTERVAL * tick;
        inbound.handle_paused(now);
        assert_eq!(actions(&mut inbound), [Action::Send(Frame::Pong)]);
        assert_eq!(inbound.poll_timeout(), Some(now + DEAD_AFTER));
    }
}

#[test]
fn clients_are_claimed_anywhere_between_the_messages() {
    let claim = Claim { time: 1, clean_start: false, client_id: evermq_mqtt::Text::new("c").unwrap(), user: None };
    let mut inbound = Inbound::new(7, 1000);
    inbound.handle_hello(&hello(1), start());
    actions(&mut inbound);
    inbound.handle_frame(Frame::Claim(claim.clone()));
    inbound.handle_frame(Frame::SnapshotEnd { base: 0 });
    inbound.handle_frame(Frame::Entry(entry(1)));
    inbound.handle_frame(Frame::Claim(claim.clone()));
    let claimed = || Action::Claimed(claim.clone());
    assert_eq!(settle(&mut inbound), [claimed(), deliver(1), claimed(), record(1), ack(1)]);
}

#[test]
fn it_is_filled_when_all_has_come_that_the_origin_had() {
    let now = start();
    let mut inbound = Inbound::new(7, 1000);
    assert!(!inbound.is_filled());
    inbound.handle_hello(&Hello { minor: 2, last: Some(2), ..hello(1) }, now);
    assert!(!inbound.is_filled(), "neither the snapshot nor the log");
    inbound.handle_frame(Frame::SnapshotEnd { base: 0 });
    assert!(!inbound.is_filled());
    inbound.handle_frame(Frame::Entry(entry(1)));
    assert!(!inbound.is_filled());
    inbound.handle_frame(Frame::Entry(entry(2)));
    assert!(inbound.is_filled());
    // One that does not say how far its log is: the snapshot has to do.
    let mut inbound = Inbound::new(7, 1000);
    inbound.handle_hello(&hello(1), now);
    assert!(!inbound.is_filled());
    inbound.handle_frame(Frame::SnapshotEnd { base: 0 });
    assert!(inbound.is_filled());
}

#[test]
fn directions_belong_to_the_entry_that_they_name() {
    let directions = Directions::new(GroupId([1; 16]), "here");
    let directed = |seq| Frame::Directed(Directed { seq, directions: directions.clone() });
    let deliver_directed = |seq| Action::Deliver { epoch: 1, entry: entry(seq), directions: Some(directions.clone()) };
    let (mut inbound, _) = linked(4, start());
    // Those of one that has come before are of no use to the next one.
    for frame in [directed(4), Frame::Entry(entry(4)), Frame::Entry(entry(5)), directed(6), Frame::Entry(entry(6))] {
        inbound.handle_frame(frame);
    }
    inbound.handle_frame(Frame::Entry(entry(7)));
    inbound.handle_frame(directed(8));
    assert_eq!(actions(&mut inbound), [Action::Duplicate, deliver(5), deliver_directed(6), deliver(7)]);
    // A newer connection begins anew.
    inbound.handle_hello(&hello(1), start());
    actions(&mut inbound);
    inbound.handle_frame(Frame::Entry(entry(8)));
    assert_eq!(actions(&mut inbound), [deliver(8)]);
}
