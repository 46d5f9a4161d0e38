#![expect(clippy::disallowed_methods, reason = "a failed unwrap is a failed test; tests have a clock")]

use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings { rate: Some(10), threshold: 20, delay: Duration::from_secs(60) };

fn seat(key: u64, connections: usize) -> Seat {
    Seat { key, group: 0, weight: 1, role: Role::Takes, connections }
}

/// The machine and the cluster that it works on: who is closed comes back to the one with the fewest for its weight.
struct World {
    machine: Rebalance,
    seats: Vec<Seat>,
    now: Instant,
    closed: Vec<(Instant, u64, Cause)>,
    /// Clients come back where they were.
    stubborn: bool,
}

impl World {
    fn new(settings: Settings, seats: &[Seat]) -> Self {
        let now = Instant::now();
        let mut machine = Rebalance::new(settings);
        machine.handle_backends(seats, now);
        Self { machine, seats: seats.to_vec(), now, closed: Vec::new(), stubborn: false }
    }

    fn connections(&self) -> Vec<usize> {
        self.seats.iter().map(|seat| seat.connections).collect()
    }

    /// Does what the machine says, at the times that it names, and samples twice a second besides.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut sample = self.now;
        while self.now < end {
            let due = self.machine.poll_timeout().unwrap_or(end).max(self.now);
            self.now = due.min(sample).min(end);
            if self.now >= sample {
                sample = self.now + Duration::from_millis(500);
                self.machine.handle_backends(&self.seats.clone(), self.now);
            } else {
                self.machine.handle_timeout(self.now);
            }
            self.act();
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            let Action::Close { key, count, cause } = action else { continue };
            assert!(count > 0);
            for _ in 0..count {
                self.closed.push((self.now, key, cause));
                let from = self.seats.iter().position(|seat| seat.key == key).unwrap();
                self.seats[from].connections -= 1;
                let group = self.seats[from].group;
                let takes = |seat: &&mut Seat| seat.group == group && seat.role == Role::Takes && seat.weight > 0;
                let fewest = self
                    .seats
                    .iter_mut()
                    .filter(takes)
                    .min_by_key(|seat| seat.connections * 1000 / usize::from(seat.weight));
                let home = if self.stubborn { &mut self.seats[from] } else { fewest.unwrap() };
                home.connections += 1;
            }
        }
    }
}

#[test]
fn after_a_restart_the_backend_gets_its_share_back() {
    let mut world = World::new(SETTINGS, &[seat(1, 1000), seat(2, 0)]);
    world.run(Duration::from_secs(59));
    assert_eq!(world.closed, [], "not before the delay");
    world.run(Duration::from_secs(11));
    let closed = world.closed.len();
    assert!((90..=111).contains(&closed), "ten in a second: {closed}");
    world.run(Duration::from_secs(60));
    assert_eq!(world.connections(), [500, 500]);
    assert_eq!(world.closed.len(), 500);
    world.run(Duration::from_secs(300));
    assert_eq!(world.closed.len(), 500, "it stops when balanced");
    assert!(world.closed.iter().all(|(_, key, cause)| (*key, *cause) == (1, Cause::Rebalance)));
}

#[test]
fn an_operator_waits_neither_for_the_delay_nor_for_the_threshold() {
    for rate in [Some(10), None] {
        let settings = Settings { rate, ..SETTINGS };
        let mut world = World::new(settings, &[seat(1, 110), seat(2, 90), Seat { group: 1, ..seat(3, 5) }]);
        let now = world.now;
        assert_eq!(world.machine.handle_request(20, now), [(0, 10), (1, 0)]);
        world.act();
        world.run(Duration::from_millis(300));
        let closed = world.closed.len();
        assert!((6..=8).contains(&closed), "twenty in a second: {closed}");
        assert_eq!(world.machine.handle_request(1, world.now), [(0, 10 - closed), (1, 0)], "it goes on as it is");
        world.run(Duration::from_secs(600));
        assert_eq!(world.connections(), [100, 100, 5], "rate {rate:?}");
        assert_eq!(world.closed.len(), 10);
        assert_eq!(world.machine.handle_request(20, world.now), [(0, 0), (1, 0)]);
        world.run(Duration::from_secs(60));
        assert_eq!(world.closed.len(), 10);
    }
}

