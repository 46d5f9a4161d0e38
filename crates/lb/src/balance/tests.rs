use proptest::prelude::*;

use super::*;

const ALL: [Balance; 5] =
    [Balance::LeastConn, Balance::RoundRobin, Balance::RandomTwo, Balance::SourceIp, Balance::ClientId];

fn load(standing: Standing, connections: usize) -> Load {
    Load {
        standing,
        admin: Admin::Ready,
        backup: false,
        weight: UNIT,
        ramp: UNIT,
        connections,
        identity: rendezvous::key(&[0]),
        open: true,
    }
}

fn up(connections: usize) -> Load {
    load(Standing::Up, connections)
}

fn weighted(weights: &[u32]) -> Vec<Load> {
    let one = |(index, weight): (usize, &u32)| Load {
        weight: weight * UNIT,
        identity: rendezvous::key(&index.to_le_bytes()),
        ..up(0)
    };
    weights.iter().enumerate().map(one).collect()
}

fn request(number: u64) -> Request {
    let key = rendezvous::key(&number.to_le_bytes());
    Request { key, random: key.rotate_left(32) ^ 0x5555_5555_5555_5555 }
}

/// All that a caller does for one client.
fn choose(balancer: &Balancer, loads: &[Load], number: u64) -> Option<usize> {
    let mut loads = loads.to_vec();
    if !narrow(&mut loads) {
        return None;
    }
    balancer.begin(&mut loads);
    let index = balancer.choose(&loads, request(number))?;
    balancer.settle(&loads, index);
    Some(index)
}

fn chosen(balance: Balance, loads: &[Load], times: u64) -> Vec<usize> {
    let balancer = Balancer::new(balance, loads.len());
    (0..times).map(|number| choose(&balancer, loads, number).unwrap()).collect()
}

#[test]
fn nobody_is_chosen_from_nobody() {
    for balance in ALL {
        assert_eq!(choose(&Balancer::new(balance, 0), &[], 0), None);
    }
}

#[test]
fn least_conn_takes_the_fewest() {
    assert_eq!(chosen(Balance::LeastConn, &[up(3), up(1), up(2)], 1), [1]);
}

#[test]
fn least_conn_lets_equals_take_turns() {
    let turns = chosen(Balance::LeastConn, &[up(1), up(2), up(1)], 4);
    assert!(turns == [0, 2, 0, 2] || turns == [2, 0, 2, 0], "{turns:?}");
}

#[test]
fn least_conn_goes_by_what_the_weight_can_carry() {
    let cases = [((1, 1), (2, 4), 0), ((1, 1), (2, 2), 1), ((1, 0), (10, 0), 1), ((0, 0), (1, 500), 1)];
    for ((weight, connections), (other_weight, other_connections), expected) in cases {
        let loads = [
            Load { weight: weight * UNIT, ..up(connections) },
            Load { weight: other_weight * UNIT, ..up(other_connections) },
        ];
        assert_eq!(chosen(Balance::LeastConn, &loads, 1), [expected], "{loads:?}");
    }
}

