use std::time::{Duration, Instant};

use evermq_mqtt::{QoS, Text, TopicName};
use proptest::prelude::*;

use super::*;
use crate::message::Stamp;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

fn entry(number: u64, payload: usize) -> Arc<Entry> {
    Entry::new(Arc::new(Message {
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
    }))
}

fn log(messages: usize, bytes: usize, readers: usize) -> OriginLog {
    OriginLog::new(Bounds { messages, bytes }, readers)
}

fn append(log: &mut OriginLog, count: u64) -> Appended {
    let mut appended = Appended { wake: false, high: false };
    for _ in 0..count {
        appended = log.append(entry(log.last() + 1, 10), &mut Vec::new());
    }
    appended
}

fn room(from: u64) -> Room {
    Room { from, messages: 100, bytes: 1_000_000 }
}

/// The numbers that a read gives.
fn numbers(read: Read) -> Vec<u64> {
    match read {
        Read::Entries(entries) => entries.iter().map(|entry| entry.message().stamp.time).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_come_back_in_the_order_of_their_appends() {
    let mut log = log(1000, 1 << 20, 1);
    assert_eq!((log.first(), log.last()), (1, 0));
    append(&mut log, 5);
    assert_eq!((log.first(), log.last(), log.len()), (1, 5, 5));
    assert_eq!(numbers(log.read(0, room(1))), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(log.read(0, Room { messages: 2, ..room(3) })), [3, 4]);
    assert!(matches!(log.read(0, room(6)), Read::End));
}

#[test]
fn a_read_is_bounded_by_bytes_but_gives_at_least_one() {
    let mut log = log(1000, 1 << 20, 1);
    append(&mut log, 5);
    assert_eq!(numbers(log.read(0, Room { bytes: 0, ..room(1) })), [1]);
    assert_eq!(numbers(log.read(0, Room { bytes: 25, ..room(1) })), [1, 2], "11 bytes each, topic and payload");
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
    assert_eq!(numbers(log.read(0, room(11))), [11]);
}

#[test]
fn the_bounds_hold_and_the_oldest_go() {
    let mut messages = log(4, 1 << 20, 1);
    append(&mut messages, 10);
    assert_eq!((messages.first(), messages.len()), (7, 4));
    assert!(matches!(messages.read(0, room(6)), Read::Gone { first: 7 }));
    assert_eq!(numbers(messages.read(0, room(7))), [7, 8, 9, 10]);

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
    assert_eq!(numbers(log.read(0, room(3))), [3]);
    append(&mut log, 1);
    assert_eq!(numbers(log.read(0, room(4))), [4]);
    assert_eq!(log.len(), 1);
}

#[test]
fn only_who_waits_is_woken_and_only_once() {
    let mut log = log(1000, 1 << 20, 3);
    assert!(!append(&mut log, 1).wake, "nobody waits yet");
    assert!(matches!(log.read(1, room(2)), Read::End));
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
            let held: usize = log.slots.iter().map(|slot| slot.entry.bytes + ENTRY_OVERHEAD).sum();
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
