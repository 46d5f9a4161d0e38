use std::path::Path;
use std::time::Duration;

mod admin;
mod bridges;
mod broker;
mod lb;
mod marked;

use proptest::prelude::*;

use super::*;

const SHIPPED: &str = include_str!("../../../config/evermq.toml");

const MINIMAL: &str =
    concat!("\n[cluster]\nname = \"c\"\n[vip]\naddress = \"192.168.10.10\"\n", include_str!("tests/hosts.toml"),);

fn path() -> &'static Path {
    Path::new("/etc/evermq/evermq.toml")
}

fn good(text: &str) -> Loaded {
    parse(path(), text).unwrap_or_else(|report| panic!("{report}"))
}

fn bad(text: &str) -> Report {
    parse(path(), text).expect_err("the file is wrong")
}

/// The minimal file with one line replaced or added.
fn with(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from}");
    MINIMAL.replacen(from, to, 1)
}

/// (line, column, offending text) of every problem.
fn places(report: &Report) -> Vec<(usize, usize, &str)> {
    let place = |problem: &'_ Problem| problem.place.as_ref().map_or((0, 0), |place| (place.line, place.column));
    report.problems.iter().map(|problem| (place(problem).0, place(problem).1, problem.text.as_str())).collect()
}

#[test]
fn shipped_file_names_every_key_with_its_default() {
    let shipped = good(SHIPPED);
    assert!(shipped.warnings.problems.is_empty(), "{}", shipped.warnings);
    for key in &shipped.defaulted {
        // Keys without a default value stand there commented out.
        let name = key.rsplit('.').next().unwrap();
        let commented = SHIPPED.lines().any(|line| {
            line.strip_prefix('#').is_some_and(|rest| rest.trim_start().starts_with(&format!("{name} = ")))
        });
        assert!(commented, "{key} is not in the shipped file");
    }
    let minimal = good(MINIMAL);
    let debug = |section: &dyn std::fmt::Debug| format!("{section:?}");
    assert_eq!(shipped.cluster.vip, minimal.cluster.vip);
    assert_eq!(shipped.cluster.virtual_routers, minimal.cluster.virtual_routers);
    assert_eq!((&shipped.cluster.tracks, &shipped.cluster.quorum), (&minimal.cluster.tracks, &minimal.cluster.quorum));
    assert_eq!(debug(&shipped.cluster.lb), debug(&minimal.cluster.lb));
    assert_eq!(debug(&shipped.cluster.broker), debug(&minimal.cluster.broker));
    assert_eq!(shipped.cluster.admin, minimal.cluster.admin);
    assert_eq!(debug(&shipped.cluster.log), debug(&minimal.cluster.log));
    assert_eq!(debug(&shipped.cluster.hosts), debug(&minimal.cluster.hosts));
    assert_eq!(shipped.cluster.tls.ca, minimal.cluster.tls.ca);
    assert_eq!(shipped.cluster.tls.cert, minimal.cluster.tls.cert);
    assert_eq!(shipped.cluster.tls.key, minimal.cluster.tls.key);
    assert_eq!(shipped.cluster.run_dir, minimal.cluster.run_dir);
}

#[test]
fn each_program_gets_its_part() {
    let cluster = good(MINIMAL).cluster;
    let vip = cluster.vip_for("lb2").unwrap();
    assert_eq!(vip.instances[0].priority, 190);
    assert_eq!(vip.instances[0].peers, [std::net::Ipv4Addr::new(192, 168, 10, 11)]);
    assert_eq!(vip.quorum, None);
    assert_eq!(vip.vip.advert_interval, Duration::from_millis(20));
    let lb = cluster.lb_for("lb1").unwrap();
    assert_eq!(lb.tls.cert, Path::new("/etc/evermq/tls/lb1.crt"));
    assert_eq!(
        lb.backends.iter().map(|b| b.address.unwrap().to_string()).collect::<Vec<_>>(),
        ["192.168.10.21:8883", "192.168.10.22:8883"]
    );
    let broker = cluster.broker_for("broker1").unwrap();
    assert_eq!(broker.peer_listen.to_string(), "192.168.10.21:8884");
    assert_eq!(broker.peers.len(), 1);
    assert!(matches!(cluster.broker_for("lb1"), Err(RoleError::WithoutRole { .. })));
    let unknown = cluster.lb_for("lb9").unwrap_err().to_string();
    assert!(unknown.contains("lb1, lb2, broker1, broker2"), "{unknown}");
}

