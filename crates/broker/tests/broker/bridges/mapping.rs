//! The same lines and the same messages: mosquitto's bridge, and ours.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use evermq_broker::bridges::topics::{Mapped, Topics, Way};
use evermq_config::bridges::BridgeTopic;
use evermq_mqtt::{QoS, TopicName};

use super::mosquitto::Mosquitto;
use super::{line, listener, next, publish, read};
use crate::client::text;
use crate::running::Site;

/// Each with its lines, and messages on either side. No two have to do with the same topics.
const CASES: &[(&[&str], &[&str])] = &[
    (&["c0/# both 1"], &["c0", "c0/a/b"]),
    (&["p both 1 c1/l/ c1/r/"], &["c1/l/p", "c1/r/p", "c1/l/q", "c1/r/q"]),
    (&["c2/p both 1 l2/"], &["l2/c2/p", "c2/p"]),
    (&["c3/p both 1 \"\" r3/"], &["c3/p", "r3/c3/p"]),
    (&["\"\" both 1 c4/local c4/remote"], &["c4/local", "c4/remote", "c4/local/x", "c4/remote/x"]),
    (&["# both 1 c5/l/ c5/r/"], &["c5/l", "c5/l/", "c5/l/a", "c5/r", "c5/r/", "c5/r//a"]),
    (&["+/x/# both 1 c6/l/m/ c6/r/"], &["c6/l/m/a/x", "c6/l/m/a/x/y", "c6/r/b/x/z", "c6/r/x"]),
    // The first line with a prefix decides, whatever stands before it.
    (&["c7/a/# both 1", "c7/# both 1 \"\" r7/", "c7/a/b both 1 \"\" s7/"], &["c7/a/b", "c7/c", "r7/c7/a", "s7/c7/a/b"]),
    (&["c8/a both 1 \"\" r8/", "c8/# both 1"], &["c8/a", "c8/b", "r8/c8/a"]),
    // One way each.
    (&["c9/a out 1 \"\" r9/", "c9/a in 1 l9/ \"\""], &["c9/a", "r9/c9/a", "l9/c9/a"]),
];

fn topics(case: &[&str]) -> Vec<BridgeTopic> {
    let lines: Vec<_> = case.iter().map(|line| format!("'{line}'")).collect();
    let entry = format!("[[bridges]]\nname = \"b\"\naddresses = [\"m\"]\ntopics = [{}]", lines.join(", "));
    read(&entry).remove(0).bridge.topics
}

/// Case and topic of what arrives, as our bridge would have it.
fn ours(way: Way) -> BTreeSet<(String, String)> {
    let mut arriving = BTreeSet::new();
    for (number, (lines, names)) in CASES.iter().enumerate() {
        let topics = Topics::new(&topics(lines));
        for name in *names {
            if let Mapped::Topic(mapped) = topics.map(way, &TopicName::new(text(name)).unwrap()) {
                arriving.insert((format!("{number} {name}"), mapped.to_string()));
            }
        }
    }
    arriving
}

#[test]
fn mosquitto_maps_topics_as_this_broker_does() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    let mut conf = String::new();
    for (number, (lines, _)) in CASES.iter().enumerate() {
        writeln!(conf, "connection case{number}\naddress {}\nrestart_timeout 1\nnotifications false", remote.address)
            .unwrap();
        for topic in topics(lines) {
            writeln!(conf, "topic {}", line(&topic)).unwrap();
        }
    }
    let local = Mosquitto::start(site.directory.path(), "local", &conf);
    // What comes in is asked for when each bridge is connected; what goes out waits for it.
    let incoming = CASES.iter().flat_map(|(lines, _)| topics(lines)).filter(|topic| topic.direction.is_in()).count();
    local.wait_for_log("Received SUBACK", incoming);
    let sides = [&local, &remote].map(|side| side.address);
    for (way, [from, to]) in [(Way::Out, sides), (Way::In, [sides[1], sides[0]])] {
        let mut there = listener(to, "there", "#");
        let mut here = listener(from, "here", "unused");
        let ours = ours(way);
        for (number, (_, names)) in CASES.iter().enumerate() {
            for name in *names {
                publish(&mut here, name, &format!("{number} {name}"), QoS::AtLeastOnce, false);
            }
            // One that crosses, after all of this case's.
            let last = names.iter().find(|name| ours.iter().any(|(known, _)| *known == format!("{number} {name}")));
            publish(&mut here, last.unwrap(), "end", QoS::AtLeastOnce, false);
        }
        let (mut mosquittos, mut ended) = (BTreeSet::new(), 0);
        while ended < CASES.len() {
            let (topic, payload, ..) = next(&mut there);
            if payload == "end" {
                ended += 1;
            } else {
                mosquittos.insert((payload, topic));
            }
        }
        assert_eq!(mosquittos, ours, "{way:?}");
    }
}
