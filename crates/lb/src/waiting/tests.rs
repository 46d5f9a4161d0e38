#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use std::collections::BTreeMap;

use evermq_config::BackendConfig;
use evermq_config::lb::Balance;
use proptest::prelude::*;

use super::*;
use crate::pool::{AddressKind, Lane, Pool};

mod storm;

const TIMEOUT: Duration = Duration::from_secs(30);

fn lanes() -> [Lane; 2] {
    let settings = crate::pool::tests::settings(Balance::LeastConn);
    let backend = |name: &str, group: &str| BackendConfig {
        group: group.to_owned(),
        ..BackendConfig::of_cluster(evermq_config::HostName::new(name).unwrap(), ([127, 0, 0, 1], 1).into(), None)
    };
    let pool = Pool::new(&[backend("a", "one"), backend("b", "two")], &settings, Instant::now());
    ["one", "two"].map(|name| Lane::Group { group: pool.group(name).unwrap(), kind: AddressKind::Tls, again: false })
}

fn source(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

impl<T> Push<T> {
    fn ticket(self) -> Ticket {
        match self {
            Self::Waits(ticket) => ticket,
            Self::WaitsInsteadOf(..) | Self::Refused(_) => panic!("there was room"),
        }
    }
}

/// Who is placed when so many may be.
fn serve(room: &mut WaitingRoom<u32>, budget: usize) -> Vec<u32> {
    let mut placed = Vec::new();
    let count = room.serve(budget, |&item| {
        placed.push(item);
        Verdict::Placed
    });
    assert_eq!(count, placed.len());
    placed
}

#[test]
fn addresses_take_turns_and_each_keeps_its_order() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    for (from, item) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)] {
        room.push(source(from), lane, item, now).ticket();
    }
    assert_eq!(serve(&mut room, 4), [10, 20, 30, 11]);
    // Who comes now comes after those whose turn it is.
    room.push(source(4), lane, 40, now).ticket();
    assert_eq!(serve(&mut room, 10), [31, 12, 40]);
    assert!(room.is_empty() && !room.has_waiters(lane));
    assert_eq!(serve(&mut room, 10), Vec::<u32>::new());
}

#[test]
fn an_address_with_ten_thousand_holds_up_nobody() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(20_000, TIMEOUT);
    for item in 0..10_000 {
        room.push(source(1), lane, item, now).ticket();
    }
    room.push(source(2), lane, 77_777, now).ticket();
    assert_eq!(serve(&mut room, 2), [0, 77_777]);
    assert_eq!(room.len(), 9999);
}

#[test]
fn a_lane_that_is_full_does_not_hold_up_another() {
    let [one, two] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    for item in 0..3 {
        room.push(source(1), one, item, now).ticket();
        room.push(source(1), two, 10 + item, now).ticket();
    }
    let mut asked = Vec::new();
    let placed = room.serve(100, |&item| {
        asked.push(item);
        if item < 10 { Verdict::StillFull } else { Verdict::Placed }
    });
    asked.sort_unstable();
    assert_eq!((placed, asked), (3, vec![0, 10, 11, 12]));
    assert_eq!(room.lanes().collect::<Vec<_>>(), [one]);
    // Nobody has lost his turn by asking in vain.
    assert_eq!(serve(&mut room, 9), [0, 1, 2]);
}

#[test]
fn lanes_begin_in_turn() {
    let [one, two] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    for item in 0..10 {
        room.push(source(1), one, item, now).ticket();
        room.push(source(1), two, 10 + item, now).ticket();
    }
    let first: Vec<_> = (0..4).flat_map(|_| serve(&mut room, 1)).collect();
    assert_eq!(first, [0, 10, 1, 11]);
}

#[test]
fn who_is_gone_costs_nobody_a_turn() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    for (from, item) in [(1, 10), (1, 11), (2, 20)] {
        room.push(source(from), lane, item, now).ticket();
    }
    let mut asked = Vec::new();
    let placed = room.serve(1, |&item| {
        asked.push(item);
        if item == 10 { Verdict::Gone } else { Verdict::Placed }
    });
    assert_eq!((placed, asked), (1, vec![10, 11]));
    assert_eq!(serve(&mut room, 9), [20]);
}

#[test]
fn a_ticket_is_good_once() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    let first = room.push(source(1), lane, 1, now).ticket();
    assert_eq!(room.remove(first), Some(1));
    assert_eq!(room.remove(first), None);
    // Another one in the same place.
    let second = room.push(source(1), lane, 2, now).ticket();
    assert_eq!((first.key, room.remove(first)), (second.key, None));
    assert_eq!(serve(&mut room, 9), [2]);
    assert_eq!(room.remove(second), None);
}