#[test]
fn round_robin_does_not_look_at_connections() {
    assert_eq!(chosen(Balance::RoundRobin, &[up(9), up(0), up(5)], 7), [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn round_robin_is_smooth_by_weight() {
    let turns = chosen(Balance::RoundRobin, &weighted(&[5, 1, 1]), 700);
    for round in turns.chunks(7) {
        let count = |index| round.iter().filter(|&&turn| turn == index).count();
        assert_eq!([count(0), count(1), count(2)], [5, 1, 1], "{round:?}");
    }
    // The light ones do not come in a row.
    assert!(turns.windows(2).all(|pair| pair[0] == 0 || pair[1] == 0), "{:?}", &turns[..14]);
}

#[test]
fn round_robin_gives_nobody_what_he_has_missed() {
    let balancer = Balancer::new(Balance::RoundRobin, 2);
    let mut loads = weighted(&[1, 1]);
    loads[1].standing = Standing::Down;
    for number in 0..100 {
        assert_eq!(choose(&balancer, &loads, number), Some(0));
    }
    loads[1].standing = Standing::Up;
    let after = (0..20).filter(|&number| choose(&balancer, &loads, number) == Some(1)).count();
    assert!((10..=11).contains(&after), "{after}");
}

#[test]
fn random_two_draws_by_weight_and_takes_the_better() {
    let mut loads = weighted(&[1, 1, 2]);
    for number in 0..4000 {
        let index = random_two(&loads, request(number).random).unwrap();
        loads[index].connections += 1;
    }
    let counts: Vec<_> = loads.iter().map(|load| load.connections).collect();
    assert!((950..=1050).contains(&counts[0]) && (950..=1050).contains(&counts[1]), "{counts:?}");
    // Of two, one that has far fewer is always taken.
    let pair = [up(100), up(0)];
    assert!((0..100).all(|number| random_two(&pair, request(number).random) == Some(1)));
    // The ends of the range.
    for random in [0, u64::MAX, u64::from(u32::MAX), u64::from(u32::MAX) << 32] {
        assert!(random_two(&loads, random).is_some());
    }
}

#[test]
fn a_backend_of_better_standing_comes_first_whatever_its_load() {
    let order = [Standing::Up, Standing::Unproven, Standing::Suspect, Standing::Rejecting, Standing::Down];
    for balance in ALL {
        for pair in order.windows(2) {
            let loads = [load(pair[1], 0), load(pair[0], 1000)];
            assert_eq!(chosen(balance, &loads, 1), [1], "{balance:?} {pair:?}");
        }
    }
}

#[test]
fn tiers_come_one_after_the_other() {
    let backup = |standing| Load { backup: true, ..load(standing, 0) };
    let order = [
        load(Standing::Up, 9),
        load(Standing::Unproven, 9),
        load(Standing::Suspect, 9),
        backup(Standing::Up),
        backup(Standing::Unproven),
        backup(Standing::Suspect),
        load(Standing::Rejecting, 9),
        load(Standing::Down, 9),
    ];
    for (better, load) in order.iter().enumerate() {
        for worse in &order[better + 1..] {
            let mut loads = [*worse, *load];
            assert!(narrow(&mut loads));
            assert_eq!([loads[0].open, loads[1].open], [false, true], "{load:?} before {worse:?}");
        }
    }
    let mut equal = [backup(Standing::Rejecting), load(Standing::Rejecting, 0)];
    assert!(narrow(&mut equal) && equal[0].open && equal[1].open);
}

#[test]
fn who_is_out_is_never_chosen() {
    let outs = [
        Load { admin: Admin::Drain, ..up(0) },
        Load { admin: Admin::Maint, ..up(0) },
        Load { weight: 0, ..up(0) },
        Load { open: false, ..up(0) },
        Load { admin: Admin::Maint, ..load(Standing::Down, 0) },
        Load { admin: Admin::Drain, ..load(Standing::Down, 0) },
    ];
    for balance in ALL {
        for out in outs {
            assert_eq!(choose(&Balancer::new(balance, 1), &[out], 0), None, "{out:?}");
            assert_eq!(chosen(balance, &[out, load(Standing::Down, 10)], 2), [1, 1], "{out:?}");
        }
    }
}

#[test]
fn who_is_in_slow_start_gets_his_part_of_the_choices() {
    for (ramp, least, most) in [(1, 0, 3), (UNIT / 10, 90, 110), (UNIT / 2, 490, 510), (UNIT, 1000, 1000)] {
        let loads = [up(1_000_000), Load { ramp, ..up(0) }];
        let turns = chosen(Balance::LeastConn, &loads, 1000);
        let got = turns.iter().filter(|&&turn| turn == 1).count();
        assert!((least..=most).contains(&got), "{ramp}: {got}");
    }
}

fn any_standing() -> impl Strategy<Value = Standing> {
    proptest::sample::select(Standing::ALL.to_vec())
}

fn any_admin() -> impl Strategy<Value = Admin> {
    prop_oneof![4 => Just(Admin::Ready), 1 => Just(Admin::Drain), 1 => Just(Admin::Maint)]
}

fn any_load() -> impl Strategy<Value = Load> {
    let shape =
        (any_standing(), any_admin(), any::<bool>(), 0_u32..4, 1..=UNIT, 0_usize..50, any::<u64>(), any::<bool>());
    shape.prop_map(|(standing, admin, backup, weight, ramp, connections, identity, open)| Load {
        standing,
        admin,
        backup,
        weight: weight * UNIT,
        ramp,
        connections,
        identity,
        open,
    })
}

fn any_balance() -> impl Strategy<Value = Balance> {
    proptest::sample::select(ALL.to_vec())
}

proptest! {
    #[test]
    fn the_best_is_chosen_if_anybody_can(balance in any_balance(), loads in proptest::collection::vec(any_load(), 0..8), skip in 0_u64..20) {
        let balancer = Balancer::new(balance, loads.len());
        for number in 0..skip {
            let _ = choose(&balancer, &loads, number);
        }
        let best = loads.iter().filter_map(Load::class).min();
        match choose(&balancer, &loads, skip) {
            Some(index) => prop_assert_eq!(loads[index].class(), best),
            None => prop_assert_eq!(best, None),
        }
    }

    #[test]
    fn counts_stay_within_one_when_nobody_leaves(balance in prop_oneof![Just(Balance::LeastConn), Just(Balance::RoundRobin)], backends in 1_usize..8, clients in 0_u64..200) {
        let balancer = Balancer::new(balance, backends);
        let mut loads = vec![up(0); backends];
        for number in 0..clients {
            let index = choose(&balancer, &loads, number).unwrap();
            loads[index].connections += 1;
        }
        let fewest = loads.iter().map(|load| load.connections).min().unwrap();
        let most = loads.iter().map(|load| load.connections).max().unwrap();
        prop_assert!(most - fewest <= 1, "{loads:?}");
    }

    #[test]
    fn everybody_gets_what_his_weight_says(balance in prop_oneof![Just(Balance::LeastConn), Just(Balance::RoundRobin)], weights in proptest::collection::vec(1_u32..20, 1..6)) {
        let balancer = Balancer::new(balance, weights.len());
        let mut loads = weighted(&weights);
        let all = weights.iter().sum::<u32>();
        for number in 0..u64::from(all) * 10 {
            let index = choose(&balancer, &loads, number).unwrap();
            loads[index].connections += 1;
        }
        for (load, weight) in loads.iter().zip(&weights) {
            let expected = *weight as usize * 10;
            prop_assert!(load.connections.abs_diff(expected) <= 2, "{weights:?}: {loads:?}");
        }
    }

    #[test]
    fn least_conn_evens_out_what_leavers_left(start in proptest::collection::vec(0_usize..40, 1..6)) {
        let balancer = Balancer::new(Balance::LeastConn, start.len());
        let mut loads: Vec<_> = start.iter().map(|&connections| up(connections)).collect();
        let missing: usize = start.iter().map(|&connections| start.iter().max().unwrap() - connections).sum();
        for number in 0..missing {
            let index = choose(&balancer, &loads, number as u64).unwrap();
            loads[index].connections += 1;
        }
        prop_assert!(loads.windows(2).all(|pair| pair[0].connections == pair[1].connections), "{loads:?}");
    }

    #[test]
    fn retrying_tries_each_backend_once_and_ends(balance in any_balance(), standings in proptest::collection::vec(any_standing(), 0..8)) {
        let balancer = Balancer::new(balance, standings.len());
        let mut loads: Vec<_> = standings.iter().map(|&standing| load(standing, 0)).collect();
        let mut tried = Vec::new();
        while let Some(index) = choose(&balancer, &loads, 1) {
            loads[index].open = false;
            tried.push(index);
        }
        tried.sort_unstable();
        prop_assert!(tried.windows(2).all(|pair| pair[0] != pair[1]));
        let possible = standings.iter().filter(|standing| standing.rank().is_some() || **standing == Standing::Down).count();
        prop_assert_eq!(tried.len(), possible);
    }
}
