//! What Prometheus is shown, and by which ways.

use evermq_exposition::{parse, scrape};

use crate::net::{Net, Options};

#[test]
fn the_figures_are_shown_by_http_and_on_the_control_socket() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    // In a namespace of its own no port is taken.
    lb1.set_vip("metrics = \"127.0.0.1:9112\"");
    let [lb1, lb2, _] = net.start();
    let body = lb1.inside(|| scrape("127.0.0.1:9112".parse().unwrap()));
    let families = parse(&body);
    let of = |name: &str| families.of(&format!("{name}{{instance=\"vip\",vrid=\"51\"}}"));
    assert_eq!([of("evermq_vip_master"), of("evermq_vip_priority")], [1.0, 200.0]);
    assert_eq!([of("evermq_vip_effective_priority"), of("evermq_vip_transitions_total")], [200.0, 1.0]);
    assert!(of("evermq_vip_advertisements_sent_total") > 0.0 && of("evermq_vip_garp_sent_total") > 0.0);
    assert!(of("evermq_vip_last_transition_timestamp_seconds") > 1.6e9);
    let discarded = "evermq_vip_advertisements_discarded_total{instance=\"vip\",vrid=\"51\",cause=\"checksum\"}";
    assert_eq!(families.of(discarded), 0.0);
    let text = lb2.metrics();
    assert_eq!(parse(&text).of("evermq_vip_master{instance=\"vip\",vrid=\"51\"}"), 0.0);
}
