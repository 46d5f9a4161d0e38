use evermq_mqtt::{Text, TopicFilter, TopicName};
use proptest::prelude::*;

use super::*;

fn filters(list: &[(&str, Grant)]) -> Filters {
    let mut filters = Filters::default();
    for (filter, grant) in list {
        check(filter).unwrap();
        filters.add(filter, *grant);
    }
    filters.shrink();
    filters
}

#[test]
fn a_topic_has_the_grants_of_every_filter_that_matches() {
    let all = filters(&[
        ("a/b", Grant::PUBLISH),
        ("a/+", Grant::RECEIVE),
        ("a/b/#", Grant::DENY),
        ("+/x/+", Grant::PUBLISH),
        ("$SYS/#", Grant::RECEIVE),
        ("/", Grant::PUBLISH),
    ]);
    for (topic, expected) in [
        ("a/b", Grant::PUBLISH | Grant::RECEIVE | Grant::DENY),
        ("a/c", Grant::RECEIVE),
        ("a", Grant::NONE),
        ("a/b/c", Grant::DENY),
        ("q/x/", Grant::PUBLISH),
        ("q/x", Grant::NONE),
        ("$SYS/x/y", Grant::RECEIVE),
        ("$SYS", Grant::RECEIVE),
        ("$OTHER/x/y", Grant::NONE),
        ("/", Grant::PUBLISH),
        ("", Grant::NONE),
    ] {
        assert_eq!(all.of_topic(topic), expected, "{topic}");
    }
    let everything = filters(&[("#", Grant::PUBLISH)]);
    assert_eq!(everything.of_topic("$SYS/x"), Grant::NONE);
    assert_eq!(everything.of_topic("/"), Grant::PUBLISH);
    assert!(Filters::default().is_empty() && !everything.is_empty());
}

#[test]
fn a_filter_may_meet_a_grant_or_lie_within_it() {
    let (meets, within, neither) = ((true, false), (true, true), (false, false));
    for (granted, asked, expected) in [
        ("a/b", "a/b", within),
        ("a/b", "a/+", meets),
        ("a/b", "#", meets),
        ("a/b", "a/b/#", meets),
        ("a/+", "a/b", within),
        ("a/+", "a/+", within),
        ("a/+", "+/b", meets),
        ("a/+", "a/#", meets),
        ("a/+", "a/b/c", neither),
        ("a/#", "a", within),
        ("a/#", "a/#", within),
        ("a/#", "a/+/c", within),
        ("a/#", "#", meets),
        ("a/#", "b/#", neither),
        ("#", "#", within),
        ("#", "+/a", within),
        ("#", "$SYS/#", neither),
        ("#", "$SYS/x", neither),
        ("+/x", "$SYS/x", neither),
        ("+/x", "$SYS/#", neither),
        ("$SYS/#", "#", neither),
        ("$SYS/x", "+/x", neither),
        ("$SYS/#", "$SYS/+/y", within),
        ("+/+", "#", meets),
        ("+/+", "+/#", meets),
        ("+/#", "#", meets),
    ] {
        let all = filters(&[(granted, Grant::RECEIVE)]);
        let got = (all.of_some(asked).has(Grant::RECEIVE), all.of_every(asked).has(Grant::RECEIVE));
        assert_eq!(got, expected, "{granted} granted, {asked} asked");
    }
}

#[test]
fn what_is_no_filter_is_said() {
    for (text, error) in [
        ("", FilterError::Empty),
        ("a/#/b", FilterError::Wildcard),
        ("a+/b", FilterError::Wildcard),
        ("a/b#", FilterError::Wildcard),
        ("a\0", FilterError::NoTopic),
    ] {
        assert_eq!(check(text), Err(error), "{text}");
        assert!(!error.text().0.is_empty());
    }
    assert_eq!(check(&"a/".repeat(MAX_LEVELS)), Err(FilterError::TooDeep));
    assert_eq!(check(&"x".repeat(65_536)), Err(FilterError::NoTopic));
    for good in ["#", "+", "/", "//", "a/+/#", "$SYS/#", "a b/c"] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$S", "c"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")).prop_filter("empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$S", "+", "+"]);
    (prop::collection::vec(level, 1..5), any::<bool>())
        .prop_map(|(levels, deep)| levels.join("/") + if deep { "/#" } else { "" })
        .prop_map(|filter| filter.strip_prefix("+/#").map_or(filter.clone(), |_| "#".to_owned()))
        .prop_filter("empty", |filter| !filter.is_empty())
}

fn matches(filter: &str, topic: &str) -> bool {
    let filter = TopicFilter::new(Text::new(filter).unwrap()).unwrap();
    filter.matches(&TopicName::new(Text::new(topic).unwrap()).unwrap())
}

/// Every topic of up to four levels that the tests' letters can make, and the empty one, which `/#` matches.
fn all_topics() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last = vec![Vec::new()];
    for _ in 0..4 {
        last = last
            .iter()
            .flat_map(|levels: &Vec<&str>| {
                ["a", "b", "", "$S", "c"].map(|level| levels.iter().copied().chain([level]).collect())
            })
            .collect();
        all.extend(last.iter().map(|levels| levels.join("/")));
    }
    all
}

proptest! {
    #[test]
    fn topics_are_matched_as_the_standard_says(list in prop::collection::vec(filter(), 0..8), topic in topic()) {
        let grants = [Grant::PUBLISH, Grant::RECEIVE, Grant::DENY];
        let named: Vec<_> = list.iter().map(String::as_str).zip(grants.into_iter().cycle()).collect();
        let expected = named
            .iter()
            .filter(|(filter, _)| matches(filter, &topic))
            .fold(Grant::NONE, |all, (_, grant)| all | *grant);
        prop_assert_eq!(filters(&named).of_topic(&topic), expected);
    }

    #[test]
    fn filters_meet_and_contain_what_their_topics_say(granted in filter(), asked in filter()) {
        let all = filters(&[(&granted, Grant::RECEIVE)]);
        let asked_topics: Vec<_> = all_topics().into_iter().filter(|topic| matches(&asked, topic)).collect();
        let both = asked_topics.iter().filter(|topic| matches(&granted, topic)).count();
        // Five levels and more are beyond the topics here, so only what the short ones show is compared.
        if both > 0 {
            prop_assert!(all.of_some(&asked).has(Grant::RECEIVE));
        }
        if both < asked_topics.len() {
            prop_assert!(!all.of_every(&asked).has(Grant::RECEIVE));
        }
        if all.of_every(&asked).has(Grant::RECEIVE) {
            prop_assert!(all.of_some(&asked).has(Grant::RECEIVE));
        }
        let shallow = [&granted, &asked].iter().all(|filter| filter.split('/').count() < 4);
        if shallow && both == 0 {
            prop_assert!(!all.of_some(&asked).has(Grant::RECEIVE));
        }
    }

    #[test]
    fn nothing_panics(filter in ".*", topic in ".*") {
        let mut all = Filters::default();
        all.add(&filter, Grant::DENY);
        let _ = all.of_topic(&topic);
        let _ = all.of_some(&topic);
        let _ = all.of_every(&topic);
    }
}