#[test]
fn what_is_nearly_even_is_left_alone() {
    let mut world = World::new(SETTINGS, &[seat(1, 119), seat(2, 81)]);
    world.run(Duration::from_secs(600));
    assert_eq!(world.closed, []);
    // One of three is 200 percent above its share, but that is one client.
    let mut world = World::new(SETTINGS, &[seat(1, 1), seat(2, 0), seat(3, 0)]);
    world.run(Duration::from_secs(600));
    assert_eq!(world.closed, []);
}

#[test]
fn shares_go_by_weight_and_the_worst_is_first() {
    let seats = [
        Seat { weight: 3, ..seat(1, 300) },
        Seat { weight: 1, ..seat(2, 300) },
        Seat { weight: 2, ..seat(3, 0) },
        Seat { weight: 0, ..seat(4, 50) },
    ];
    let mut world = World::new(SETTINGS, &seats);
    world.run(Duration::from_secs(61));
    assert!(world.closed.iter().all(|(_, key, _)| *key == 2), "{:?}", world.closed);
    world.run(Duration::from_secs(120));
    assert_eq!(world.connections(), [300, 100, 200, 50]);
}

#[test]
fn a_change_of_the_backends_ends_it_and_the_delay_begins_anew() {
    let mut world = World::new(SETTINGS, &[seat(1, 1000), seat(2, 0)]);
    world.run(Duration::from_secs(62));
    let closed = world.closed.len();
    assert!(closed > 0);
    world.seats[1].role = Role::Away;
    world.run(Duration::from_secs(120));
    world.seats[1].role = Role::Takes;
    world.run(Duration::from_secs(59));
    assert_eq!(world.closed.len(), closed);
    world.run(Duration::from_secs(3));
    assert!(world.closed.len() > closed);
}

#[test]
fn clients_that_come_back_where_they_were_are_not_closed_for_ever() {
    let mut world = World::new(SETTINGS, &[seat(1, 40), seat(2, 0)]);
    world.stubborn = true;
    world.run(Duration::from_secs(100));
    assert_eq!(world.closed.len(), 2 * 20 + SLACK);
    world.run(Duration::from_secs(19));
    assert_eq!(world.closed.len(), 2 * 20 + SLACK, "it rests for the delay");
}

#[test]
fn without_a_rate_nothing_is_evened_out_and_drains_still_work() {
    let drains = Seat { role: Role::Drains(100), ..seat(2, 50) };
    let mut world = World::new(Settings { rate: None, ..SETTINGS }, &[seat(1, 1000), drains, seat(3, 0)]);
    world.run(Duration::from_millis(100));
    assert!((5..=20).contains(&world.closed.len()), "a drain waits for nothing: {}", world.closed.len());
    world.run(Duration::from_secs(1));
    assert_eq!(world.connections(), [1000, 0, 50]);
    assert!(world.closed.iter().all(|(_, key, cause)| (*key, *cause) == (2, Cause::Drain)));
    world.run(Duration::from_secs(300));
    assert_eq!(world.closed.len(), 50);
}

#[test]
fn a_drain_keeps_its_clients_while_nobody_else_takes_them() {
    let drains = Seat { role: Role::Drains(100), ..seat(1, 50) };
    let mut world =
        World::new(SETTINGS, &[drains, Seat { role: Role::Away, ..seat(2, 0) }, Seat { group: 1, ..seat(3, 0) }]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.closed, []);
    assert!(!world.machine.has_refuge(0) && world.machine.has_refuge(1));
    world.seats[1].role = Role::Takes;
    world.run(Duration::from_secs(2));
    assert_eq!(world.connections(), [0, 50, 0]);
}

#[test]
fn backups_count_only_where_nobody_else_takes_clients() {
    let backup = |key, connections| Seat { role: Role::Backup, ..seat(key, connections) };
    let mut world = World::new(SETTINGS, &[seat(1, 50), seat(2, 50), backup(3, 0)]);
    world.run(Duration::from_secs(300));
    assert_eq!(world.closed, []);
    let machine = World::new(SETTINGS, &[Seat { role: Role::Away, ..seat(1, 0) }, backup(3, 0)]).machine;
    assert!(machine.has_refuge(0));
}

