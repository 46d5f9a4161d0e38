//! `[broker]`, its tables and lists: what is read, and what each mistake is answered with.

use std::path::PathBuf;

use super::marked::{marked, warned, wrong};
use super::*;
use crate::broker::{
    AclRule, Admission, Anonymous, Auth, CertificateIdentity, ClientCertificates, ListenAddress, Listener, Protocol,
    Store, Sync,
};

#[test]
fn every_value_is_read() {
    let text = marked(
        r#"
        [broker]
        max_connections = 7
        max_connections_per_address = 8
        max_connections_per_user = 9
        max_handshakes = 10
        max_publish_rate = 11
        max_publish_bytes = "12KiB"
        max_queued_total = "13MiB"
        max_sessions = 15
        max_topic_alias = 0
        max_retained_bytes = "14MiB"
        sys_interval = "0s"
        metrics = "127.0.0.1:9114"
        [broker.store]
        path = "store/{host}"
        sync = "interval"
        sync_interval = "2s"
        segment_size = "4MiB"
        max_size = "64MiB"
        [broker.auth]
        identity = "san_uri"
        anonymous = "off"
        password_file = "passwords"
        acl_file = "acl"
        tell_denied = false
        crl = ["tls/ca.crl"]
        "#,
    );
    let broker = good(&text.0).cluster.broker_for("broker1").unwrap().broker;
    let admission = Admission {
        connections: 7,
        per_address: Some(8),
        per_user: Some(9),
        handshakes: 10,
        publish_rate: Some(11),
        publish_bytes: Some(12 << 10),
    };
    assert_eq!(broker.admission, admission);
    assert_eq!((broker.max_queued_total, broker.max_retained_bytes), (13 << 20, 14 << 20));
    assert_eq!((broker.max_topic_alias, broker.max_sessions, broker.sys_interval), (0, 15, None));
    assert_eq!(broker.metrics, "127.0.0.1:9114".parse().ok());
    let store = Store {
        path: PathBuf::from("/etc/evermq/store/broker1"),
        sync: Sync::Interval(std::time::Duration::from_secs(2)),
        segment_size: 4 << 20,
        max_size: 64 << 20,
    };
    assert_eq!(broker.store, store);
    let path = |name: &str| PathBuf::from(format!("/etc/evermq/{name}"));
    let auth = Auth {
        identity: CertificateIdentity::SanUri,
        anonymous: Anonymous::Off,
        password_file: Some(path("passwords")),
        acl_file: Some(path("acl")),
        tell_denied: false,
        rules: Vec::new(),
        crl: vec![path("tls/ca.crl")],
    };
    assert_eq!(broker.auth, auth);
}

#[test]
fn lists_are_read_in_their_order() {
    let text = marked(
        r#"
        [[broker.listeners]]
        name = "web"
        listen = "127.0.0.1:8083"
        protocol = "websocket"
        client_certificates = "optional"
        anonymous = "on"
        max_connections = 5
        max_packet_size = "64KiB"
        protocol_versions = ["3.1.1", "5.0"]
        [[broker.listeners]]
        name = "local"
        path = "mqtt.sock"
        [[broker.acl]]
        users = ["sensor-*"]
        publish = ["plant/%u/#"]
        [[broker.acl]]
        clients = ["panel"]
        subscribe = ["plant/#"]
        deny = ["plant/+/secret"]
        "#,
    );
    let broker = good(&text.0).cluster.broker;
    let web = Listener {
        name: "web".to_owned(),
        address: ListenAddress::Tcp("127.0.0.1:8083".parse().unwrap()),
        protocol: Protocol::WebSocket,
        tls: true,
        client_certificates: ClientCertificates::Optional,
        anonymous: Some(Anonymous::On),
        max_connections: Some(5),
        max_packet_size: Some(64 << 10),
        protocol_versions: vec![4, 5],
    };
    let local = Listener {
        name: "local".to_owned(),
        address: ListenAddress::Unix(PathBuf::from("/etc/evermq/mqtt.sock")),
        protocol: Protocol::Mqtt,
        tls: false,
        client_certificates: ClientCertificates::Required,
        anonymous: None,
        max_connections: None,
        max_packet_size: None,
        protocol_versions: vec![3, 4, 5],
    };
    assert_eq!(broker.listeners, [web, local]);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let rule = |users: &[&str], clients: &[&str], publish: &[&str], subscribe: &[&str], deny: &[&str]| AclRule {
        users: words(users),
        clients: words(clients),
        publish: words(publish),
        subscribe: words(subscribe),
        deny: words(deny),
    };
    let sensors = rule(&["sensor-*"], &[], &["plant/%u/#"], &[], &[]);
    let panel = rule(&[], &["panel"], &[], &["plant/#"], &["plant/+/secret"]);
    assert_eq!(broker.auth.rules, [sensors, panel]);
}