#[test]
fn all_problems_are_shown_at_once_with_their_places() {
    let text = r#"[cluster]
name = "plant_7"
colour = "red"
[vip]
address = "192.168.10.300"
advert_intervall = "20ms"
[lb]
balance = "least"
max_connections = "many"
[broker]
max_packet_size = 1024
[hosts]
name = "x"
[strange]
"#;
    let report = bad(text);
    assert_eq!(
        places(&report),
        [
            (2, 8, "\"plant_7\""),
            (3, 1, "colour"),
            (5, 11, "\"192.168.10.300\""),
            (6, 1, "advert_intervall"),
            (8, 11, "\"least\""),
            (9, 19, "\"many\""),
            (11, 19, "1024"),
            (12, 1, "[hosts]"),
            (14, 2, "strange"),
        ],
        "{report}"
    );
    let shown = report.to_string();
    for expected in [
        "/etc/evermq/evermq.toml:6:1: error: [vip] has no key \"advert_intervall\"",
        "did you mean \"advert_interval\"?",
        "\"least_conn\" or \"round_robin\"",
        "such as \"1MiB\"",
        "write [[hosts]], with two brackets",
    ] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
}

#[test]
fn one_wrong_line_is_one_problem() {
    for (from, to, text, words) in [
        ("address = \"192.168.10.10\"", "address = \"10.0.0.1\"", "\"10.0.0.1\"", "outside the lb hosts' network"),
        ("address = \"192.168.10.10\"", "address = \"192.168.10.255\"", "\"192.168.10.255\"", "outside"),
        ("address = \"192.168.10.10\"", "address = \"192.168.10.21\"", "\"192.168.10.21\"", "is the address of host"),
        ("name = \"lb2\"", "name = \"12\"", "\"12\"", "no value"),
        ("name = \"lb2\"", "name = \"LB1\"", "\"LB1\"", "two hosts"),
        ("address = \"192.168.10.12\"", "address = \"192.168.10.11\"", "\"192.168.10.11\"", "too"),
        ("address = \"192.168.10.12\"", "address = \"192.168.12.12\"", "\"192.168.12.12\"", "could not hold the VIP"),
        ("roles = [\"broker\"]", "roles = [\"brok\"]", "\"brok\"", "no such role"),
        ("roles = [\"broker\"]", "roles = []", "[]", "list of one or two"),
        ("roles = [\"broker\"]", "roles = [\"broker\"]\nvip_priority = 7", "7", "does nothing"),
        ("roles = [\"lb\"]", "roles = [\"lb\"]\nvip_priority = 256", "256", "no value"),
        ("[vip]", "[vip]\nversion = 2", "2", "whole seconds"),
        ("[vip]", "[vip]\nauth_pass = \"secret\"", "\"secret\"", "does nothing with version 3"),
        ("[vip]", "[vip]\nmore_addresses = [\"2001:db8::1\"]", "[\"2001:db8::1\"]", "another family"),
        ("[vip]", "[vip]\nmore_addresses = [\"192.168.10.12\"]", "\"192.168.10.10\"", "is the address of host"),
        ("[vip]", "[vip]\nnotify = \"tell\"", "\"tell\"", "no value"),
        ("[vip]", "[vip]\nprefix_length = 64", "64", "no value"),
        ("[vip]", "[lb]\npeer_port = 9000\n[vip]", "9000", "same port"),
        ("[vip]", "[lb]\nlisten = \"10.0.0.1:9000\"\n[vip]", "\"192.168.10.10\"", "does not listen on this address"),
        ("[vip]", "[vip]\nadvert_interval = \"25ms\"", "\"25ms\"", "centiseconds"),
        ("[vip]", "[vip]\nvrid = 0", "0", "no value"),
        ("[vip]", "[lb]\nhealth_timeout = \"250ms\"\n[vip]", "\"250ms\"", "not longer than health_interval"),
        ("[vip]", "[broker]\npeer_port = 8883\n[vip]", "8883", "same port"),
        ("[vip]", "[cluster.x]\n[vip]", "x", "no key"),
        ("[vip]", "[vip", "", "not TOML"),
    ] {
        let report = bad(&with(from, to));
        assert_eq!(report.problems.len(), 1, "{to}: {report}");
        let problem = &report.problems[0];
        assert!(problem.message.contains(words), "{to}: {problem}");
        assert!(problem.place.is_some() && !problem.help.is_empty(), "{problem}");
        if !text.is_empty() {
            assert_eq!(problem.text, text, "{problem}");
        }
    }
}