#[test]
fn nobody_waits_for_longer_than_the_timeout() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut room = WaitingRoom::new(100, TIMEOUT);
    assert_eq!(room.poll_timeout(), None);
    let first = room.push(source(1), lane, 1, now).ticket();
    room.push(source(2), lane, 2, now + second).ticket();
    room.push(source(1), lane, 3, now + 2 * second).ticket();
    assert_eq!(room.poll_timeout(), Some(now + TIMEOUT));
    assert_eq!(room.remove(first), Some(1));
    assert_eq!(room.poll_timeout(), Some(now + second + TIMEOUT));
    assert_eq!(room.handle_timeout(now + TIMEOUT), Vec::<u32>::new());
    assert_eq!(room.handle_timeout(now + second + TIMEOUT), [2]);
    room.set_bounds(100, second);
    assert_eq!(room.poll_timeout(), Some(now + 3 * second));
    assert_eq!(room.handle_timeout(now + 3 * second), [3]);
    assert_eq!((room.poll_timeout(), room.len()), (None, 0));
}

#[test]
fn in_a_full_room_the_last_of_the_longest_queue_makes_place_for_one_with_few() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(4, TIMEOUT);
    for item in 10..14 {
        room.push(source(1), lane, item, now).ticket();
    }
    assert_eq!(room.push(source(1), lane, 14, now), Push::Refused(14));
    assert!(matches!(room.push(source(2), lane, 20, now), Push::WaitsInsteadOf(_, 13)));
    assert!(matches!(room.push(source(3), lane, 30, now), Push::WaitsInsteadOf(_, 12)));
    // Two for one, and one each for the others: it would only change who has two.
    assert_eq!(room.push(source(2), lane, 21, now), Push::Refused(21));
    assert!(matches!(room.push(source(4), lane, 40, now), Push::WaitsInsteadOf(_, 11)));
    assert_eq!(room.push(source(5), lane, 50, now), Push::Refused(50));
    assert_eq!(room.len(), 4);
    assert_eq!(serve(&mut room, 9), [10, 20, 30, 40]);
}

#[test]
fn a_room_without_places_takes_nobody() {
    let [lane, _] = lanes();
    let mut room = WaitingRoom::new(0, TIMEOUT);
    assert_eq!(room.push(source(1), lane, 1, Instant::now()), Push::Refused(1));
}

#[test]
fn who_comes_and_goes_leaves_nothing_behind() {
    let [lane, _] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    // One that stays, at the head of each line.
    room.push(source(1), lane, 0, now).ticket();
    for item in 1..100_000 {
        let ticket = room.push(source((item % 250) as u8), lane, item, now).ticket();
        assert_eq!(room.remove(ticket), Some(item));
    }
    assert!(room.by_age.tickets.len() <= 16 && room.by_age.tickets.capacity() <= 64);
    assert_eq!((room.queues.len(), room.by_source.len(), room.by_length.len(), room.lanes.len()), (1, 1, 1, 1));
    assert!(room.lanes[0].queues.tickets.len() <= 16);
}

