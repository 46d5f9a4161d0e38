//! `[lb]` and its lists: what is read, and what each mistake is answered with.

use std::path::PathBuf;

use super::marked::{marked, warned, wrong};
use super::*;
use crate::lb::{
    AccessLog, Balance, ClientAuth, ClientIdAction, ClientIdRule, Handshakes, Listener, Mode, Probe, Queue, Rebalance,
    Route, SourceLimits, TlsVersion,
};

fn addresses(cluster: &Cluster) -> Vec<(String, Option<String>, Option<String>)> {
    let show = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    let lb = cluster.lb_for("lb1").unwrap();
    lb.backends
        .iter()
        .map(|backend| (backend.name.clone(), show(backend.address), show(backend.plain_address)))
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a value and what becomes of it, side by side")]
fn every_value_is_read() {
    let text = marked(
        r#"
        [lb]
        listen = "0.0.0.0:9100"
        mode = "terminate"
        balance = "client_id"
        send_proxy = true
        accept_proxy_from = ["10.0.0.0/24", "2001:db8::1"]
        max_connections = 7
        max_connections_per_source = 8
        max_rate_per_source = 9
        greeting_timeout = "1s"
        idle_timeout = "0s"
        connect_timeout = "2s"
        max_handshake_rate = 10
        max_handshake_rate_per_broker = 0
        max_handshakes = 11
        max_handshakes_per_broker = 12
        queue_size = 13
        queue_timeout = "3s"
        health_interval = "100ms"
        health_timeout = "400ms"
        health_rise = 3
        health_fall = 4
        max_ejected = 5
        slow_start = "4s"
        rebalance_rate = 0
        rebalance_threshold = 6
        rebalance_delay = "5s"
        access_log = "log/access.log"
        metrics = "127.0.0.1:9113"
        client_certificates = "optional"
        client_ca = "tls/clients.crt"
        crl = ["tls/one.crl", "/two.crl"]
        tls_min_version = "1.3"
        ticket_key = "keys/ticket.key"
        ticket_rotation = "1h"
        [[lb.certificates]]
        cert = "tls/{host}-mqtt.crt"
        key = "tls/{host}-mqtt.key"
        [broker]
        listen_proxy = "0.0.0.0:8885"
        "#,
    )
    .0;
    let cluster = good(&text).cluster;
    let lb = &cluster.lb;
    let main = |name: &str| Listener {
        name: name.to_owned(),
        address: "0.0.0.0:9100".parse().unwrap(),
        mode: Mode::Terminate,
        group: "brokers".to_owned(),
    };
    assert_eq!(lb.listeners, [main("main")]);
    assert_eq!((lb.balance, lb.send_proxy, lb.max_connections), (Balance::ClientId, true, 7));
    assert_eq!(
        lb.accept_proxy_from.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/24", "2001:db8::1/128"]
    );
    assert_eq!(lb.source, SourceLimits { connections: Some(8), rate: Some(9) });
    assert_eq!((lb.greeting_timeout, lb.idle_timeout), (Duration::from_secs(1), None));
    assert_eq!(
        lb.handshakes,
        Handshakes { rate: Some(10), rate_per_backend: None, concurrent: 11, concurrent_per_backend: 12 }
    );
    assert_eq!(lb.queue, Queue { size: 13, timeout: Duration::from_secs(3) });
    assert_eq!((lb.health.rise, lb.health.fall, lb.health.max_ejected), (3, 4, 5));
    assert_eq!(lb.health.slow_start, Duration::from_secs(4));
    assert_eq!(lb.rebalance, Rebalance { rate: None, threshold: 6, delay: Duration::from_secs(5) });
    assert_eq!(lb.access_log, AccessLog::File("/etc/evermq/log/access.log".into()));
    assert_eq!(lb.metrics, Some("127.0.0.1:9113".parse().unwrap()));
    assert_eq!((lb.tls.client_auth, lb.tls.min_version), (ClientAuth::Optional, TlsVersion::V1_3));
    assert_eq!(lb.tls.client_ca, Some(PathBuf::from("/etc/evermq/tls/clients.crt")));
    assert_eq!(lb.tls.crl, [PathBuf::from("/etc/evermq/tls/one.crl"), PathBuf::from("/two.crl")]);
    assert_eq!(lb.tls.ticket_key, PathBuf::from("/etc/evermq/keys/ticket.key"));
    assert_eq!(lb.tls.ticket_rotation, Duration::from_secs(3600));
    let certificates = cluster.lb_for("lb2").unwrap().lb.tls.certificates;
    assert_eq!(certificates[0].cert, PathBuf::from("/etc/evermq/tls/lb2-mqtt.crt"));
    assert_eq!(certificates[0].key, PathBuf::from("/etc/evermq/tls/lb2-mqtt.key"));
}

#[test]
fn lists_are_read_in_their_order() {
    let text = marked(
        r#"
        [[lb.listeners]]
        name = "second"
        listen = "127.0.0.1:9883"
        mode = "reencrypt"
        group = "legacy"
        [[lb.backends]]
        name = "broker2"
        weight = 3
        max_connections = 100
        probe = "tcp"
        [[lb.backends]]
        name = "legacy_1.example"
        address = "192.168.10.41:8883"
        group = "legacy"
        backup = true
        [[lb.backends]]
        name = "legacy2"
        address = "192.168.10.42:8883"
        plain_address = "192.168.10.42:1883"
        group = "legacy"
        probe = "none"
        send_proxy = true
        [[lb.routes]]
        sni = ["Legacy.Example.org.", "*.legacy.example.org"]
        group = "legacy"
        [[lb.client_ids]]
        match = "test-*"
        action = "deny"
        [[lb.client_ids]]
        match = "*"
        group = "legacy"
        "#,
    )
    .0;
    let loaded = good(&text);
    assert!(loaded.warnings.problems.is_empty(), "{}", loaded.warnings);
    let cluster = loaded.cluster;
    assert_eq!(cluster.lb.listeners[1].mode, Mode::Reencrypt);
    assert_eq!(
        cluster.lb.routes,
        [Route {
            sni: vec!["legacy.example.org".to_owned(), "*.legacy.example.org".to_owned()],
            group: "legacy".to_owned()
        }]
    );
    let rule = |pattern: &str, action| ClientIdRule { pattern: pattern.to_owned(), action };
    assert_eq!(
        cluster.lb.client_ids,
        [rule("test-*", ClientIdAction::Deny), rule("*", ClientIdAction::Group("legacy".to_owned()))]
    );
    let own = |name: &str, address: &str| (name.to_owned(), Some(format!("{address}:8883")), None);
    assert_eq!(
        addresses(&cluster),
        [
            own("broker1", "192.168.10.21"),
            own("broker2", "192.168.10.22"),
            own("legacy_1.example", "192.168.10.41"),
            ("legacy2".to_owned(), Some("192.168.10.42:8883".to_owned()), Some("192.168.10.42:1883".to_owned())),
        ]
    );
    let backends = cluster.lb_for("lb1").unwrap().backends;
    let of = |backend: &BackendConfig| (backend.weight, backend.backup, backend.max_connections, backend.probe);
    assert_eq!(of(&backends[0]), (1, false, None, Probe::Session));
    assert_eq!(of(&backends[1]), (3, false, Some(100), Probe::Tcp));
    // What is no host of the cluster is probed with MQTT unless the file says otherwise, and gets no PROXY header.
    assert_eq!(of(&backends[2]), (1, true, None, Probe::Mqtt));
    assert_eq!(of(&backends[3]), (1, false, None, Probe::None));
    assert_eq!(backends.iter().map(|backend| backend.send_proxy).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(backends.iter().map(|backend| backend.host.is_some()).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn brokers_that_listen_for_it_get_plain_mqtt_with_a_header() {
    let text = marked("[lb]\nmode = \"terminate\"\nsend_proxy = true\n[broker]\nlisten_proxy = \"0.0.0.0:8885\"\n").0;
    let backends = good(&text).cluster.lb_for("lb1").unwrap().backends;
    let plain = backends[0].plain_address.map(|address| address.to_string());
    assert_eq!(plain.as_deref(), Some("192.168.10.21:8885"));
    assert!(backends[0].send_proxy && backends[0].send_proxy_plain);
}

#[test]
fn values_out_of_bounds_say_what_is_in_them() {
    for (line, help) in [
        ("mode = «\"tls\"»", "\"passthrough\" or \"terminate\" or \"reencrypt\" or \"plain\""),
        ("balance = «\"leastconn\"»", "\"least_conn\" or \"round_robin\" or \"random_two\""),
        ("accept_proxy_from = «[\"10.0.0.1/24\"]»", "such as [\"10.0.0.0/24\"]"),
        ("max_connections = «0»", "from 1 to 1000000"),
        ("greeting_timeout = «\"1h\"»", "from 100ms to 5m"),
        ("idle_timeout = «60»", "such as \"28h\""),
        ("max_handshakes = «0»", "from 1 to"),
        ("queue_timeout = «\"0s\"»", "from 10ms to 10m"),
        ("health_rise = «0»", "from 1 to 100"),
        ("health_fall = «101»", "from 1 to 100"),
        ("max_ejected = «101»", "from 0 to 100"),
        ("rebalance_threshold = «0»", "from 1 to 255"),
        ("access_log = «\"file\"»", "\"log\", \"off\" or a path"),
        ("metrics = «\"9113\"»", "such as \"127.0.0.1:9113\""),
        ("client_certificates = «true»", "\"required\" or \"optional\" or \"off\""),
        ("tls_min_version = «\"1.1\"»", "\"1.2\" or \"1.3\""),
        ("crl = «\"tls/ca.crl\"»", "a list of paths"),
        ("ticket_rotation = «\"1s\"»", "from 1m to 7d"),
        ("ticket_key = «\"\"»", "such as \"ticket.key\""),
        ("listeners = «1»", "[[lb.listeners]], with two brackets"),
        ("«max_handshake» = 1", "did you mean \"max_handshakes\"?"),
    ] {
        wrong(&format!("[lb]\n{line}\n"), "", help);
    }
}

#[test]
fn a_listener_needs_a_name_an_address_and_a_group_that_is_there() {
    let listener = |rest: &str| format!("[[lb.listeners]]\n{rest}\n");
    wrong(&listener("name = \"x\"").replace("[[lb.listeners]]", "«[[lb.listeners]]»"), "needs \"listen\"", "listen = ");
    wrong(
        &listener("listen = \"127.0.0.1:9883\"").replace("[[lb.listeners]]", "«[[lb.listeners]]»"),
        "[[lb.listeners]] needs \"name\"",
        "name = \"plain\"",
    );
    wrong(&listener("name = «\"a b\"»\nlisten = \"127.0.0.1:9883\""), "no value for lb.listeners.name", "letters");
    wrong(&listener("name = \"x\"\nlisten = «\"127.0.0.1\"»"), "no value for lb.listeners.listen", "and a port");
    wrong(
        &listener("name = \"main\"\nlisten = \"127.0.0.1:9883\"").replace("[[lb.listeners]]", "«[[lb.listeners]]»"),
        "two listeners are called \"main\"",
        "its own name",
    );
    wrong(
        &listener("name = \"x\"\nlisten = \"127.0.0.1:9883\"\ngroup = \"legacy\"")
            .replace("[[lb.listeners]]", "«[[lb.listeners]]»"),
        "no broker is in the group \"legacy\"",
        "add group = \"legacy\" to a [[lb.backends]] entry",
    );
    wrong(
        &listener("name = \"x\"\nlisten = \"127.0.0.1:9000\"").replace("[[lb.listeners]]", "«[[lb.listeners]]»"),
        "same port 9000",
        "its own port",
    );
    wrong(
        &listener("name = \"x\"\nlisten = \"127.0.0.1:9001\"").replace("[[lb.listeners]]", "«[[lb.listeners]]»"),
        "same port 9001",
        "its own port",
    );
    wrong(&listener("«port» = 9\nname = \"x\"\nlisten = \"127.0.0.1:9883\""), "has no key \"port\"", "keys here are");
}

#[test]
fn a_listener_needs_brokers_that_speak_what_it_speaks() {
    let plain = "[[lb.backends]]\nname = \"p\"\nplain_address = \"192.168.10.41:1883\"\ngroup = \"p\"\n";
    let tls = "[[lb.backends]]\nname = \"t\"\naddress = \"192.168.10.42:8883\"\ngroup = \"t\"\n";
    let listener = |mode: &str, group: &str| {
        format!(
            "«[[lb.listeners]]»\nname = \"x\"\nlisten = \"127.0.0.1:9883\"\nmode = \"{mode}\"\ngroup = \"{group}\"\n"
        )
    };
    for mode in ["terminate", "plain"] {
        wrong(&listener(mode, "brokers"), "they do not listen for it", "listen_proxy = \"0.0.0.0:8885\" to [broker]");
        wrong(&(tls.to_owned() + &listener(mode, "t")), "needs the plain_address of \"t\"", "add it");
        let fits = marked(&(plain.to_owned() + &listener(mode, "p"))).0;
        assert!(good(&fits).warnings.problems.is_empty(), "{}", good(&fits).warnings);
    }
    for mode in ["passthrough", "reencrypt"] {
        wrong(&(plain.to_owned() + &listener(mode, "p")), "needs the address of \"p\"", "add it");
        let fits = marked(&(tls.to_owned() + &listener(mode, "t"))).0;
        assert!(good(&fits).warnings.problems.is_empty(), "{}", good(&fits).warnings);
    }
    // A route brings clients of a listener with TLS to a group that it does not name itself.
    let routed = format!("[lb]\nlisten = «\"0.0.0.0:9000\"»\n{plain}[[lb.routes]]\nsni = [\"p\"]\ngroup = \"p\"\n");
    wrong(&routed, "needs the address of \"p\" in group \"p\"", "add it");
}

#[test]
fn a_backend_is_a_host_of_the_cluster_or_has_an_address() {
    let backend = |rest: &str| format!("[[lb.backends]]\n{rest}\n");
    wrong(&backend("name = «\"legacy1\"»"), "no broker of this cluster and has no address", "broker1, broker2");
    wrong(&backend("name = «\"lb1\"»"), "no broker of this cluster and has no address", "add address");
    wrong(
        &backend("name = «\"broker1\"»\naddress = \"192.168.10.41:8883\""),
        "is a host of this cluster",
        "delete address",
    );
    wrong(
        &(backend("name = \"x\"\naddress = \"192.168.10.41:8883\"")
            + &backend("name = «\"x\"»\naddress = \"192.168.10.42:8883\"")),
        "two [[lb.backends]] entries are called \"x\"",
        "its own name",
    );
    wrong(
        &backend("address = \"192.168.10.41:8883\"").replace("[[lb.backends]]", "«[[lb.backends]]»"),
        "needs \"name\"",
        "name = \"legacy1\"",
    );
    wrong(&backend("name = \"broker1\"\nweight = «1001»"), "no value for lb.backends.weight", "from 0 to 1000");
    wrong(&backend("name = \"broker1\"\ngroup = «\"a b\"»"), "no value for lb.backends.group", "such as \"legacy\"");
    wrong(
        &backend("name = \"broker1\"\nprobe = «\"ping\"»"),
        "no value for lb.backends.probe",
        "\"session\" or \"mqtt\"",
    );
    for probe in ["session", "tls"] {
        let plain =
            format!("name = \"p\"\nplain_address = \"192.168.10.41:1883\"\ngroup = \"p\"\nprobe = «\"{probe}\"»");
        wrong(&backend(&plain), "needs TLS", "probe = \"mqtt\" or \"tcp\"");
    }
}

#[test]
fn routes_and_rules_name_what_is_there() {
    let route = |rest: &str| format!("[[lb.routes]]\n{rest}\n");
    wrong(
        &route("sni = [\"a\"]\ngroup = «\"legacy\"»"),
        "no broker is in the group \"legacy\"",
        "write one of \"brokers\"",
    );
    wrong(&route("group = \"brokers\"").replace("[[lb.routes]]", "«[[lb.routes]]»"), "needs \"sni\"", "sni = [");
    wrong(&route("sni = [\"a\"]").replace("[[lb.routes]]", "«[[lb.routes]]»"), "needs \"group\"", "group = \"legacy\"");
    for sni in ["[]", "\"a\"", "[\"\"]", "[\"a\", \"\"]", "[\"a.*.b\"]", "[\"*\"]", "[\"*.\"]", "[\"a b\"]", "[\".a\"]"]
    {
        wrong(
            &route(&format!("sni = «{sni}»\ngroup = \"brokers\"")),
            "no value for lb.routes.sni",
            "*.legacy.example.org",
        );
    }
    let terminating = "[lb]\nmode = \"reencrypt\"\n";
    let rule = |rest: &str| format!("{terminating}[[lb.client_ids]]\n{rest}\n");
    wrong(&rule("match = \"a\"\ngroup = «\"legacy\"»"), "no broker is in the group \"legacy\"", "write one of");
    wrong(&rule("match = «\"a\"»"), "what happens", "action = \"deny\"");
    wrong(
        &rule("match = \"a\"\naction = \"deny\"\ngroup = «\"brokers\"»"),
        "either an action or a group",
        "delete one",
    );
    wrong(&rule("match = \"a\"\naction = «\"drop\"»"), "no value for lb.client_ids.action", "\"deny\" or \"allow\"");
    wrong(&rule("match = «\"\"»\naction = \"deny\""), "no value for lb.client_ids.match", "such as \"test-*\"");
    wrong(
        &rule("action = \"deny\"").replace("[[lb.client_ids]]", "«[[lb.client_ids]]»"),
        "needs \"match\"",
        "match = ",
    );
}

#[test]
fn a_certificate_needs_both_files() {
    wrong("«[[lb.certificates]]»\ncert = \"a.crt\"\n", "[[lb.certificates]] needs \"key\"", "key = ");
    wrong("«[[lb.certificates]]»\nkey = \"a.key\"\n", "[[lb.certificates]] needs \"cert\"", "cert = ");
}

#[test]
fn what_is_allowed_but_does_little_is_warned_of() {
    warned("[lb]\nbalance = «\"client_id\"»\n", "client_id needs a listener that sees MQTT", "balance = \"source_ip\"");
    warned(
        "«[[lb.listeners]]»\nname = \"open\"\nlisten = \"0.0.0.0:9883\"\nmode = \"plain\"\n\
         [broker]\nlisten_proxy = \"0.0.0.0:8885\"\n",
        "serves anyone who reaches it",
        "a mode with TLS",
    );
    warned("[[lb.client_ids]]\nmatch = «\"a\"»\naction = \"deny\"\n", "no listener sees MQTT", "mode = \"terminate\"");
    warned(
        "«[[lb.certificates]]»\ncert = \"a.crt\"\nkey = \"a.key\"\n",
        "no listener ends TLS",
        "mode = \"terminate\"",
    );
}

#[test]
fn routes_without_tls_are_warned_of() {
    let text = marked(
        "[lb]\nmode = \"plain\"\n[[lb.routes]]\nsni = [\"a\"]\ngroup = \"brokers\"\n\
         [broker]\nlisten_proxy = \"0.0.0.0:8885\"\n",
    )
    .0;
    let warnings = good(&text).warnings.to_string();
    assert!(warnings.contains("no listener has TLS") && warnings.contains("delete [[lb.routes]]"), "{warnings}");
}

#[test]
fn each_list_is_bounded() {
    let many = "[[lb.certificates]]\ncert = \"a.crt\"\nkey = \"a.key\"\n".repeat(257);
    let report = bad(&format!("{MINIMAL}[lb]\nmode = \"reencrypt\"\n{many}"));
    assert_eq!(report.problems.len(), 1, "{report}");
    assert!(report.problems[0].message.contains("more than 256 [[lb.certificates]] entries"), "{report}");
}
