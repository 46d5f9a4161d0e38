use proptest::prelude::*;

use super::*;

fn up(connections: usize) -> Load {
    Load { standing: Standing::Up, connections, tried: false }
}

fn least_conn() -> Balancer {
    Balancer::new(Balance::LeastConn)
}

#[test]
fn nobody_is_chosen_from_nobody() {
    assert_eq!(least_conn().choose(&[]), None);
    assert_eq!(Balancer::new(Balance::RoundRobin).choose(&[]), None);
}

#[test]
fn least_conn_takes_the_fewest() {
    assert_eq!(least_conn().choose(&[up(3), up(1), up(2)]), Some(1));
}

#[test]
fn least_conn_lets_equals_take_turns() {
    let balancer = least_conn();
    let chosen: Vec<_> = (0..4).map(|_| balancer.choose(&[up(1), up(2), up(1)])).collect();
    assert_eq!(chosen, [Some(0), Some(2), Some(0), Some(2)]);
}

#[test]
fn round_robin_does_not_look_at_connections() {
    let balancer = Balancer::new(Balance::RoundRobin);
    let chosen: Vec<_> = (0..4).map(|_| balancer.choose(&[up(9), up(0), up(5)])).collect();
    assert_eq!(chosen, [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn a_backend_of_better_standing_comes_first_whatever_its_load() {
    let order = [Standing::Up, Standing::Unproven, Standing::Suspect, Standing::Rejecting];
    for pair in order.windows(2) {
        let loads = [
            Load { standing: pair[1], connections: 0, tried: false },
            Load { standing: pair[0], connections: 1000, tried: false },
        ];
        assert_eq!(least_conn().choose(&loads), Some(1), "{pair:?}");
    }
}

#[test]
fn one_that_is_down_is_never_chosen() {
    let down = Load { standing: Standing::Down, connections: 0, tried: false };
    assert_eq!(least_conn().choose(&[down]), None);
    assert_eq!(least_conn().choose(&[down, up(1000)]), Some(1));
}

fn any_standing() -> impl Strategy<Value = Standing> {
    proptest::sample::select(Standing::ALL.to_vec())
}

fn any_loads() -> impl Strategy<Value = Vec<Load>> {
    let load = (any_standing(), 0_usize..50, any::<bool>()).prop_map(|(standing, connections, tried)| Load {
        standing,
        connections,
        tried,
    });
    proptest::collection::vec(load, 0..8)
}

fn any_balance() -> impl Strategy<Value = Balance> {
    prop_oneof![Just(Balance::LeastConn), Just(Balance::RoundRobin)]
}

proptest! {
    #[test]
    fn the_excluded_are_never_chosen_and_somebody_is_if_anybody_can(balance in any_balance(), loads in any_loads(), skip in 0_usize..20) {
        let balancer = Balancer::new(balance);
        for _ in 0..skip {
            let _ = balancer.choose(&loads);
        }
        let possible = loads.iter().any(|load| !load.tried && load.standing != Standing::Down);
        match balancer.choose(&loads) {
            Some(index) => {
                let chosen = loads[index];
                prop_assert!(!chosen.tried && chosen.standing != Standing::Down);
                for load in loads.iter().filter(|load| !load.tried) {
                    prop_assert!(load.standing.rank().is_none_or(|rank| rank >= chosen.standing.rank().unwrap()));
                    if balance == Balance::LeastConn && load.standing == chosen.standing {
                        prop_assert!(chosen.connections <= load.connections);
                    }
                }
            }
            None => prop_assert!(!possible),
        }
    }

    #[test]
    fn counts_stay_within_one_when_nobody_leaves(balance in any_balance(), backends in 1_usize..8, clients in 0_usize..200) {
        let balancer = Balancer::new(balance);
        let mut loads = vec![up(0); backends];
        for _ in 0..clients {
            let index = balancer.choose(&loads).unwrap();
            loads[index].connections += 1;
        }
        let fewest = loads.iter().map(|load| load.connections).min().unwrap();
        let most = loads.iter().map(|load| load.connections).max().unwrap();
        prop_assert!(most - fewest <= 1, "{loads:?}");
        prop_assert_eq!(loads.iter().map(|load| load.connections).sum::<usize>(), clients);
    }

    #[test]
    fn least_conn_evens_out_what_leavers_left(start in proptest::collection::vec(0_usize..40, 1..6)) {
        let balancer = least_conn();
        let mut loads: Vec<_> = start.iter().map(|&connections| up(connections)).collect();
        let missing: usize = start.iter().map(|&connections| start.iter().max().unwrap() - connections).sum();
        for _ in 0..missing {
            let index = balancer.choose(&loads).unwrap();
            loads[index].connections += 1;
        }
        prop_assert!(loads.windows(2).all(|pair| pair[0].connections == pair[1].connections), "{loads:?}");
    }

    #[test]
    fn retrying_tries_each_backend_once_and_ends(balance in any_balance(), standings in proptest::collection::vec(any_standing(), 0..8)) {
        let balancer = Balancer::new(balance);
        let mut loads: Vec<_> = standings.iter().map(|&standing| Load { standing, connections: 0, tried: false }).collect();
        let mut tried = 0;
        while let Some(index) = balancer.choose(&loads) {
            loads[index].tried = true;
            tried += 1;
        }
        prop_assert_eq!(tried, standings.iter().filter(|&&standing| standing != Standing::Down).count());
    }
}
