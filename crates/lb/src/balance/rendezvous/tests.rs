use std::collections::HashMap;

use super::*;
use crate::backend::Standing;
use crate::balance::{Admin, UNIT};

fn backend(name: &str, weight: u32) -> Load {
    Load {
        standing: Standing::Up,
        admin: Admin::Ready,
        backup: false,
        weight: weight * UNIT,
        ramp: UNIT,
        connections: 0,
        identity: key(name.as_bytes()),
        open: true,
    }
}

fn named(names: &[&str]) -> Vec<Load> {
    names.iter().map(|name| backend(name, 1)).collect()
}

/// The home of each of 20,000 clients, by the backend's identity.
fn homes(loads: &[Load]) -> Vec<u64> {
    let client = |number: u32| loads[choose(loads, key(&number.to_be_bytes())).unwrap()].identity;
    (0..20_000).map(client).collect()
}

fn count(homes: &[u64], backend: &Load) -> usize {
    homes.iter().filter(|&&home| home == backend.identity).count()
}

/// What every lb of a cluster must agree on, whichever version it is: never to be changed.
#[test]
fn the_hash_is_for_ever() {
    assert_eq!(key(b""), 0x49d5_0f75_6cef_a9cf);
    assert_eq!(key(b"sensor-17"), 0x0133_86ba_196f_18c5);
    assert_eq!(address_key("192.0.2.1".parse().unwrap()), 0x6582_0a0e_720a_ddbd);
    assert_eq!(address_key("::ffff:192.0.2.1".parse().unwrap()), key(&[192, 0, 2, 1]));
    let loads = named(&["broker1", "broker2", "broker3"]);
    let homes: String = (0..30_u8).map(|client| choose(&loads, key(&[client])).unwrap().to_string()).collect();
    assert_eq!(homes, "202111010221100101111220110200");
}

/// With the key and the inputs of the reference vectors of SipHash (key 00 .. 0f; input 00, 01, ...); the outputs are those
/// of another implementation, written from the paper.
#[test]
fn the_hash_is_siphash_1_3() {
    let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    let input: Vec<u8> = (0..63).collect();
    let of = |length: usize| hash(key, &input[..length]).to_le_bytes();
    assert_eq!(of(0), [0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab]);
    assert_eq!(of(1), [0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9]);
    assert_eq!(of(8), [0x8e, 0x9a, 0x29, 0x8d, 0x11, 0x95, 0x90, 0x36]);
    assert_eq!(of(62), [0xe0, 0x94, 0x66, 0x4b, 0x15, 0xf6, 0xb2, 0xc3]);
}

#[test]
fn when_one_leaves_only_its_own_move_and_to_all_others() {
    let all = named(&["a", "b", "c", "d", "e"]);
    let before = homes(&all);
    for backend in &all {
        let own = count(&before, backend);
        assert!((3800..=4200).contains(&own), "{own}");
    }
    let left = homes(&all[..4]);
    let mut to = HashMap::new();
    for (before, after) in before.iter().zip(&left) {
        if *before == all[4].identity {
            *to.entry(*after).or_insert(0) += 1;
        } else {
            assert_eq!(before, after);
        }
    }
    assert!(to.len() == 4 && to.values().all(|moved| (900..=1100).contains(moved)), "{to:?}");
}

#[test]
fn when_one_comes_it_takes_its_share_and_nobody_else_moves() {
    let all = named(&["a", "b", "c", "d", "e"]);
    let before = homes(&all[..4]);
    let after = homes(&all);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(moved, count(&after, &all[4]));
    assert!((3800..=4200).contains(&moved), "{moved}");
}

#[test]
fn the_order_in_the_file_does_not_matter() {
    assert_eq!(homes(&named(&["a", "b", "c"])), homes(&named(&["c", "a", "b"])));
}

#[test]
fn a_heavier_one_has_more_and_takes_them_from_all() {
    let even = named(&["a", "b", "c"]);
    let mut uneven = even.clone();
    uneven[0].weight = 2 * UNIT;
    let (before, after) = (homes(&even), homes(&uneven));
    let own = count(&after, &uneven[0]);
    assert!((9800..=10_200).contains(&own), "{own}");
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *after == uneven[0].identity);
    }
}

#[test]
fn nobody_has_more_than_five_quarters_of_his_share() {
    let mut loads = named(&["a", "b", "c", "d"]);
    loads[3].weight = 2 * UNIT;
    // All of them from one address.
    let key = address_key("192.0.2.1".parse().unwrap());
    let mut order = Vec::new();
    for client in 1..=5000_usize {
        let index = choose(&loads, key).unwrap();
        loads[index].connections += 1;
        if !order.contains(&index) {
            order.push(index);
        }
        for (load, share) in loads.iter().zip([1, 1, 1, 2]) {
            assert!(load.connections <= (client * share * 5).div_ceil(5 * 4), "{client}: {loads:?}");
        }
    }
    let counts: Vec<_> = order.iter().map(|&index| loads[index].connections).collect();
    assert_eq!(counts.iter().sum::<usize>(), 5000);
    // Who comes last in the order gets what the others may not have.
    assert!(order.len() >= 3 && counts.windows(2).any(|pair| pair[0] != pair[1]), "{counts:?}");
}

#[test]
fn one_that_is_closed_is_passed_over() {
    let mut loads = named(&["a", "b"]);
    let first = choose(&loads, 7).unwrap();
    loads[first].open = false;
    assert_eq!(choose(&loads, 7), Some(1 - first));
    loads[1 - first].open = false;
    assert_eq!(choose(&loads, 7), None);
}