#[test]
fn drained_in_the_order_of_coming() {
    let [one, two] = lanes();
    let now = Instant::now();
    let mut room = WaitingRoom::new(100, TIMEOUT);
    for (from, lane, item) in [(1, one, 1), (1, two, 2), (2, one, 3), (1, one, 4)] {
        room.push(source(from), lane, item, now).ticket();
    }
    assert_eq!(room.drain(), [1, 2, 3, 4]);
    assert!(room.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Push { from: u8, lane: usize },
    Remove { which: usize },
    Serve { budget: usize, full: Option<usize>, gone: bool },
    Pass { millis: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..5, 0_usize..2).prop_map(|(from, lane)| Step::Push { from, lane }),
        2 => any::<usize>().prop_map(|which| Step::Remove { which }),
        2 => (0_usize..6, proptest::option::of(0_usize..2), any::<bool>())
            .prop_map(|(budget, full, gone)| Step::Serve { budget, full, gone }),
        1 => (0_u64..20_000).prop_map(|millis| Step::Pass { millis }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Known {
    from: u8,
    lane: usize,
    ticket: Ticket,
    since: Instant,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Against a model: nobody is lost or served twice, each address's order is kept, turns are fair, bounds hold.
    #[test]
    fn it_does_what_a_simple_model_says(size in 1_usize..20, steps in proptest::collection::vec(any_step(), 0..150)) {
        let lanes = lanes();
        let mut now = Instant::now();
        let mut room = WaitingRoom::new(size, TIMEOUT);
        let mut model: BTreeMap<u32, Known> = BTreeMap::new();
        for (item, step) in (0_u32..).zip(steps) {
            match step {
                Step::Push { from, lane } => {
                    let length = |from, lane| model.values().filter(|k| (k.from, k.lane) == (from, lane)).count();
                    let longest = (0..5).flat_map(|from| [(from, 0), (from, 1)]).map(|(from, lane)| length(from, lane)).max().unwrap();
                    let mine = length(from, lane);
                    let full = model.len() == size;
                    let ticket = match room.push(source(from), lanes[lane], item, now) {
                        Push::Waits(ticket) => {
                            prop_assert!(!full);
                            Some(ticket)
                        }
                        Push::WaitsInsteadOf(ticket, other) => {
                            let known = model.remove(&other).unwrap();
                            let left = model.values().filter(|k| (k.from, k.lane) == (known.from, known.lane)).count();
                            prop_assert!(full && longest > mine + 1 && left + 1 == longest);
                            // It was the last one of its queue.
                            prop_assert!(model.iter().all(|(&i, k)| (k.from, k.lane) != (known.from, known.lane) || i < other));
                            Some(ticket)
                        }
                        Push::Refused(same) => {
                            prop_assert!(full && same == item && longest <= mine + 1);
                            None
                        }
                    };
                    if let Some(ticket) = ticket {
                        model.insert(item, Known { from, lane, ticket, since: now });
                    }
                }
                Step::Remove { which } => {
                    if let Some((&item, &known)) = model.iter().nth(which % model.len().max(1)) {
                        prop_assert_eq!(room.remove(known.ticket), Some(item));
                        prop_assert_eq!(room.remove(known.ticket), None);
                        model.remove(&item);
                    }
                }
                Step::Serve { budget, full, gone } => {
                    let before = model.clone();
                    let mut placed = Vec::new();
                    let count = room.serve(budget, |&item| {
                        let known = before[&item];
                        if full == Some(known.lane) {
                            Verdict::StillFull
                        } else if gone && item % 7 == 0 {
                            model.remove(&item);
                            Verdict::Gone
                        } else {
                            placed.push(item);
                            Verdict::Placed
                        }
                    });
                    prop_assert_eq!(count, placed.len());
                    for lane in 0..2 {
                        check_turns(&before, &placed, lane, gone)?;
                    }
                    let open = before.values().filter(|known| full != Some(known.lane)).count();
                    prop_assert!(gone || count == open.min(budget));
                    placed.iter().for_each(|item| { model.remove(item); });
                }
                Step::Pass { millis } => {
                    now += Duration::from_millis(millis);
                    let mut expired = room.handle_timeout(now);
                    expired.sort_unstable();
                    let expected: Vec<_> = model.iter().filter(|(_, k)| k.since + TIMEOUT <= now).map(|(&i, _)| i).collect();
                    prop_assert_eq!(&expired, &expected);
                    expired.iter().for_each(|item| { model.remove(item); });
                }
            }
            prop_assert_eq!(room.len(), model.len());
            prop_assert!(room.len() <= size);
            prop_assert_eq!(room.poll_timeout(), model.values().map(|known| known.since + TIMEOUT).min());
            for (index, lane) in lanes.iter().enumerate() {
                prop_assert_eq!(room.has_waiters(*lane), model.values().any(|known| known.lane == index));
            }
        }
        let all = room.drain();
        prop_assert_eq!(all, model.keys().copied().collect::<Vec<_>>());
    }
}

/// Each address's clients in their order; and while two addresses both wait, neither gets two turns more than the other.
fn check_turns(before: &BTreeMap<u32, Known>, placed: &[u32], lane: usize, gone: bool) -> Result<(), TestCaseError> {
    let placed: Vec<u32> = placed.iter().copied().filter(|item| before[item].lane == lane).collect();
    let turns = |from: u8| placed.iter().copied().filter(|item| before[item].from == from).collect::<Vec<_>>();
    let waiting = |from: u8| before.values().filter(|known| known.lane == lane && known.from == from).count();
    for from in 0..5 {
        prop_assert!(turns(from).windows(2).all(|pair| pair[0] < pair[1]));
        for other in 0..5 {
            let is_served_out = gone || turns(other).len() == waiting(other);
            prop_assert!(is_served_out || turns(from).len() <= turns(other).len() + 1);
        }
    }
    Ok(())
}
