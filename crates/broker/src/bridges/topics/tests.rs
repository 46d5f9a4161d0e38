use evermq_config::bridges::Direction;

use super::*;

fn topic(text: &str) -> TopicName {
    TopicName::new(Text::new(text).unwrap()).unwrap()
}

fn line(pattern: &str, direction: Direction, qos: u8, local_prefix: &str, remote_prefix: &str) -> BridgeTopic {
    let [pattern, local_prefix, remote_prefix] = [pattern, local_prefix, remote_prefix].map(str::to_owned);
    BridgeTopic { pattern, direction, qos, local_prefix, remote_prefix }
}

fn out(pattern: &str, local: &str, remote: &str) -> BridgeTopic {
    line(pattern, Direction::Out, 1, local, remote)
}

/// `None` where the message does not cross; an empty text where it cannot.
fn mapped(lines: &[BridgeTopic], way: Way, name: &str) -> Option<String> {
    match Topics::new(lines).map(way, &topic(name)) {
        Mapped::Topic(topic) => Some(topic.to_string()),
        Mapped::Unwanted => None,
        Mapped::Impossible => Some(String::new()),
    }
}

/// The table of mosquitto.conf(5), both ways.
#[test]
fn prefixes_are_taken_off_and_put_on() {
    for (line, local, remote) in [
        (line("p", Direction::Both, 0, "l/", "r/"), "l/p", "r/p"),
        (line("p", Direction::Both, 0, "l/", ""), "l/p", "p"),
        (line("p", Direction::Both, 0, "", "r/"), "p", "r/p"),
        (line("p", Direction::Both, 0, "", ""), "p", "p"),
        (line("", Direction::Both, 0, "l", "r"), "l", "r"),
        (line("#", Direction::Both, 0, "l/", "r/"), "l/a/b", "r/a/b"),
        (line("+/x", Direction::Both, 0, "l/m/", "r/"), "l/m/a/x", "r/a/x"),
    ] {
        let lines = [line];
        assert_eq!(mapped(&lines, Way::Out, local).as_deref(), Some(remote));
        assert_eq!(mapped(&lines, Way::In, remote).as_deref(), Some(local));
        assert_eq!(mapped(&lines, Way::Out, "elsewhere"), None);
    }
}

#[test]
fn the_first_line_with_a_prefix_decides() {
    let lines = [out("a/#", "", ""), out("#", "", "r/"), out("a/b", "", "s/")];
    assert_eq!(mapped(&lines, Way::Out, "a/b").as_deref(), Some("r/a/b"));
    assert_eq!(mapped(&lines[..1], Way::Out, "a/b").as_deref(), Some("a/b"));
    let mut other = lines.clone();
    other.reverse();
    assert_eq!(mapped(&other, Way::Out, "a/b").as_deref(), Some("s/a/b"));
    assert_eq!(mapped(&lines, Way::In, "a/b"), None, "nothing comes in");
}

#[test]
fn what_does_not_begin_with_the_prefix_keeps_its_beginning() {
    let lines = [out("#", "l/", "r/")];
    assert_eq!(mapped(&lines, Way::Out, "l").as_deref(), Some("r/l"), "# is the level above it, too");
    assert_eq!(mapped(&lines, Way::Out, "l/").as_deref(), Some("r/"));
    assert_eq!(mapped(&[out("#", "l/", "")], Way::Out, "l/").as_deref(), Some(""));
    let long = "x".repeat(65_530);
    assert_eq!(mapped(&[out("#", "", "remote/")], Way::Out, &long).as_deref(), Some(""));
}

#[test]
fn a_wildcard_leaves_the_brokers_own_topics_where_they_are() {
    assert_eq!(mapped(&[out("#", "", "r/")], Way::Out, "$SYS/broker/uptime"), None);
    let lines = [line("uptime", Direction::In, 0, "other/", "$SYS/broker/")];
    assert_eq!(mapped(&lines, Way::In, "$SYS/broker/uptime").as_deref(), Some("other/uptime"));
}

#[test]
fn each_filter_is_subscribed_to_once_with_its_highest_qos() {
    let lines = [out("a", "", ""), line("a", Direction::Both, 2, "", ""), line("b", Direction::In, 0, "l/", "r/")];
    let topics = Topics::new(&lines);
    let named = |way| -> Vec<_> {
        let filters = topics.subscriptions(way, RetainHandling::Send);
        assert!(filters.iter().all(|filter| filter.options.no_local && filter.options.retain_as_published));
        filters.iter().map(|filter| (filter.filter.to_string(), filter.options.qos)).collect()
    };
    assert_eq!(named(Way::Out), [("a".to_owned(), QoS::ExactlyOnce)]);
    assert_eq!(named(Way::In), [("a".to_owned(), QoS::ExactlyOnce), ("r/b".to_owned(), QoS::AtMostOnce)]);
    assert!(topics.may_come_back() && topics.any(Way::In));
}
