#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use std::collections::HashMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn connection(number: u32) -> Connection {
    let [_, a, b, c] = number.to_be_bytes();
    Connection { client: SocketAddr::from(([10, a, b, c], 40_000)), vip: SocketAddr::from(([10, 77, 0, 100], 9000)) }
}

fn connections(count: u32) -> Vec<Connection> {
    (0..count).map(connection).collect()
}

/// What was sent, and when, until nothing is left to do; the lb answers with `late` when it is asked again.
fn run(pacer: &mut Pacer, late: &[Connection], start: Instant) -> Vec<(Duration, Action)> {
    let (mut now, mut log) = (start, Vec::new());
    loop {
        while let Some(action) = pacer.poll_action() {
            log.push((now - start, action));
            if let Action::Refresh { instance } = action {
                pacer.handle_refreshed(instance, late.to_vec(), now);
            }
        }
        let Some(due) = pacer.poll_timeout() else { return log };
        assert!(due > now, "a timeout that does nothing");
        now = due;
        pacer.handle_timeout(now);
    }
}

fn sent(log: &[(Duration, Action)]) -> Vec<(Duration, Connection, Round)> {
    let sent = |(at, action): &(Duration, Action)| match action {
        Action::Send { connection, round, .. } => Some((*at, *connection, *round)),
        _ => None,
    };
    log.iter().filter_map(sent).collect()
}

#[test]
fn twenty_thousand_clients_are_told_twice_at_the_stated_rate_in_small_bursts() {
    let (start, mut pacer) = (Instant::now(), Pacer::default());
    pacer.handle_clients(0, connections(20_000), 5000, start);
    let log = run(&mut pacer, &connections(20_000), start);
    let sent = sent(&log);
    assert_eq!(sent.len(), 40_000);
    let mut times: HashMap<Connection, Vec<(Duration, Round)>> = HashMap::new();
    let mut bursts: HashMap<Duration, usize> = HashMap::new();
    for (at, connection, round) in &sent {
        times.entry(*connection).or_default().push((*at, *round));
        *bursts.entry(*at).or_default() += 1;
    }
    assert!(times.values().all(|times| {
        matches!(times[..], [(first, Round::First), (second, Round::Second)] if second - first >= Duration::from_secs(1))
    }));
    assert!(bursts.values().all(|burst| *burst <= 26), "{:?}", bursts.values().max());
    let (first, second) = (Duration::from_secs(4), Duration::from_secs(8));
    let close = |at: Duration, to: Duration| at.abs_diff(to) < Duration::from_millis(20);
    assert!(close(sent[19_999].0, first) && close(sent[39_999].0, second), "{:?}", (sent[19_999].0, sent[39_999].0));
    let told: Vec<_> =
        log.iter().filter(|(_, action)| matches!(action, Action::Told { .. })).map(|(_, a)| *a).collect();
    let expected =
        [Round::First, Round::Second].map(|round| Action::Told { instance: 0, round, clients: 20_000, since: start });
    assert_eq!(told, expected);
}

#[test]
fn five_hundred_are_told_within_a_tenth_of_a_second() {
    let (start, mut pacer) = (Instant::now(), Pacer::default());
    pacer.handle_clients(0, connections(500), 5000, start);
    let log = run(&mut pacer, &[], start);
    assert!(sent(&log)[499].0 <= Duration::from_millis(105));
    assert_eq!(sent(&log)[500].0, REPEAT_AFTER);
    assert!(sent(&log)[501].0 > REPEAT_AFTER, "the pause is not made up for");
}

#[test]
fn who_came_in_the_last_moment_is_told_in_the_second_round() {
    let (start, mut pacer) = (Instant::now(), Pacer::default());
    pacer.handle_clients(3, vec![], 5000, start);
    let log = run(&mut pacer, &[connection(1)], start);
    assert_eq!(
        log,
        [
            (Duration::ZERO, Action::Told { instance: 3, round: Round::First, clients: 0, since: start }),
            (REPEAT_AFTER, Action::Refresh { instance: 3 }),
            (REPEAT_AFTER, Action::Send { instance: 3, connection: connection(1), round: Round::Second }),
            (REPEAT_AFTER, Action::Told { instance: 3, round: Round::Second, clients: 1, since: start }),
        ]
    );
}

#[test]
fn a_host_that_has_lost_the_vip_tells_nobody_else() {
    let (start, mut pacer) = (Instant::now(), Pacer::default());
    pacer.handle_clients(0, connections(100), 1000, start);
    pacer.handle_lost(0);
    assert_eq!((pacer.poll_action(), pacer.poll_timeout()), (None, None));
    pacer.handle_refreshed(0, connections(5), start);
    assert_eq!((pacer.poll_action(), pacer.poll_timeout()), (None, None));
    // And tells everybody when it has it again.
    pacer.handle_clients(0, connections(100), 1000, start);
    assert_eq!(sent(&run(&mut pacer, &[], start)).len(), 200);
}

#[test]
fn losing_one_router_leaves_the_other_ones_clients() {
    let (start, mut pacer) = (Instant::now(), Pacer::default());
    pacer.handle_clients(0, connections(100), 1000, start);
    pacer.handle_clients(1, connections(50), 1000, start);
    let mut told = 0;
    while let Some(action) = pacer.poll_action() {
        told += usize::from(matches!(action, Action::Send { .. }));
    }
    assert_eq!(told, 1, "both share one rate");
    pacer.handle_lost(0);
    assert_eq!(sent(&run(&mut pacer, &[], start)).len(), 100);
}

#[test]
fn a_thread_that_was_held_up_does_not_flood() {
    let (start, mut pacer) = (Instant::now(), Pacer::default());
    pacer.handle_clients(0, connections(1000), 1000, start);
    while pacer.poll_action().is_some() {}
    pacer.handle_timeout(start + Duration::from_millis(500));
    let burst = std::iter::from_fn(|| pacer.poll_action()).count();
    assert!(burst <= 21, "{burst}");
}

proptest! {
    #[test]
    fn nobody_is_told_more_than_twice_and_never_faster_than_the_rate(
        steps in prop::collection::vec((0..3_usize, 0..200_u32, 0..4_u8, 0..50_u64), 0..60),
    ) {
        let (start, mut pacer) = (Instant::now(), Pacer::default());
        let (rate, mut now, mut count) = (1000, start, 0_u32);
        let mut told: HashMap<(Connection, bool), u32> = HashMap::new();
        for (instance, size, what, wait) in steps {
            now += Duration::from_millis(wait);
            match what {
                0 => {
                    told.clear();
                    for other in 0..3 {
                        pacer.handle_lost(other);
                    }
                    pacer.handle_clients(instance, connections(size), rate, now);
                }
                1 => pacer.handle_lost(instance),
                2 => pacer.handle_refreshed(instance, connections(size), now),
                _ => pacer.handle_timeout(now),
            }
            while let Some(action) = pacer.poll_action() {
                if let Action::Send { connection, round, .. } = action {
                    count += 1;
                    let times = told.entry((connection, round == Round::First)).or_default();
                    *times += 1;
                    prop_assert_eq!(*times, 1);
                }
            }
            let passed = u32::try_from((now - start).as_millis()).unwrap_or(u32::MAX);
            // What is caught up with, and one at once for each that begins anew.
            prop_assert!(count <= passed + 21 + 60, "{count} in {passed} ms");
        }
    }
}
