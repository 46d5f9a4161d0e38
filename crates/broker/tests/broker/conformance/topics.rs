//! Topic names and filters (§4.7).

use super::{Raw, publish5, subscribe4, subscribe5};
use crate::running::start;

#[test]
fn wildcards_stand_where_they_may() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c");
    let good = ["#", "+", "+/+", "/+", "+/", "a/#", "a/+/b", "/#", "//", "/"];
    for filter in good {
        client.send(&subscribe5(&[], &[(filter, 0)]));
        client.expect(&[0x90, 4, 0, 1, 0, 0]);
    }
    for filter in ["a#", "#/a", "a/#/b", "##", "a+", "+a", "a/+b", "++", "a/b+/c", ""] {
        Raw::refused(&broker, &subscribe5(&[], &[(filter, 0)]), 0x81);
        Raw::refused4(&broker, &subscribe4(&[(filter, 0)]));
    }
}

#[test]
fn what_matches() {
    let (_site, broker) = start();
    let table: &[(&str, &[&str], &[&str])] = &[
        ("sport/tennis/#", &["sport/tennis", "sport/tennis/", "sport/tennis/1/2"], &["sport", "sport/tennisx"]),
        ("sport/+", &["sport/", "sport/x"], &["sport", "sport/x/y"]),
        ("+/+", &["/x", "a/b", "/"], &["a", "a/b/c"]),
        ("/+", &["/x"], &["x", "a/x"]),
        ("+", &["x"], &["/x", "x/"]),
        // Letters, slashes and characters are what they are.
        ("Acc", &["Acc"], &["acc", "ACC", "Acc/"]),
        ("e\u{301}", &["e\u{301}"], &["\u{E9}"]),
        ("a//b", &["a//b"], &["a/b", "a/x/b"]),
        ("$own/+", &["$own/x"], &["own/x"]),
    ];
    let mut publisher = Raw::v5(&broker, "p");
    for (filter, matching, others) in table {
        let mut client = Raw::v5(&broker, "c").subscribed(filter, 0);
        for topic in others.iter().chain(*matching) {
            publisher.send(&publish5(0, topic, 0, &[], "x"));
        }
        for topic in *matching {
            client.expect(&publish5(0, topic, 0, &[], "x"));
        }
        client.expect_nothing();
    }
}

#[test]
fn wildcards_first_do_not_match_a_dollar() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c");
    client.send(&subscribe5(&[], &[("#", 0), ("+/x", 0), ("+/#", 0), ("$own/#", 0)]));
    client.expect(&[0x90, 7, 0, 1, 0, 0, 0, 0, 0]);
    let mut late = Raw::v5(&broker, "late");
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(1, "$other/x", 0, &[], "hidden"));
    publisher.send(&publish5(1, "$own/x", 0, &[], "seen"));
    client.expect(&publish5(0, "$own/x", 0, &[], "seen"));
    client.expect_nothing();
    publisher.expect_nothing();
    late.send(&subscribe5(&[], &[("#", 0), ("+/x", 0)]));
    late.expect(&[0x90, 5, 0, 1, 0, 0, 0]);
    late.expect_nothing();
}

#[test]
fn the_longest_topic() {
    let (_site, broker) = start();
    let topic = "x".repeat(65_535);
    let mut client = Raw::v5(&broker, "c").subscribed(&topic, 0);
    Raw::v5(&broker, "p").send(&publish5(0, &topic, 0, &[], "y"));
    client.expect(&publish5(0, &topic, 0, &[], "y"));
}