/// The minimal file with more lines at its end.
fn and(lines: &str) -> String {
    format!("{MINIMAL}\n{lines}")
}

#[test]
fn further_virtual_routers_and_what_is_tracked() {
    let text = and(r#"
        [[vip.instances]]
        name = "six"
        address = "2001:db8::10"
        priorities = { lb2 = 210 }
        sync_group = "both"
        [[vip.track]]
        name = "uplink"
        script = ["/bin/true", "x"]
        weight = -20
        [[vip.track]]
        name = "maintenance"
        file = "maintenance"
    "#)
    .replacen(
        "[vip]",
        "[lb]\nlisten = \"[::]:9000\"\n[vip]\nadverts = \"multicast\"\nsync_group = \"both\"\nquorum = true",
        1,
    );
    let cluster = good(&text).cluster;
    let lb1 = cluster.vip_for("lb1").unwrap();
    let [four, six] = &lb1.instances[..] else { panic!("{:?}", lb1.instances) };
    assert_eq!((four.name.as_str(), four.priority, four.prefix_length), ("vip", 200, 32));
    assert_eq!((six.name.as_str(), six.priority, six.prefix_length), ("six", 200, 128));
    assert_eq!((six.source, six.peers.len()), (None, 0), "no address6: link-local, and nobody by unicast");
    assert_eq!(cluster.vip_for("lb2").unwrap().instances[1].priority, 210);
    assert_eq!(four.sync_group, six.sync_group);
    assert_eq!(lb1.tracks.len(), 2);
    assert_eq!(lb1.tracks[1].what, vip::TrackWhat::File { path: "/etc/evermq/maintenance".into() });
    let quorum = cluster.broker_for("broker1").unwrap().quorum.unwrap();
    assert_eq!(quorum.voters.len(), 4);
    assert_eq!(quorum.voters[0].address.to_string(), "192.168.10.11:9002");
    assert_eq!(lb1.quorum.unwrap().key_file, Path::new("/etc/evermq/heartbeat.key"));
}

#[test]
fn what_is_wrong_in_a_list_is_one_problem_too() {
    let six = "[[vip.instances]]\nname = \"six\"\naddress = \"2001:db8::10\"\n";
    let track = "[[vip.track]]\nname = \"a\"\n";
    for (lines, words) in [
        (six.replace("six", "vip").replace("2001:db8::10", "192.168.10.13") + "vrid = 7", "two virtual routers"),
        (six.replace("2001:db8::10", "192.168.10.13"), "has vrid 51 on this interface too"),
        (six.replace("2001:db8::10", "192.168.10.10") + "vrid = 7", "is an address of virtual router \"vip\" too"),
        (six.replace("2001:db8::10", "192.168.10.13") + "vrid = 7\npriorities = { lb9 = 7 }", "no lb host \"lb9\""),
        (six.replace("2001:db8::10", "192.168.10.13") + "vrid = 7\npriorities = { lb1 = 1 }", "no priority"),
        (six.replace("2001:db8::10", "192.168.10.13") + "vrid = 7\ncolour = 1", "has no key \"colour\""),
        ("[vip.instances]\nname = \"six\"".to_owned(), "must be a list of tables"),
        (track.to_owned(), "needs one of script, file, interface and pid_file, and has 0"),
        (track.to_owned() + "file = \"a\"\npid_file = \"b\"", "and has 2"),
        (track.to_owned() + "file = \"a\"\nrise = 1", "does nothing without script"),
        (track.to_owned() + "script = []", "no value"),
        (track.to_owned() + "script = [\"x\"]\nweight = 300", "no value"),
        (format!("{track}file = \"a\"\n{track}file = \"b\""), "two tracked things"),
    ] {
        let report = bad(&and(&lines));
        assert_eq!(report.problems.len(), 1, "{lines}: {report}");
        let problem = &report.problems[0];
        assert!(problem.message.contains(words), "{lines}: {problem}");
        assert!(problem.place.is_some() && !problem.help.is_empty(), "{problem}");
    }
}

#[test]
fn an_instance_of_ipv6_needs_a_listener_and_a_way_to_its_peers() {
    let six = "[[vip.instances]]\nname = \"six\"\naddress = \"2001:db8::10\"\n";
    let text = bad(&and(six)).to_string();
    assert!(text.contains("no address6") && text.contains("does not listen on this address"), "{text}");
}

#[test]
fn ipv6_is_spoken_from_address6_by_unicast_and_from_the_link_local_address_by_multicast() {
    let six = "[lb]\nlisten = \"[::]:9000\"\n[[vip.instances]]\nname = \"six\"\naddress = \"2001:db8::10\"\n";
    for (adverts, source) in [("unicast", Some("2001:db8::11")), ("multicast", None)] {
        let mut text = and(six).replacen("[vip]", &format!("[vip]\nadverts = \"{adverts}\""), 1);
        for number in [11, 12] {
            let own = format!("address = \"192.168.10.{number}\"");
            text = text.replace(&own, &format!("{own}\naddress6 = \"2001:db8::{number}\""));
        }
        let lb1 = good(&text).cluster.vip_for("lb1").unwrap();
        assert_eq!(lb1.instances[1].source, source.map(|source| source.parse().unwrap()), "{adverts}");
        assert_eq!(lb1.instances[0].source, "192.168.10.11".parse().ok());
    }
}

#[test]
fn without_a_held_address_there_are_no_instances() {
    let cluster = good(&with("address = \"192.168.10.10\"", "mode = \"none\"")).cluster;
    assert!(cluster.vip_for("lb1").unwrap().instances.is_empty());
}

#[test]
fn a_quorum_of_two_hosts_is_warned_of() {
    let two =
        MINIMAL.split("[[hosts]]\nname = \"lb2\"").next().unwrap().replacen("[\"lb\"]", "[\"lb\", \"broker\"]", 1)
            + "[[hosts]]\nname = \"lb2\"\naddress = \"192.168.10.12\"\nroles = [\"lb\", \"broker\"]";
    let two = two.replacen("[vip]", "[vip]\nquorum = true", 1);
    assert!(good(&two).warnings.to_string().contains("the majority of 2 hosts is all of them"));
    let gateway = two.replacen("quorum = true", "quorum = true\nquorum_gateway = \"192.168.10.1\"", 1);
    assert!(good(&gateway).warnings.problems.is_empty());
}

#[test]
fn roles_must_be_enough() {
    let no_broker = bad(&MINIMAL.replace("\"broker\"", "\"lb\""));
    assert!(no_broker.to_string().contains("no host has the role \"broker\""), "{no_broker}");
    let one_lb = good(&with("roles = [\"lb\"]", "roles = [\"broker\"]")).warnings;
    assert_eq!(one_lb.counts(), (0, 1), "{one_lb}");
    assert!(one_lb.to_string().contains("only one host has the role \"lb\""), "{one_lb}");
    let empty = bad("");
    let text = empty.to_string();
    assert!(text.contains("needs \"name\"") && text.contains("no [[hosts]]"), "{text}");
}

#[test]
fn a_missing_file_says_what_to_do() {
    let report = load(Path::new("/nowhere/evermq.toml")).unwrap_err();
    let text = report.to_string();
    assert!(text.contains("/nowhere/evermq.toml") && text.contains("--config"), "{text}");
}

proptest! {
    #[test]
    fn any_text_gives_an_answer(text in "\\PC*") {
        let _ = parse(path(), &text);
    }

    #[test]
    fn a_damaged_file_gives_an_answer(at in 0..SHIPPED.len(), junk in "[\\[\\]\"=#.\\n a-z0-9]{0,4}") {
        let mut text = SHIPPED.to_owned();
        let at = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap();
        text.replace_range(at..at, &junk);
        if let Err(report) = parse(path(), &text) {
            prop_assert!(report.has_errors());
            prop_assert!(report.problems.iter().all(|problem| !problem.help.is_empty()));
        }
    }
}