#[test]
fn a_mistake_is_named_where_it_is() {
    wrong("[broker.store]\nsync = «\"sometimes\"»", "no value for broker.store.sync", "\"always\" or \"interval\"");
    wrong("[broker.store]\n«synk» = \"always\"", "[broker.store] has no key \"synk\"", "did you mean \"sync\"?");
    wrong("[broker]\nstore = «1»", "broker.store must be a table", "[broker.store]");
    wrong("[broker.store]\nmax_size = «\"100MiB\"»", "has no room for 4 files", "lower segment_size");
    wrong(
        "[broker.auth]\nanonymous = «true»",
        "no value for broker.auth.anonymous",
        "\"loopback\" or \"off\" or \"on\"",
    );
    wrong(
        "[broker.auth]\nacl_file = «\"acl\"»\n[[broker.acl]]\npublish = [\"#\"]",
        "both acl_file and [[broker.acl]]",
        "keep one of them",
    );
    wrong("«[[broker.acl]]»\nusers = [\"a\"]", "says not what is allowed or denied", "add publish, subscribe or deny");
    wrong("[[broker.acl]]\npublish = «[\"a/#/b\"]»", "no value for broker.acl.publish", "a list of topic filters");
    wrong("[[broker.acl]]\npublish = «[\"a+\"]»", "no value for broker.acl.publish", "a list of topic filters");
}

#[test]
fn a_listener_needs_a_name_and_one_place() {
    let web = "[[broker.listeners]]\nname = \"web\"\n";
    wrong("«[[broker.listeners]]»\nlisten = \"127.0.0.1:8083\"", "needs \"name\"", "name = \"web\"");
    wrong("«[[broker.listeners]]»\nname = \"web\"", "needs \"listen\"", "listen = \"0.0.0.0:8083\"");
    wrong(&format!("{web}listen = \"127.0.0.1:8083\"\npath = «\"mqtt.sock\"»"), "either listen or path", "delete one");
    // Both what is missing and what stands in its place.
    let report = bad(&marked(&format!("{web}listem = \"127.0.0.1:8083\"")).0).to_string();
    assert!(report.contains("needs \"listen\"") && report.contains("did you mean \"listen\"?"), "{report}");
    wrong(
        &format!("{web}listen = «\"127.0.0.1:8883\"»"),
        "\"web\" and broker.listen listen at the same place",
        "own port",
    );
    wrong(
        &format!("{web}path = \"a.sock\"\n[[broker.listeners]]\nname = «\"web\"»\npath = \"b.sock\""),
        "two listeners are called \"web\"",
        "a name of its own",
    );
    wrong(
        &format!("{web}path = \"mqtt.sock\"\nclient_certificates = «\"off\"»"),
        "does nothing without TLS",
        "write tls = true",
    );
    wrong(
        &format!("{web}listen = \"127.0.0.1:8083\"\nmax_packet_size = «\"2MiB\"»"),
        "above that of [broker]",
        "raise max_packet_size",
    );
    wrong(
        &format!("{web}listen = \"127.0.0.1:8083\"\nprotocol_versions = «[\"4\"]»"),
        "no value for broker.listeners.protocol_versions",
        "\"3.1.1\"",
    );
    warned(&format!("{web}listen = «\"0.0.0.0:8083\"»\ntls = false"), "\"web\" is not encrypted", "write tls = true");
}

#[test]
fn who_reaches_the_plain_listener_is_said() {
    let plain = "[broker]\nlisten_plain = «\"0.0.0.0:1883\"»\n";
    warned(plain, "nobody gets in at listen_plain from another host", "add password_file");
    warned(&format!("{plain}[broker.auth]\nanonymous = \"on\""), "serves anyone who reaches 0.0.0.0:1883", "127.0.0.1");
    warned(
        &format!("{plain}[broker.auth]\npassword_file = \"p\""),
        "passwords cross the network",
        "a listener with tls",
    );
}
