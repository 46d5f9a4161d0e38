use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use proptest::prelude::*;

use super::*;
use crate::message::{Message, Stamp};

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

fn entry(number: u64, payload: usize) -> Arc<Entry> {
    Entry::new(
        Arc::new(Message {
            publish: Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: TopicName::new(Text::new("t").unwrap()).unwrap(),
                packet_id: None,
                properties: None,
                payload: Bytes::from(vec![0; payload]),
            },
            stamp: Stamp { time: number, origin: Arc::from("a") },
            received: start(),
            publisher: None,
        }),
        None,
        None,
        None,
    )
}

fn bounds(messages: usize, bytes: usize) -> Bounds {
    Bounds { messages, bytes, age: Duration::from_secs(3600) }
}

pub(super) fn log(messages: usize, bytes: usize, readers: usize) -> OriginLog {
    OriginLog::new(bounds(messages, bytes), readers)
}

pub(super) fn append(log: &mut OriginLog, count: u64) -> Appended {
    let mut appended = Appended { seq: 0, wake: false, high: false };
    for _ in 0..count {
        appended = log.append(entry(log.last() + 1, 10), &mut Vec::new());
    }
    appended
}

pub(super) fn room(from: u64) -> Room {
    Room { from, messages: 100, bytes: 1_000_000 }
}

pub(super) fn read(log: &mut OriginLog, reader: usize, room: Room) -> Read {
    log.read(reader, room, |_, _| true)
}

