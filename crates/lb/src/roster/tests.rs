#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const WIDE: [&str; 2] = ["[2001:db8::100]:9000", "[2001:db8::101]:9000"];
const NARROW: [&str; 2] = ["10.0.0.100:9000", "10.0.0.101:9000"];

fn connection(client: u16, local: usize) -> Connection {
    let (client, local) = if local < 2 {
        (SocketAddr::from(([10, 1, (client >> 8) as u8, client as u8], 40_000 + client)), NARROW[local])
    } else {
        (SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 1, client], 40_000 + client)), WIDE[local - 2])
    };
    Connection::new(client, local.parse().unwrap()).unwrap()
}

fn told(mirror: &Mirror) -> Vec<Connection> {
    let mut told: Vec<_> = mirror.connections().collect();
    told.sort_unstable();
    told
}

/// Tells `batch` of one worker.
fn tell(mirror: &mut Mirror, worker: u16, batch: &Batch) {
    if batch.anew {
        mirror.handle_begin(worker).unwrap();
    }
    for changes in batch.changes.chunks(3) {
        mirror.handle_changes(worker, changes).unwrap();
    }
    if batch.anew {
        mirror.handle_end(worker).unwrap();
    }
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Slot>(), 8);
}

#[test]
fn an_address_in_the_form_of_ipv6_is_the_ipv4_address_that_it_means() {
    let mapped = |text: &str| text.parse::<SocketAddr>().unwrap();
    let seen = Connection::new(mapped("[::ffff:10.1.0.7]:40007"), mapped("[::ffff:10.0.0.100]:9000"));
    assert_eq!(seen, Some(connection(7, 0)));
    assert_eq!(Connection::new(mapped("10.1.0.7:1"), mapped("[2001:db8::1]:9000")), None);
}

#[test]
fn a_client_that_comes_back_from_its_port_is_not_taken_for_its_old_connection() {
    let (mut own, mut mirror) = (Own::default(), Mirror::new(10));
    mirror.handle_connected(1);
    own.begin_anew();
    let Connection { client, local } = connection(1, 0);
    let old = own.join(client, local).unwrap();
    tell(&mut mirror, 0, &own.take_news());
    let new = own.join(client, local).unwrap();
    own.leave(old);
    tell(&mut mirror, 0, &own.take_news());
    assert_eq!(told(&mirror), [connection(1, 0)]);
    own.leave(new);
    own.leave(new);
    tell(&mut mirror, 0, &own.take_news());
    assert!(mirror.is_empty() && own.is_empty());
}

#[test]
fn a_flood_of_changes_costs_a_whole_list_and_no_memory() {
    let mut own = Own::default();
    let Connection { client, local } = connection(1, 0);
    for _ in 0..10_000 {
        let number = own.join(client, local).unwrap();
        own.leave(number);
    }
    own.join(client, local).unwrap();
    assert_eq!(own.take_news(), Batch { anew: true, changes: vec![Change::Joined(0, connection(1, 0))] });
    assert!(!own.has_news());
    own.leave(0);
    assert_eq!(own.take_news(), Batch { anew: false, changes: vec![Change::Left(0)] });
}

#[test]
fn the_list_outlives_the_connection_and_a_list_that_is_not_whole() {
    let start = Instant::now();
    let mut mirror = Mirror::new(10);
    mirror.handle_connected(2);
    let all = |connection| Batch { anew: true, changes: vec![Change::Joined(0, connection)] };
    tell(&mut mirror, 0, &all(connection(1, 0)));
    assert_eq!(told(&mirror), [], "the second worker has not told yet");
    assert_eq!(mirror.handle_changes(1, &[]), Err(OutOfTurn(1)));
    tell(&mut mirror, 1, &all(connection(2, 2)));
    assert_eq!(told(&mirror), [connection(1, 0), connection(2, 2)]);
    assert_eq!(mirror.poll_timeout(), None);

    mirror.handle_lost(start);
    mirror.handle_connected(1);
    tell(&mut mirror, 0, &Batch { anew: true, changes: vec![] });
    assert_eq!(told(&mirror), [], "it is back, and has nobody");
    tell(&mut mirror, 0, &all(connection(3, 0)));
    mirror.handle_connected(2);
    tell(&mut mirror, 0, &all(connection(4, 0)));
    mirror.handle_lost(start);
    assert_eq!(told(&mirror), [connection(3, 0)], "gone before it was through");
    assert!(!mirror.is_connected());
    assert_eq!(mirror.poll_timeout(), Some(start + KEPT));
    mirror.handle_timeout(start + KEPT - Duration::from_millis(1));
    assert_eq!(mirror.len(), 1);
    mirror.handle_timeout(start + KEPT);
    assert_eq!((mirror.len(), mirror.poll_timeout()), (0, None));
}