#[test]
fn groups_do_not_mix() {
    let mut world = World::new(SETTINGS, &[seat(1, 100), seat(2, 100), Seat { group: 1, ..seat(3, 0) }]);
    world.run(Duration::from_secs(300));
    assert_eq!(world.closed, []);
}

#[test]
fn between_two_looks_no_more_are_closed_than_are_too_many() {
    let mut world = World::new(Settings { rate: Some(1000), ..SETTINGS }, &[seat(1, 300), seat(2, 0)]);
    world.run(Duration::from_secs(90));
    assert_eq!((world.connections(), world.closed.len()), (vec![150, 150], 150));
}

#[test]
fn a_new_file_changes_the_rate_at_once() {
    let mut world = World::new(SETTINGS, &[seat(1, 1000), seat(2, 0)]);
    world.run(Duration::from_secs(61));
    world.machine.handle_settings(Settings { rate: None, ..SETTINGS });
    world.run(Duration::from_secs(1));
    let closed = world.closed.len();
    world.run(Duration::from_secs(100));
    assert_eq!(world.closed.len(), closed);
}

#[test]
fn high_rates_close_several_at_once_and_misses_are_not_made_up_for() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    let mut sum = 0;
    let mut at = now;
    while at < now + Duration::from_secs(1) {
        sum += pace.take(5000, usize::MAX, at);
        assert!(pace.next() >= at + TICK);
        at = pace.next();
    }
    assert!((4900..=5001).contains(&sum), "{sum}");
    assert_eq!(pace.take(5000, usize::MAX, at + Duration::from_secs(60)), 500);
}

fn seats() -> impl Strategy<Value = Vec<Seat>> {
    let role = prop_oneof![4 => Just(Role::Takes), 1 => Just(Role::Backup), 1 => (1_u32..200).prop_map(Role::Drains), 1 => Just(Role::Away)];
    let seat = (0_usize..2, 0_u16..5, role, 0_usize..300);
    prop::collection::vec(seat, 1..6).prop_map(|seats| {
        let seat = |(key, (group, weight, role, connections)): (usize, (usize, u16, Role, usize))| Seat {
            key: key as u64,
            group,
            weight,
            role,
            connections,
        };
        seats.into_iter().enumerate().map(seat).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the backends are: nobody falls below its share, rates are kept, and those that take clients end up even.
    #[test]
    fn shares_and_rates_hold(seats in seats(), rate in 1_u32..100, threshold in 0_u8..100) {
        let settings = Settings { rate: Some(rate), threshold, delay: Duration::from_secs(1) };
        let mut machine = Rebalance::new(settings);
        let start = Instant::now();
        let mut now = start;
        let mut closed = 0_usize;
        let mut seats = seats;
        machine.handle_backends(&seats, now);
        for _ in 0..2000 {
            while let Some(action) = machine.poll_action() {
                let Action::Close { key, count, cause } = action else { continue };
                let seat = seats.iter_mut().find(|seat| seat.key == key).unwrap();
                prop_assert!(count > 0 && count <= seat.connections);
                seat.connections -= count;
                let (group, left, weight) = (seat.group, seat.connections, usize::from(seat.weight));
                match cause {
                    Cause::Drain => prop_assert!(matches!(seat.role, Role::Drains(_)) && machine.has_refuge(group)),
                    Cause::Rebalance => {
                        closed += count;
                        let role = seat.role;
                        let of = |seat: &&Seat| seat.group == group && seat.role == role && seat.weight > 0;
                        let total: usize = seats.iter().filter(of).map(|seat| seat.connections).sum();
                        let weights: usize = seats.iter().filter(of).map(|seat| usize::from(seat.weight)).sum();
                        prop_assert!(left * weights >= total * weight, "{left} of {total}");
                    }
                }
            }
            let groups = 2;
            let most = groups * (now.duration_since(start).as_millis() as usize * rate as usize / 1000 + 1);
            prop_assert!(closed <= most, "{closed} of {most}");
            let Some(due) = machine.poll_timeout() else { break };
            now = due.max(now);
            machine.handle_timeout(now);
        }
    }
}
