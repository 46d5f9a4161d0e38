use std::collections::{BTreeMap, BTreeSet};

use evermq_mqtt::Text;
use proptest::prelude::*;

use super::*;

fn filter(filter: &str) -> TopicFilter {
    TopicFilter::new(Text::new(filter).unwrap()).unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::new(Text::new(name).unwrap()).unwrap()
}

/// Key and value of every match, ascending.
fn matches(subscriptions: &Subscriptions<u32>, name: &str) -> Vec<(u64, u32)> {
    let snapshot = subscriptions.snapshot();
    let mut found: Vec<_> = snapshot
        .matches(&topic(name))
        .iter()
        .flat_map(|subscribers| subscribers.iter().map(|(key, value)| (key, *value)))
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn examples_of_the_standard() {
    let subscriptions = Subscriptions::default();
    let filters = [
        "sport/tennis/player1/#",
        "sport/#",
        "#",
        "sport/tennis/+",
        "sport/+",
        "+/+",
        "/+",
        "+",
        "$SYS/#",
        "+/monitor/Clients",
    ];
    for (value, name) in (0..).zip(filters) {
        subscriptions.insert(&filter(name), 1, value);
    }
    let names = |topic: &str| {
        matches(&subscriptions, topic).iter().map(|(_, value)| filters[*value as usize]).collect::<Vec<_>>()
    };
    assert_eq!(names("sport/tennis/player1"), ["sport/tennis/player1/#", "sport/#", "#", "sport/tennis/+"]);
    assert_eq!(names("sport/tennis/player1/score/wimbledon"), ["sport/tennis/player1/#", "sport/#", "#"]);
    assert_eq!(names("sport"), ["sport/#", "#", "+"]);
    assert_eq!(names("sport/"), ["sport/#", "#", "sport/+", "+/+"]);
    assert_eq!(names("/finance"), ["#", "+/+", "/+"]);
    assert_eq!(names("$SYS/monitor/Clients"), ["$SYS/#"]);
    assert_eq!(names("$SYS"), ["$SYS/#"]);
}

#[test]
fn a_subscriber_has_one_entry_for_a_filter() {
    let subscriptions = Subscriptions::default();
    subscriptions.insert(&filter("a"), 1, 10);
    subscriptions.insert(&filter("a"), 1, 11);
    assert_eq!(matches(&subscriptions, "a"), [(1, 11)]);
    assert_eq!(subscriptions.len(), 1);
    subscriptions.remove(&[filter("a"), filter("a"), filter("b")], 1);
    assert!(subscriptions.is_empty());
    assert!(subscriptions.root.load().is_empty(), "no node is left behind");
}

#[test]
fn many_filters_are_entered_at_once() {
    let subscriptions = Subscriptions::default();
    subscriptions.insert(&filter("a/b"), 1, 10);
    let snapshot = subscriptions.snapshot();
    let filters: Vec<_> = ["a/b", "a/+", "a/b/#", "a/c", "a/b"].map(filter).into();
    subscriptions.insert_all(filters.iter().zip(20..), 1);
    assert_eq!(subscriptions.len(), 4, "one was there, and it came twice");
    let mut found = matches(&subscriptions, "a/b");
    found.sort_unstable();
    assert_eq!(found, [(1, 21), (1, 22), (1, 24)], "the last one counts");
    assert_eq!(snapshot.matches(&topic("a/b")).iter().flat_map(Subscribers::iter).count(), 1);
    subscriptions.remove(&filters, 1);
    assert!(subscriptions.is_empty());
}

#[test]
fn a_snapshot_does_not_change() {
    let subscriptions = Subscriptions::default();
    subscriptions.insert(&filter("a"), 1, 10);
    let snapshot = subscriptions.snapshot();
    subscriptions.insert(&filter("a"), 2, 20);
    subscriptions.remove(&[filter("a")], 1);
    assert_eq!(snapshot.matches(&topic("a")).iter().flat_map(Subscribers::iter).count(), 1);
    assert_eq!(matches(&subscriptions, "a"), [(2, 20)]);
}

#[test]
fn many_subscribers_and_many_children_come_and_go() {
    let subscriptions = Subscriptions::default();
    for key in 0..200 {
        subscriptions.insert(&filter("same"), key, 1);
        subscriptions.insert(&filter(&format!("own/{key}")), key, 2);
    }
    assert_eq!(matches(&subscriptions, "same").len(), 200);
    assert_eq!(matches(&subscriptions, "own/77"), [(77, 2)]);
    for key in 0..200 {
        subscriptions.remove(&[filter("same"), filter(&format!("own/{key}"))], key);
        assert_eq!(matches(&subscriptions, "same").len(), 199 - usize::try_from(key).unwrap());
    }
    assert!(subscriptions.root.load().is_empty());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "", "a", "b", "c", "$x", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
    ])
}

fn any_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map("empty", |(mut levels, hash)| {
        if hash {
            levels.push("#");
        }
        Some(levels.join("/")).filter(|filter| !filter.is_empty())
    })
}

#[derive(Debug, Clone)]
enum Change {
    Insert(String, u64, u32),
    Remove(String, u64),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_finds_what_each_filter_matches(
        changes in prop::collection::vec(
            prop_oneof![
                3 => (any_filter(), 0..40_u64, any::<u32>()).prop_map(|(filter, key, value)| Change::Insert(filter, key, value)),
                1 => (any_filter(), 0..40_u64).prop_map(|(filter, key)| Change::Remove(filter, key)),
            ],
            0..150,
        ),
        names in prop::collection::vec(prop::collection::vec(level(), 1..4), 1..20),
    ) {
        let subscriptions = Subscriptions::default();
        let mut model = BTreeMap::new();
        for change in changes {
            match change {
                Change::Insert(name, key, value) => {
                    subscriptions.insert(&filter(&name), key, value);
                    model.insert((name, key), value);
                }
                Change::Remove(name, key) => {
                    subscriptions.remove(&[filter(&name)], key);
                    model.remove(&(name, key));
                }
            }
        }
        prop_assert_eq!(subscriptions.len(), model.len());
        for name in names.iter().map(|levels| levels.join("/")).collect::<BTreeSet<_>>() {
            let mut expected: Vec<_> = model
                .iter()
                .filter(|((pattern, _), _)| filter(pattern).matches(&topic(&name)))
                .map(|((_, key), value)| (*key, *value))
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(matches(&subscriptions, &name), expected, "{}", name);
        }
        let all: Vec<_> = model.keys().cloned().collect();
        for (name, key) in all {
            subscriptions.remove(&[filter(&name)], key);
        }
        prop_assert!(subscriptions.root.load().is_empty());
    }
}
