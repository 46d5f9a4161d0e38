//! What Prometheus is shown, and by which ways.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use net::{Net, Options};

/// Families by name, each with its kind and its samples by their labels; panics where the text breaks the format.
fn parse(text: &str) -> BTreeMap<String, (String, BTreeMap<String, f64>)> {
    let mut families: BTreeMap<String, (String, BTreeMap<String, f64>)> = BTreeMap::new();
    let mut current = String::new();
    let mut helped = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty() && helped.insert(name.to_owned()), "{line}");
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current, "help and type stand together");
            assert!(["counter", "gauge"].contains(&kind) && (kind == "counter") == name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new())).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert_eq!(name, current, "samples follow their type");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            let labels = series[name.len()..].to_owned();
            assert!(labels.is_empty() || (labels.starts_with('{') && labels.ends_with("\"}")), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(families.get_mut(name).unwrap().1.insert(labels, value).is_none(), "twice: {line}");
        }
    }
    families
}

#[test]
fn the_figures_are_shown_by_http_and_on_the_control_socket() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    // In a namespace of its own no port is taken.
    lb1.set_vip("metrics = \"127.0.0.1:9112\"");
    let [lb1, lb2, _] = net.start();
    let answer = lb1.inside(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9112").unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lb1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    let families = parse(body);
    let of = |name: &str| families[name].1["{instance=\"vip\",vrid=\"51\"}"];
    assert_eq!([of("evermq_vip_master"), of("evermq_vip_priority")], [1.0, 200.0]);
    assert_eq!([of("evermq_vip_effective_priority"), of("evermq_vip_transitions_total")], [200.0, 1.0]);
    assert!(of("evermq_vip_advertisements_sent_total") > 0.0 && of("evermq_vip_garp_sent_total") > 0.0);
    assert!(of("evermq_vip_last_transition_timestamp_seconds") > 1.6e9);
    let discarded = &families["evermq_vip_advertisements_discarded_total"].1;
    assert_eq!(discarded["{instance=\"vip\",vrid=\"51\",cause=\"checksum\"}"], 0.0);
    let text = lb2.metrics();
    assert_eq!(parse(&text)["evermq_vip_master"].1["{instance=\"vip\",vrid=\"51\"}"], 0.0);
}
