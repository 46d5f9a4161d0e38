#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use std::net::SocketAddr;

use evermq_config::HostName;

use super::*;
use crate::backend::Refusal;

/// What the file gives when it says nothing of it.
pub(crate) fn settings(balance: Balance) -> PoolSettings {
    let handshakes =
        Handshakes { rate: None, rate_per_backend: Some(1000), concurrent: 1000, concurrent_per_backend: 250 };
    PoolSettings { balance, handshakes, slow_start: Duration::from_secs(10) }
}

/// Without bounds.
fn unbounded(balance: Balance) -> PoolSettings {
    let handshakes =
        Handshakes { rate: None, rate_per_backend: None, concurrent: 100_000, concurrent_per_backend: 100_000 };
    PoolSettings { handshakes, ..settings(balance) }
}

fn backend(name: &str) -> BackendConfig {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    BackendConfig::of_cluster(HostName::new(name).unwrap(), address(8883), Some(address(1884)))
}

fn backends(count: usize) -> Vec<BackendConfig> {
    (0..count).map(|index| backend(&format!("broker{index}"))).collect()
}

fn of(group: GroupId) -> Lane {
    Lane::Group { group, kind: AddressKind::Tls, again: false }
}

/// A pool on a virtual clock.
struct Bench {
    pool: Pool,
    now: Instant,
}

impl Bench {
    fn new(backends: &[BackendConfig], settings: &PoolSettings) -> Self {
        let now = Instant::now();
        Self { pool: Pool::new(backends, settings, now), now }
    }

    fn up(backends: &[BackendConfig], settings: &PoolSettings) -> Self {
        let bench = Self::new(backends, settings);
        for index in 0..backends.len() {
            bench.set(index, Standing::Up);
        }
        bench
    }

    fn set(&self, index: usize, standing: Standing) {
        self.pool.set_standing(index, standing, self.now);
    }

    fn choose_for(&self, source: u32, tried: &[usize]) -> Choice {
        let group = self.pool.group("brokers").unwrap();
        let wanted =
            Wanted { group, source: IpAddr::V4(source.into()), client_id: None, tried, kind: AddressKind::Tls };
        self.pool.choose(&wanted, self.now)
    }

    /// Workers try again at different times after `least`.
    fn assert_retry(&self, lane: Lane, least: Duration) {
        let times: Vec<_> = (0..50).map(|_| self.pool.retry_at(lane, self.now) - self.now).collect();
        assert!(times.iter().all(|time| (least..least + LOOK).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time < least + LOOK / 2) && times.iter().any(|time| *time > least + LOOK / 2));
    }

    fn go(&self) -> Lease {
        self.go_for(1, &[])
    }