#[test]
fn what_is_out_of_turn_is_refused() {
    let mut mirror = Mirror::new(10);
    assert_eq!(mirror.handle_begin(0), Err(OutOfTurn(0)));
    mirror.handle_connected(1);
    assert_eq!(mirror.handle_begin(1), Err(OutOfTurn(1)));
    assert_eq!(mirror.handle_end(0), Err(OutOfTurn(0)));
    mirror.handle_begin(0).unwrap();
    assert_eq!(mirror.handle_end(1), Err(OutOfTurn(1)));
    mirror.handle_end(0).unwrap();
}

#[test]
fn more_than_the_limit_is_counted_and_not_kept() {
    let mut mirror = Mirror::new(3);
    mirror.handle_connected(2);
    let many = |from: u16| Batch {
        anew: true,
        changes: (0..2).map(|i| Change::Joined(i, connection(from + i as u16, 0))).collect(),
    };
    tell(&mut mirror, 0, &many(0));
    tell(&mut mirror, 1, &many(10));
    assert_eq!((mirror.len(), mirror.not_kept()), (3, 1));
    // The same list once more takes the room of the old one.
    tell(&mut mirror, 0, &many(0));
    assert_eq!((mirror.len(), mirror.not_kept()), (3, 1));
    // A number out of all proportion takes no memory.
    mirror.handle_changes(0, &[Change::Left(0), Change::Joined(u32::MAX, connection(5, 0))]).unwrap();
    assert_eq!((mirror.len(), mirror.not_kept()), (2, 2));
    assert!(mirror.slots() < 10);
    // Local addresses have a limit as well.
    let mut roster = Roster::default();
    for port in 0..=MAX_LOCALS as u16 {
        let local = SocketAddr::from(([10, 0, 0, 1], port));
        let kept = roster.put(0, Connection { client: connection(1, 0).client, local });
        assert_eq!(kept, usize::from(port) < MAX_LOCALS);
    }
    assert!(roster.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Join { worker: usize, client: u16, local: usize },
    Leave { worker: usize, which: prop::sample::Index },
    Tell(usize),
    Ask(usize),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_usize, 0..500_u16, 0..4_usize).prop_map(|(worker, client, local)| Step::Join { worker, client, local }),
        4 => (0..2_usize, any::<prop::sample::Index>()).prop_map(|(worker, which)| Step::Leave { worker, which }),
        3 => (0..2_usize).prop_map(Step::Tell),
        1 => (0..2_usize).prop_map(Step::Ask),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_mirror_ends_with_what_the_workers_have(steps in prop::collection::vec(step(), 0..200)) {
        let mut own = [Own::default(), Own::default()];
        let mut live: [BTreeMap<u32, Connection>; 2] = Default::default();
        let mut mirror = Mirror::new(1000);
        let reconnect = |own: &mut [Own; 2], mirror: &mut Mirror| {
            own.iter_mut().for_each(Own::begin_anew);
            mirror.handle_connected(2);
        };
        reconnect(&mut own, &mut mirror);
        for step in steps {
            match step {
                Step::Join { worker, client, local } => {
                    let connection = connection(client, local);
                    let number = own[worker].join(connection.client, connection.local).unwrap();
                    prop_assert!(live[worker].insert(number, connection).is_none(), "a number was given twice");
                }
                Step::Leave { worker, which } if !live[worker].is_empty() => {
                    let number = *live[worker].keys().nth(which.index(live[worker].len())).unwrap();
                    live[worker].remove(&number);
                    own[worker].leave(number);
                }
                Step::Leave { .. } => {}
                Step::Tell(worker) => tell(&mut mirror, worker as u16, &own[worker].take_news()),
                Step::Ask(worker) => own[worker].begin_anew(),
                Step::Reconnect => reconnect(&mut own, &mut mirror),
            }
            for worker in 0..2 {
                prop_assert_eq!(own[worker].len(), live[worker].len());
            }
        }
        for worker in 0..2 {
            tell(&mut mirror, worker, &own[usize::from(worker)].take_news());
        }
        let mut expected: Vec<_> = live.iter().flat_map(BTreeMap::values).copied().collect();
        expected.sort_unstable();
        prop_assert_eq!(told(&mirror), expected);
        prop_assert_eq!(mirror.not_kept(), 0);
    }
}
