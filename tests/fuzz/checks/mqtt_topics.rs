//! Subscriptions that come and go, and topic names: the tree finds what a matcher finds that looks at each filter by itself.

use std::collections::{BTreeMap, BTreeSet};

use evermq_broker::subscriptions::Subscriptions;
use evermq_mqtt::{Text, TopicFilter, TopicName};

const SUBSCRIBERS: u8 = 40;

pub(crate) fn run(bytes: &[u8]) {
    let tree = Subscriptions::default();
    let mut plain: BTreeMap<(TopicFilter, u64), u32> = BTreeMap::new();
    for (number, step) in (0_u32..).zip(bytes.split(|byte| *byte == b'\n')) {
        let [kind, subscriber, name @ ..] = step else { continue };
        let Ok(name) = Text::from_bytes(name.to_vec().into()) else { continue };
        let key = u64::from(subscriber % SUBSCRIBERS);
        match kind % 4 {
            0 | 1 => {
                let Ok(filter) = TopicFilter::new(name) else { continue };
                // A group stands in the tree under a key of its own.
                if filter.share().is_some() {
                    continue;
                }
                tree.insert(&filter, key, number);
                plain.insert((filter, key), number);
            }
            2 => {
                let Ok(filter) = TopicFilter::new(name) else { continue };
                if filter.share().is_some() {
                    continue;
                }
                tree.remove([&filter], key);
                plain.remove(&(filter, key));
            }
            _ => {
                let Ok(topic) = TopicName::new(name) else { continue };
                compare(&tree, &plain, &topic);
            }
        }
        assert_eq!(tree.len(), plain.len());
    }
}

fn compare(tree: &Subscriptions<u32>, plain: &BTreeMap<(TopicFilter, u64), u32>, topic: &TopicName) {
    let snapshot = tree.snapshot();
    let found: Vec<(u64, u32)> =
        snapshot.matches(topic).iter().flat_map(|same| same.iter().map(|(key, value)| (key, *value))).collect();
    let as_set: BTreeSet<_> = found.iter().copied().collect();
    assert_eq!(as_set.len(), found.len(), "found twice");
    let mut expected = BTreeSet::new();
    for ((filter, key), value) in plain {
        let levels: Vec<&str> = filter.levels().collect();
        let is_match = matches(&levels, &topic.as_str().split('/').collect::<Vec<_>>(), true);
        assert_eq!(is_match, filter.matches(topic), "{filter} {topic}");
        if is_match {
            expected.insert((*key, *value));
        }
    }
    assert_eq!(as_set, expected, "{topic}");
}

/// MQTT 5.0 §4.7, word by word.
fn matches(filter: &[&str], name: &[&str], is_first: bool) -> bool {
    let hidden = is_first && name.first().is_some_and(|level| level.starts_with('$'));
    match (filter, name) {
        ([], []) => true,
        (["#"], _) => !hidden,
        (["+", filter @ ..], [_, name @ ..]) => !hidden && matches(filter, name, false),
        ([level, filter @ ..], [other, name @ ..]) => level == other && matches(filter, name, false),
        _ => false,
    }
}