    fn go_for(&self, source: u32, tried: &[usize]) -> Lease {
        match self.choose_for(source, tried) {
            Choice::Go(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// How many of so many new clients each backend gets.
    fn shares(&self, clients: u32) -> (Vec<usize>, Vec<Lease>) {
        let mut shares = vec![0; self.pool.members().len()];
        let leases: Vec<_> = (0..clients).map(|client| self.go_for(client, &[])).collect();
        for lease in &leases {
            shares[lease.index()] += 1;
        }
        (shares, leases)
    }
}

#[test]
fn a_lease_is_counted_while_it_lives() {
    let bench = Bench::new(&backends(2), &settings(Balance::LeastConn));
    let first = bench.go();
    let second = bench.go();
    assert_ne!(first.index(), second.index());
    let counts = || bench.pool.members().iter().map(|m| (m.connections(), m.handshakes())).collect::<Vec<_>>();
    assert_eq!(counts(), [(1, 1), (1, 1)]);
    drop((first, second));
    assert_eq!(counts(), [(0, 0), (0, 0)]);
    assert_eq!(bench.pool.shared.handshakes.taken(), 0);
    assert!(size_of::<Lease>() <= 24);
}

#[test]
fn what_was_tried_is_not_chosen_again() {
    let bench = Bench::new(&backends(2), &settings(Balance::LeastConn));
    let first = bench.go().index();
    let second = bench.go_for(1, &[first]).index();
    assert_ne!(first, second);
    assert!(matches!(bench.choose_for(1, &[first, second]), Choice::Nobody));
}

#[test]
fn going_down_makes_leases_stale_and_later_ones_are_not() {
    let bench = Bench::up(&backends(2), &settings(Balance::LeastConn));
    let before = bench.go_for(1, &[1]);
    assert!(!before.is_stale());
    bench.set(0, Standing::Down);
    assert!(before.is_stale());
    assert_eq!(bench.go().index(), 1);
    bench.set(0, Standing::Up);
    assert!(before.is_stale());
    assert!(!bench.go_for(1, &[1]).is_stale());
}

#[test]
fn when_all_are_down_they_are_tried_all_the_same() {
    let bench = Bench::up(&backends(3), &settings(Balance::LeastConn));
    for index in 0..3 {
        bench.set(index, Standing::Down);
    }
    bench.pool.members()[2].set_admin(Admin::Maint);
    let first = bench.go();
    let second = bench.go_for(1, &[first.index()]);
    assert!(!first.is_stale() && first.index() + second.index() == 1);
    assert!(matches!(bench.choose_for(1, &[0, 1]), Choice::Nobody));
    bench.set(1, Standing::Up);
    assert_eq!(bench.go().index(), 1);
}

#[test]
fn a_refusal_is_felt_by_the_next_client_at_once() {
    let bench = Bench::up(&backends(2), &settings(Balance::LeastConn));
    let member = &bench.pool.members()[0];
    member.refuse(Refusal::Refused);
    assert_eq!((member.standing(), member.refusals()), (Standing::Suspect, 1));
    for _ in 0..4 {
        assert_eq!(bench.go().index(), 1);
    }
}

#[test]
fn a_refusal_of_one_that_is_not_up_changes_nothing_by_itself() {
    let bench = Bench::new(&backends(1), &settings(Balance::LeastConn));
    for standing in Standing::ALL.into_iter().filter(|&standing| standing != Standing::Up) {
        bench.set(0, standing);
        bench.pool.members()[0].refuse(Refusal::TimedOut);
        assert_eq!(bench.pool.members()[0].standing(), standing);
    }
}

#[test]
fn the_operator_takes_one_out_and_puts_it_back() {
    let bench = Bench::up(&backends(2), &unbounded(Balance::LeastConn));
    let member = &bench.pool.members()[0];
    let before = bench.go_for(1, &[1]);
    member.set_admin(Admin::Drain);
    assert!(!before.is_stale());
    assert_eq!(bench.shares(10).0, [0, 10]);
    member.set_admin(Admin::Maint);
    assert!(before.is_stale());
    assert_eq!(bench.shares(10).0, [0, 10]);
    bench.pool.members()[1].set_admin(Admin::Drain);
    assert!(matches!(bench.choose_for(1, &[]), Choice::Nobody));
    member.set_admin(Admin::Ready);
    assert!(before.is_stale());
    assert_eq!(bench.shares(10).0, [10, 0]);
    for admin in [Admin::Ready, Admin::Drain, Admin::Maint] {
        assert_eq!(Admin::from_name(admin.name()), Some(admin));
        assert_eq!(Admin::from_u8(admin as u8), Some(admin));
    }
}

#[test]
fn weights_can_be_set_at_run_time() {
    for balance in [Balance::LeastConn, Balance::RoundRobin] {
        let bench = Bench::up(&backends(2), &unbounded(balance));
        bench.pool.members()[0].set_weight(3);
        assert_eq!(bench.shares(400).0, [300, 100], "{balance:?}");
        bench.pool.members()[0].set_weight(0);
        assert_eq!(bench.shares(20).0, [0, 20], "{balance:?}");
        bench.pool.members()[1].set_weight(0);
        assert!(matches!(bench.choose_for(1, &[]), Choice::Nobody));
    }
}

#[test]
fn a_backend_without_such_an_address_is_not_chosen() {
    let tls_only = BackendConfig { plain_address: None, ..backend("tls") };
    let plain_only = BackendConfig { address: None, send_proxy: true, ..backend("plain") };
    let bench = Bench::up(&[tls_only, plain_only], &unbounded(Balance::RoundRobin));
    let group = bench.pool.group("brokers").unwrap();
    for (kind, expected) in [(AddressKind::Tls, 0), (AddressKind::Plain, 1), (AddressKind::Plain, 1)] {
        let wanted = Wanted { group, source: IpAddr::V4(1.into()), client_id: None, tried: &[], kind };
        let Choice::Go(lease) = bench.pool.choose(&wanted, bench.now) else { panic!("{kind:?}") };
        assert_eq!(lease.index(), expected);
        assert!(lease.member().address_for(kind).is_some());
    }
    let member = &bench.pool.members()[1];
    assert!(member.sends_proxy(AddressKind::Tls) && member.sends_proxy(AddressKind::Plain));
    assert_eq!(member.address().port(), 1884);
}

#[test]
fn groups_are_apart() {
    let other = BackendConfig { group: "other".to_owned(), ..backend("guest") };
    let bench = Bench::up(&[backend("own"), other], &unbounded(Balance::LeastConn));
    assert_eq!(bench.shares(5).0, [5, 0]);
    assert_eq!(bench.pool.group("nobody"), None);
    let group = bench.pool.group("other").unwrap();
    assert_eq!(bench.pool.group_members(group), [1]);
}

#[test]
fn at_its_rate_the_next_one_is_taken_and_then_one_waits() {
    let bench = Bench::up(&backends(2), &settings(Balance::LeastConn));
    // A burst each.
    let (shares, mut leases) = bench.shares(94);
    assert_eq!(shares, [47, 47]);
    let group = bench.pool.group("brokers").unwrap();
    for _ in 0..10 {
        assert!(matches!(bench.choose_for(1, &[]), Choice::Wait(lane) if lane == of(group)));
    }
    bench.assert_retry(of(group), LOOK / 2);
    // Failures have taken nothing.
    assert_eq!(bench.pool.members().iter().map(|m| m.connections()).sum::<usize>(), 94);
    let later = Bench { now: bench.now + LOOK, pool: bench.pool };
    leases.extend(later.shares(10).1);
    assert!(matches!(later.choose_for(1, &[]), Choice::Wait(_)));
}

#[test]
fn the_rate_of_all_bounds_all() {
    let handshakes = Handshakes { rate: Some(100), ..settings(Balance::LeastConn).handshakes };
    let bench = Bench::up(&backends(2), &PoolSettings { handshakes, ..settings(Balance::LeastConn) });
    let (shares, _leases) = bench.shares(4);
    assert_eq!(shares.iter().sum::<usize>(), 4);
    assert!(matches!(bench.choose_for(1, &[]), Choice::Wait(_)));
    let lane = of(bench.pool.group("brokers").unwrap());
    bench.assert_retry(lane, Duration::from_micros(2_630));
    // Its members have kept their own.
    assert_eq!(bench.pool.members()[0].ready_at(0), 0);
}

#[test]
fn handshakes_at_once_are_bounded_and_end_once() {
    let handshakes = Handshakes { rate: None, rate_per_backend: None, concurrent: 3, concurrent_per_backend: 2 };
    let bench = Bench::up(&backends(2), &PoolSettings { handshakes, ..settings(Balance::LeastConn) });
    let mut one = bench.go_for(1, &[1]);
    let two = bench.go_for(1, &[1]);
    assert!(matches!(bench.choose_for(1, &[1]), Choice::Wait(_)));
    let three = bench.go_for(1, &[0]);
    assert!(matches!(bench.choose_for(1, &[0]), Choice::Wait(_)));
    one.handshaken();
    one.handshaken();
    assert!(!one.is_handshaking());
    let four = bench.go();
    assert_eq!(bench.pool.members().iter().map(|m| m.handshakes()).sum::<usize>(), 3);
    assert!(matches!(bench.choose_for(1, &[]), Choice::Wait(_)));
    drop((one, two, three, four));
    assert_eq!(bench.pool.members().iter().map(|m| (m.handshakes(), m.connections())).collect::<Vec<_>>(), [(0, 0); 2]);
    assert_eq!(bench.pool.shared.handshakes.taken(), 0);
}

#[test]
fn at_max_connections_one_waits() {
    let full = |name| BackendConfig { max_connections: Some(2), ..backend(name) };
    for balance in [Balance::LeastConn, Balance::RoundRobin, Balance::RandomTwo, Balance::SourceIp] {
        let bench = Bench::up(&[full("a"), full("b")], &unbounded(balance));
        let (shares, mut leases) = bench.shares(4);
        assert_eq!(shares, [2, 2], "{balance:?}");
        assert!(matches!(bench.choose_for(5, &[]), Choice::Wait(Lane::Group { again: false, .. })), "{balance:?}");
        leases.pop();
        let free = bench.go_for(6, &[]).index();
        assert_eq!(bench.go_for(7, &[]).index(), free, "{balance:?}");
    }
}

#[test]
fn a_backup_gets_clients_only_when_all_others_are_down() {
    let backup = BackendConfig { backup: true, ..backend("backup") };
    let bench = Bench::up(&[backend("a"), backend("b"), backup], &unbounded(Balance::LeastConn));
    assert_eq!(bench.shares(10).0, [5, 5, 0]);
    bench.set(0, Standing::Down);
    bench.set(1, Standing::Suspect);
    assert_eq!(bench.shares(10).0, [0, 10, 0]);
    bench.set(1, Standing::Rejecting);
    assert_eq!(bench.shares(10).0, [0, 0, 10]);
    bench.set(1, Standing::Down);
    assert_eq!(bench.shares(10).0, [0, 0, 10]);
    bench.set(2, Standing::Down);
    assert_eq!(bench.shares(9).0, [3, 3, 3]);
    bench.set(0, Standing::Up);
    assert_eq!(bench.shares(10).0, [10, 0, 0]);
}

#[test]
fn who_returns_starts_slowly_from_when_it_came_up() {
    for balance in [Balance::LeastConn, Balance::RoundRobin, Balance::RandomTwo, Balance::SourceIp] {
        let mut bench = Bench::up(&backends(2), &unbounded(balance));
        // At the lb's own start nobody is slow.
        assert_eq!(bench.pool.members()[1].ramp_percent(bench.now), 100);
        bench.set(1, Standing::Down);
        let (_, mut leases) = bench.shares(1000);
        bench.now += Duration::from_secs(100);
        bench.set(1, Standing::Up);
        let mut before = 0;
        for (second, least, most) in [(1, 30, 200), (5, 300, 600), (9, 450, 1000)] {
            let at = Bench { now: bench.now + Duration::from_secs(second), pool: bench.pool };
            let (shares, held) = at.shares(1000);
            assert!((least..=most).contains(&shares[1]) && shares[1] > before, "{balance:?} {second}: {shares:?}");
            before = shares[1];
            leases.extend(held);
            bench.pool = at.pool;
        }
        bench.now += Duration::from_secs(10);
        assert_eq!(bench.pool.members()[1].ramp_percent(bench.now), 100);
        // An ejection is no absence.
        bench.set(1, Standing::Suspect);
        bench.set(1, Standing::Up);
        assert_eq!(bench.pool.members()[1].ramp_percent(bench.now), 100);
    }
}

#[test]
fn who_comes_up_a_moment_after_the_lb_is_not_slow() {
    for (seconds, percent) in [(9, 100), (11, 0)] {
        let mut bench = Bench::new(&backends(2), &unbounded(Balance::LeastConn));
        bench.set(0, Standing::Up);
        bench.set(1, Standing::Down);
        bench.now += Duration::from_secs(seconds);
        bench.set(1, Standing::Up);
        assert_eq!(bench.pool.members()[1].ramp_percent(bench.now), percent, "after {seconds} s");
        // It has been there now: the next time it returns.
        bench.set(1, Standing::Down);
        bench.set(1, Standing::Up);
        assert_eq!(bench.pool.members()[1].ramp_percent(bench.now), 0);
    }
}

#[test]
fn the_only_one_gets_all_however_slow_its_start() {
    for balance in [Balance::LeastConn, Balance::RoundRobin, Balance::RandomTwo, Balance::SourceIp] {
        let bench = Bench::up(&backends(2), &unbounded(balance));
        bench.set(0, Standing::Down);
        bench.set(1, Standing::Down);
        bench.set(1, Standing::Up);
        assert_eq!(bench.shares(50).0, [0, 50], "{balance:?}");
    }
}

#[test]
fn who_waits_for_one_backend_waits_for_that_one() {
    let bench = Bench::up(&backends(2), &settings(Balance::ClientId));
    let group = bench.pool.group("brokers").unwrap();
    let choose = |id: &[u8]| {
        let wanted =
            Wanted { group, source: IpAddr::V4(1.into()), client_id: Some(id), tried: &[], kind: AddressKind::Tls };
        bench.pool.choose(&wanted, bench.now)
    };
    let mut home = None;
    for _ in 0..47 {
        let Choice::Go(lease) = choose(b"sensor-17") else { panic!("no burst") };
        assert_eq!(*home.get_or_insert(lease.index()), lease.index());
    }
    let home = &bench.pool.members()[home.unwrap()];
    assert!(matches!(choose(b"sensor-17"), Choice::Wait(Lane::Member(id)) if id == home.id()));
    bench.assert_retry(Lane::Member(home.id()), LOOK / 2);
    let others = (0..100).filter(|n: &u32| matches!(choose(&n.to_le_bytes()), Choice::Go(_))).count();
    assert!((30..=50).contains(&others), "{others}");
}

#[test]
fn a_newcomer_waits_behind_those_that_wait() {
    let wanted = |pool: &Pool| Wanted {
        group: pool.group("brokers").unwrap(),
        source: IpAddr::V4(1.into()),
        client_id: None,
        tried: &[],
        kind: AddressKind::Tls,
    };
    let least_conn = Bench::up(&backends(2), &settings(Balance::LeastConn));
    let source_ip = Bench::up(&backends(2), &settings(Balance::SourceIp));
    for bench in [least_conn, source_ip] {
        let choice = bench.pool.choose_behind(&wanted(&bench.pool), bench.now, |_| true);
        assert!(matches!(choice, Choice::Wait(_)), "{choice:?}");
        bench.set(0, Standing::Unproven);
        bench.pool.members()[1].set_admin(Admin::Drain);
        let asked = std::cell::Cell::new(None);
        let choice = bench.pool.choose_behind(&wanted(&bench.pool), bench.now, |lane| {
            asked.set(Some(lane));
            false
        });
        assert!(asked.get().is_some() && matches!(choice, Choice::Go(_)), "{choice:?}");
    }
}

#[test]
fn who_was_refused_by_one_holds_up_nobody_that_was_not() {
    let full = BackendConfig { max_connections: Some(1), ..backend("a") };
    let bench = Bench::up(&[full, backend("b")], &unbounded(Balance::LeastConn));
    let _held = bench.go_for(1, &[1]);
    let Choice::Wait(lane) = bench.choose_for(2, &[1]) else { panic!("a is full, and b has refused") };
    assert!(matches!(lane, Lane::Group { again: true, .. }));
    let group = bench.pool.group("brokers").unwrap();
    let wanted = Wanted { group, source: IpAddr::V4(3.into()), client_id: None, tried: &[], kind: AddressKind::Tls };
    let choice = bench.pool.choose_behind(&wanted, bench.now, |other| other == lane);
    assert!(matches!(choice, Choice::Go(lease) if lease.index() == 1));
}

#[test]
fn a_reload_keeps_who_stays() {
    let start = [backend("a"), backend("b"), BackendConfig { group: "g".to_owned(), ..backend("c") }];
    let bench = Bench::up(&start, &settings(Balance::LeastConn));
    let [brokers, g] = ["brokers", "g"].map(|name| bench.pool.group(name).unwrap());
    let held = bench.go_for(1, &[1]);
    bench.pool.members()[0].set_weight(7);
    bench.pool.members()[0].set_admin(Admin::Drain);

    let elsewhere = BackendConfig { address: Some(SocketAddr::from(([127, 0, 0, 2], 8883))), ..backend("b") };
    let moved = BackendConfig { max_connections: Some(1), backup: true, ..backend("a") };
    let next = [backend("new"), elsewhere, moved];
    let (pool, gone) = bench.pool.renewed(&next, &unbounded(Balance::RoundRobin));
    assert_eq!(gone.iter().map(|member| member.name()).collect::<Vec<_>>(), ["b", "c"]);
    assert!(Arc::ptr_eq(held.member(), &pool.members()[2]));
    assert!(!held.is_stale());
    let member = &pool.members()[2];
    assert_eq!((member.weight(), member.admin(), member.connections()), (7, Admin::Drain, 1));
    assert!(pool.config(2).backup && pool.settings().balance == Balance::RoundRobin);
    assert_eq!((pool.group("brokers"), pool.group("g")), (Some(brokers), Some(g)));
    assert!(pool.group_members(g).is_empty());
    let mut ids: Vec<_> = pool.members().iter().chain(bench.pool.members()).map(|member| member.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, [0, 1, 2, 3, 4]);

    // Bounds are those of the new file, also for who stays.
    member.set_admin(Admin::Ready);
    let after = Bench { pool, now: bench.now };
    for index in 0..2 {
        after.pool.members()[index].set_admin(Admin::Drain);
    }
    after.set(2, Standing::Up);
    assert!(matches!(after.choose_for(1, &[]), Choice::Wait(_)));
    drop(held);
    assert_eq!(after.go().index(), 2);

    // Another weight in the file counts, the same one does not undo what was set by hand.
    let heavier = [BackendConfig { weight: 5, ..next[2].clone() }];
    let (pool, gone) = after.pool.renewed(&heavier, &unbounded(Balance::RoundRobin));
    assert_eq!((pool.members()[0].weight(), gone.len()), (5, 2));

    // Who joins starts slowly, for it is empty where the others are not.
    after.set(0, Standing::Up);
    assert_eq!(after.pool.members()[0].ramp_percent(after.now), 0);
}

#[test]
fn a_connection_that_is_taken_over_counts_but_is_no_handshake() {
    let full = BackendConfig { max_connections: Some(1), ..backend("a") };
    let bench = Bench::up(&[full], &settings(Balance::LeastConn));
    let leases = [bench.pool.adopt("a").unwrap(), bench.pool.adopt("a").unwrap()];
    assert!(bench.pool.adopt("b").is_none());
    let member = &bench.pool.members()[0];
    assert_eq!((member.connections(), member.handshakes(), member.total()), (2, 0, 0));
    assert!(matches!(bench.choose_for(1, &[]), Choice::Wait(_)));
    bench.set(0, Standing::Down);
    assert!(leases.iter().all(Lease::is_stale));
    drop(leases);
    assert_eq!(member.connections(), 0);
}

#[test]
fn threads_together_stay_within_all_bounds() {
    let handshakes =
        Handshakes { rate: Some(4000), rate_per_backend: Some(1000), concurrent: 60, concurrent_per_backend: 40 };
    let bench = Bench::up(&backends(2), &PoolSettings { handshakes, ..settings(Balance::LeastConn) });
    let (pool, now) = (Arc::new(bench.pool), bench.now);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let bench = Bench { pool: Pool::renewed(&pool, &backends(2), pool.settings()).0, now };
            std::thread::spawn(move || {
                let mut held = Vec::new();
                for client in 0..500 {
                    if let Choice::Go(lease) = bench.choose_for(client, &[]) {
                        held.push(lease);
                    }
                }
                held
            })
        })
        .collect();
    let held: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(held.len(), 60);
    let counts: Vec<_> = pool.members().iter().map(|member| member.handshakes()).collect();
    assert!(counts.iter().all(|&count| count <= 40) && counts.iter().sum::<usize>() == 60, "{counts:?}");
    drop(held);
    assert!(pool.members().iter().all(|member| member.connections() == 0 && member.handshakes() == 0));
}