/// The numbers that a read gives.
pub(super) fn numbers(read: Read) -> Vec<u64> {
    match read {
        Read::Items(items) => {
            let number = |item: &Item| {
                let entry = item.entry.as_ref().expect("no hole");
                assert_eq!(entry.message().stamp.time, item.last);
                item.last
            };
            items.iter().map(number).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_come_back_in_the_order_of_their_appends() {
    let mut log = log(1000, 1 << 20, 1);
    assert_eq!((log.first(), log.last()), (1, 0));
    append(&mut log, 5);
    assert_eq!((log.first(), log.last(), log.len()), (1, 5, 5));
    assert_eq!(numbers(read(&mut log, 0, room(1))), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(read(&mut log, 0, Room { messages: 2, ..room(3) })), [3, 4]);
    assert!(matches!(read(&mut log, 0, room(6)), Read::End));
}

#[test]
fn a_read_is_bounded_by_bytes_but_gives_at_least_one() {
    let mut log = log(1000, 1 << 20, 1);
    append(&mut log, 5);
    assert_eq!(numbers(read(&mut log, 0, Room { bytes: 0, ..room(1) })), [1]);
    assert_eq!(numbers(read(&mut log, 0, Room { bytes: 25, ..room(1) })), [1, 2], "11 bytes each, topic and payload");
}

#[test]
fn an_entry_leaves_when_every_reader_has_it() {
    let mut log = log(1000, 1 << 20, 2);
    append(&mut log, 10);
    let mut left = Vec::new();
    log.acknowledge(0, 7, &mut left);
    assert_eq!((left.len(), log.first()), (0, 1), "the other one still needs them");
    log.acknowledge(1, 4, &mut left);
    assert_eq!((left.len(), log.first()), (4, 5));
    log.acknowledge(1, 10, &mut left);
    assert_eq!((left.len(), log.first()), (7, 8));
    log.acknowledge(0, 10, &mut left);
    assert_eq!((log.len(), log.first(), log.last(), log.bytes()), (0, 11, 10, 0));
    append(&mut log, 1);
    assert_eq!(numbers(read(&mut log, 0, room(11))), [11]);
}

#[test]
fn the_bounds_hold_and_the_oldest_go() {
    let mut messages = log(4, 1 << 20, 1);
    append(&mut messages, 10);
    assert_eq!((messages.first(), messages.len()), (7, 4));
    assert!(matches!(read(&mut messages, 0, room(6)), Read::Gone { first: 7 }));
    assert_eq!(numbers(read(&mut messages, 0, room(7))), [7, 8, 9, 10]);

    let one = ENTRY_OVERHEAD + 11;
    let mut bytes = log(1000, 3 * one, 1);
    append(&mut bytes, 10);
    assert_eq!((bytes.first(), bytes.len(), bytes.bytes()), (8, 3, 3 * one));
}

#[test]
fn one_message_larger_than_the_bound_is_kept() {
    let mut log = log(1000, 500, 1);
    append(&mut log, 2);
    log.append(entry(3, 100_000), &mut Vec::new());
    assert_eq!(numbers(read(&mut log, 0, room(3))), [3]);
    append(&mut log, 1);
    assert_eq!(numbers(read(&mut log, 0, room(4))), [4]);
    assert_eq!(log.len(), 1);
}

#[test]
fn only_who_waits_is_woken_and_only_once() {
    let mut log = log(1000, 1 << 20, 3);
    assert!(!append(&mut log, 1).wake, "nobody waits yet");
    assert!(matches!(read(&mut log, 1, room(2)), Read::End));
    assert!(append(&mut log, 1).wake);
    let mut woken = Vec::new();
    log.take_waiting(|reader| woken.push(reader));
    assert_eq!(woken, [1]);
    assert!(!append(&mut log, 1).wake);
}

#[test]
fn pressure_rises_above_a_half_and_falls_below_a_quarter() {
    let mut log = log(100, 1 << 20, 2);
    log.attach(0, 0, &mut Vec::new());
    assert!(!append(&mut log, 50).high);
    assert!(append(&mut log, 1).high, "51 of 100");
    assert!(!log.acknowledge(0, 20, &mut Vec::new()), "31 behind: still");
    assert!(log.is_high());
    assert!(append(&mut log, 1).high);
    assert!(log.acknowledge(0, 27, &mut Vec::new()), "25 behind: relieved, and said once");
    assert!(!log.is_high());
    assert!(!log.acknowledge(0, 28, &mut Vec::new()));
}

#[test]
fn pressure_counts_bytes_too() {
    let mut log = log(1_000_000, 100 * (ENTRY_OVERHEAD + 11), 1);
    log.attach(0, 0, &mut Vec::new());
    assert!(!append(&mut log, 50).high);
    assert!(append(&mut log, 1).high);
    assert!(log.acknowledge(0, 51, &mut Vec::new()));
}

#[test]
fn a_peer_that_is_away_holds_up_nobody() {
    let mut log = log(100, 1 << 20, 1);
    assert!(!append(&mut log, 500).high);
    assert!(!log.attach(0, 400, &mut Vec::new()));
    assert!(append(&mut log, 1).high, "it is connected now, and a hundred behind");
    assert!(log.detach(0), "relieved");
    assert!(!append(&mut log, 100).high);
}

#[test]
fn an_acknowledgement_beyond_the_log_counts_as_all_of_it() {
    let mut log = log(100, 1 << 20, 1);
    append(&mut log, 3);
    log.attach(0, 99, &mut Vec::new());
    assert_eq!((log.acknowledged(0), log.len()), (3, 0));
}

/// The numbers, `None` for holes.
fn items(read: Read) -> Vec<(u64, bool)> {
    let Read::Items(items) = read else { panic!("{read:?}") };
    items.iter().map(|item| (item.last, item.entry.is_some())).collect()
}

fn recovered(acknowledged: &[u64]) -> OriginLog {
    let entries = [4, 5, 8].map(|seq| (seq, entry(seq, 10))).to_vec();
    let saved = Saved { first: 3, kept: 2, last: 20, entries, acknowledged: acknowledged.to_vec() };
    OriginLog::recovered(bounds(100, 1 << 20), saved, &mut Vec::new())
}

#[test]
fn a_recovered_log_has_holes_and_goes_on_behind_what_was_set_aside() {
    let mut log = recovered(&[2, 7]);
    assert_eq!((log.first(), log.last(), log.len()), (3, 20, 3));
    assert_eq!(
        items(read(&mut log, 0, room(3))),
        [(3, false), (4, true), (5, true), (7, false), (8, true), (20, false)]
    );
    assert_eq!(items(read(&mut log, 0, room(6))), [(7, false), (8, true), (20, false)]);
    assert_eq!(items(read(&mut log, 0, room(15))), [(20, false)]);
    assert!(matches!(read(&mut log, 0, room(2)), Read::Gone { first: 3 }));
    assert_eq!((log.lag(0).0, log.lag(1).0), (3, 1), "holes are no messages");
    append(&mut log, 1);
    assert_eq!(numbers(read(&mut log, 0, room(21))), [21]);
    log.attach(0, 6, &mut Vec::new());
    assert_eq!(log.first(), 6, "it has the hole in part");
    log.acknowledge(0, 20, &mut Vec::new());
    log.acknowledge(1, 20, &mut Vec::new());
    assert_eq!((log.first(), log.len(), log.lag(0).0, log.lag(1).0), (21, 1, 1, 1));
    assert_eq!(recovered(&[30, 30]).len(), 0, "all have everything");
}

#[test]
fn what_may_not_go_stops_the_read_and_what_is_behind_it() {
    let mut log = log(1000, 1 << 20, 1);
    append(&mut log, 5);
    let before = |limit| move |seq, _: &Entry| seq < limit;
    assert_eq!(numbers(log.read(0, room(1), before(4))), [1, 2, 3]);
    assert!(matches!(log.read(0, room(4), before(4)), Read::Held { seq: 4, .. }));
    assert_eq!(numbers(log.read(0, room(4), before(5))), [4]);
}

#[test]
fn messages_of_qos_0_that_a_peer_had_and_has_forgotten_are_no_gap() {
    let entry_at = |seq, qos| {
        let mut message = entry(seq, 10).message().clone();
        message.publish.qos = qos;
        Entry::new(Arc::new(message), None, None, None)
    };
    let mut log = log(1000, 1 << 20, 1);
    for (seq, qos) in [(1, QoS::AtLeastOnce), (2, QoS::AtMostOnce), (3, QoS::AtMostOnce), (4, QoS::AtMostOnce)] {
        log.append(entry_at(seq, qos), &mut Vec::new());
    }
    log.attach(0, 3, &mut Vec::new());
    assert_eq!(items(read(&mut log, 0, room(2))), [(3, false)], "it stops without having written down 2 and 3");
    assert!(matches!(read(&mut log, 0, room(1)), Read::Gone { first: 4 }), "1 is missed");
    assert_eq!(log.settled(0), 3);
    log.attach(0, 1, &mut Vec::new());
    assert_eq!((log.acknowledged(0), log.settled(0)), (1, 3), "a crash here must not make them a gap");
    log.attach(0, 0, &mut Vec::new());
    assert_eq!(log.settled(0), 0);
    // Another one that never had them misses them.
    let mut log = self::log(1, 1 << 20, 1);
    for seq in 1..=3 {
        log.append(entry_at(seq, QoS::AtMostOnce), &mut Vec::new());
    }
    assert!(matches!(read(&mut log, 0, room(1)), Read::Gone { first: 3 }));
}

#[test]
fn what_is_too_old_goes() {
    let mut log = log(1000, 1 << 20, 1);
    append(&mut log, 3);
    let later = log.oldest().unwrap() + Duration::from_secs(3599);
    log.expire(later, &mut Vec::new());
    assert_eq!(log.len(), 3);
    log.expire(later + Duration::from_secs(5), &mut Vec::new());
    assert_eq!((log.len(), log.first()), (1, 3), "the newest stays");
}

proptest! {
    #[test]
    fn books_balance(steps in prop::collection::vec((0u8..6, 0usize..2, 0u64..40, 0usize..600), 1..300)) {
        let mut log = log(50, 20_000, 2);
        let mut left = Vec::new();
        let mut connected = [false; 2];
        for (step, reader, count, payload) in steps {
            match step {
                0..=2 => {
                    log.append(entry(log.last() + 1, payload), &mut left);
                }
                3 => drop(log.acknowledge(reader, (log.acknowledged(reader) + count).min(log.last()), &mut left)),
                4 => {
                    log.attach(reader, log.acknowledged(reader), &mut left);
                    connected[reader] = true;
                }
                _ => {
                    log.detach(reader);
                    connected[reader] = false;
                }
            }
            prop_assert_eq!(log.last() + 1 - log.first(), log.len() as u64);
            prop_assert_eq!(left.len() as u64, log.first() - 1, "what left came out once, in order");
            let held: usize = log.slots.iter().flat_map(|slot| &slot.entry).map(|entry| entry.bytes() + ENTRY_OVERHEAD).sum();
            prop_assert_eq!(held, log.bytes());
            prop_assert!(log.len() <= 50);
            prop_assert!(log.bytes() <= 20_000 || log.len() == 1);
            prop_assert!(!log.is_high() || connected != [false; 2], "pressure without anybody connected");
            let everyone = log.acknowledged(0).min(log.acknowledged(1));
            prop_assert!(log.first() > everyone, "what all have does not stay");
            for (reader, connected) in connected.iter().enumerate() {
                let behind = log.last() - log.acknowledged(reader);
                prop_assert!(!connected || step > 2 || behind <= 25 || log.is_high());
            }
        }
    }
}
