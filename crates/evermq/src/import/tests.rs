//! The three files of one host of the old setup, and what becomes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use evermq_config::{Cluster, Loaded};

use super::statements::Grammar;
use super::*;

const MOSQUITTO: &str = include_str!("tests/mosquitto.conf");
const KEEPALIVED: &str = include_str!("tests/keepalived.conf");
const NGINX: &str = include_str!("tests/nginx.conf");

fn content(text: &str) -> Result<Content, statements::SyntaxError> {
    let path: Rc<Path> = Rc::from(Path::new("x.conf"));
    Ok(match files::kind_of(text) {
        files::Kind::Mosquitto => Content::Mosquitto(mosquitto::lines(&path, text)),
        files::Kind::Keepalived => Content::Keepalived(statements::parse(&path, text, Grammar::Keepalived)?),
        files::Kind::Nginx => Content::Nginx(statements::parse(&path, text, Grammar::Nginx)?),
    })
}

fn imported_with(texts: &[&str], hosts: &[&str], beside: bool) -> Imported {
    let contents: Vec<Content> = texts.iter().map(|text| content(text).unwrap()).collect();
    let (lbs, brokers): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| host.starts_with("lb"));
    let parsed = |hosts: Vec<&&str>| hosts.into_iter().map(|host| crate::init::host(host).unwrap()).collect::<Vec<_>>();
    let model = Model::new(&parsed(lbs), &parsed(brokers), BTreeMap::new(), beside);
    import(&contents, model, None)
}

fn imported(texts: &[&str]) -> Imported {
    imported_with(texts, &["lb1=192.168.10.11", "lb2=192.168.10.12", "b1=192.168.10.21", "b2=192.168.10.22"], false)
}

fn loaded(imported: &Imported) -> Loaded {
    evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), &imported.toml)
        .unwrap_or_else(|report| panic!("{report}\n{}", imported.toml))
}

fn cluster(imported: &Imported) -> Cluster {
    loaded(imported).cluster
}

/// What became of the line that begins so.
fn outcome<'a>(imported: &'a Imported, line: &str) -> &'a finding::Outcome {
    let found = imported.findings.iter().find(|finding| finding.text.starts_with(line));
    &found.unwrap_or_else(|| panic!("nothing of {line}: {:#?}", imported.findings)).outcome
}

#[test]
fn the_old_setup_is_a_cluster_file() {
    let imported = imported(&[MOSQUITTO, KEEPALIVED, NGINX]);
    let cluster = cluster(&imported);
    assert_eq!(cluster.vips().collect::<Vec<_>>(), ["192.168.10.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(cluster.virtual_routers[0].vrid.get(), 61);
    let hosts: Vec<_> =
        cluster.hosts.iter().map(|host| (host.name.as_str(), host.lb, host.broker, host.vip_priority)).collect();
    assert_eq!(hosts[..2], [("lb1", true, false, 150), ("lb2", true, false, 190)]);
    assert_eq!(hosts[2..].iter().map(|host| (host.0, host.2)).collect::<Vec<_>>(), [("b1", true), ("b2", true)]);
    assert_eq!(cluster.hosts[0].interface.as_deref(), Some("eth0"));
    assert_eq!(cluster.tracks.len(), 1, "the script that looks after nginx has no work: {:?}", cluster.tracks);
    assert_eq!(cluster.lb.listen().port(), 9000);
    assert_eq!(cluster.lb.idle_timeout.unwrap().as_secs(), 3600);
    assert_eq!(cluster.lb.backends[0].weight, 2);
    assert_eq!(cluster.broker.max_queued_messages, 5000);
    assert_eq!(cluster.broker.max_inflight, 65_535);
    assert_eq!(cluster.broker.max_packet_size, 1_065_536);
    assert_eq!(cluster.broker.max_session_expiry.as_secs(), 14 * 86_400);
    assert_eq!(cluster.broker.listen_plain, Some("0.0.0.0:1883".parse().unwrap()));
    assert_eq!(cluster.broker.listeners.len(), 1);
    assert_eq!(cluster.broker.auth.acl_file.as_deref(), Some(Path::new("/etc/mosquitto/acl")));
    assert_eq!(cluster.broker.auth.crl, [PathBuf::from("/etc/mosquitto/cert/ca.crl")]);
    assert_eq!(cluster.tls.cert, PathBuf::from("/etc/mosquitto/cert/server.crt"));
    assert_eq!(cluster.bridges.len(), 1, "brokers of the cluster need no bridge");
    let bridge = &cluster.bridges[0];
    assert_eq!(
        (bridge.name.as_str(), bridge.addresses.as_slice()),
        ("old-site", &["old.example.com:8883".to_owned()][..])
    );
    assert_eq!((bridge.topics.len(), bridge.reconnect_min.as_secs(), bridge.reconnect_max.as_secs()), (1, 5, 30));
}

#[test]
fn no_line_is_passed_over() {
    for text in [MOSQUITTO, KEEPALIVED, NGINX] {
        let imported = imported(&[text]);
        for (index, line) in text.lines().enumerate() {
            let bare = line.trim();
            if bare.is_empty() || bare.starts_with(['#', '!', '}']) {
                continue;
            }
            let first = bare.split([' ', ';']).next().unwrap();
            let told = imported.findings.iter().any(|finding| finding.place.line == index + 1);
            // What stands in a block that is told of as a whole.
            let within = [
                "group",
                "track_script",
                "unicast_peer",
                "authentication",
                "virtual_ipaddress",
                "auth_type",
                "auth_pass",
                "192.168.10.12",
            ];
            let script = ["script", "interval", "weight", "fall"];
            let http = index > 21 && text == NGINX;
            assert!(told || within.contains(&first) || script.contains(&first) || http, "{}: {line}", index + 1);
        }
    }
}

#[test]
fn secrets_are_not_shown() {
    let imported = imported(&[MOSQUITTO, KEEPALIVED, NGINX]);
    let shown = format!("{:?}{}", imported.findings, imported.toml);
    assert!(!shown.contains("s3cret") && !shown.contains("1111"), "{shown}");
}

#[test]
fn what_has_no_counterpart_says_why() {
    let imported = imported(&[MOSQUITTO, KEEPALIVED, NGINX]);
    for (line, notable) in [
        ("autosave_interval", true),
        ("remote_password", true),
        ("connection broker2", true),
        ("authentication", true),
        ("http", true),
        ("worker_connections", true),
        ("state MASTER", false),
        ("acl_file", false),
        ("vrrp_script chk_nginx", false),
    ] {
        assert_eq!(outcome(&imported, line).is_notable(), notable, "{line}: {:?}", outcome(&imported, line));
    }
    let json: Vec<_> = imported.findings.iter().map(Finding::to_json).collect();
    assert!(json.iter().all(|line| !line["why"].as_str().unwrap().is_empty()), "{json:#?}");
}

#[test]
fn beside_keepalived_its_protocol_is_kept() {
    let imported = imported_with(&[KEEPALIVED, NGINX], &[], true);
    let cluster = cluster(&imported);
    let vip = cluster.vip.as_ref().unwrap();
    assert_eq!(vip.advert_interval.as_secs(), 1);
    assert_eq!(cluster.virtual_routers[0].version, evermq_config::vip::VrrpVersion::V2);
    assert!(vip.auth_pass.is_some());
    let made_up = imported.notes.iter().filter(|note| note.contains(" is called \""));
    assert_eq!(made_up.count(), 4, "made-up names are told of: {:?}", imported.notes);
    assert!(imported.notes.iter().any(|note| note.contains("[admin]")), "{:?}", imported.notes);
}

#[test]
fn two_hosts_files_are_one_virtual_router() {
    let other = KEEPALIVED
        .replace("150", "100")
        .replace("unicast_src_ip 192.168.10.11", "unicast_src_ip 192.168.10.12")
        .replace("        192.168.10.12\n", "        192.168.10.11\n");
    let imported = imported_with(&[KEEPALIVED, &other, NGINX], &[], false);
    let cluster = cluster(&imported);
    assert_eq!(cluster.virtual_routers.len(), 1);
    let priorities: Vec<_> = cluster.lbs().map(|host| host.vip_priority).collect();
    assert_eq!(priorities, [150, 100]);
}

#[test]
fn listeners_of_every_kind() {
    let text = "listener 1884\nlistener 8883 10.0.0.1\ncertfile c\nkeyfile k\nlistener 0 /run/m.sock\nlistener 8084\nprotocol websockets\n\
                certfile c\nkeyfile k\ncafile a\nlistener 1885\nallow_anonymous true\n";
    let imported = imported(&[text]);
    let cluster = cluster(&imported);
    assert_eq!(cluster.broker.listen.port(), 8886, "8883 is another listener's");
    assert_eq!(cluster.broker.listen_plain.unwrap().port(), 1884);
    let names: Vec<_> = cluster.broker.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["mqtt-8883", "mqtt-2", "websocket-8084", "mqtt-1885"]);
    assert_eq!(cluster.broker.auth.anonymous, evermq_config::broker::Anonymous::On);
}

#[test]
fn tls_that_ends_at_nginx_ends_at_the_lb() {
    let text = "stream {\n upstream b { least_conn; server 10.0.0.3:1883; server 10.0.0.4:1883 backup; }\n server {\n  listen 8883 ssl;\n\
                ssl_certificate /c; ssl_certificate_key /k; ssl_client_certificate /a; ssl_verify_client on;\n  proxy_pass b;\n }\n\
                server { listen 1883; proxy_pass 10.9.9.9:1883; }\n}\n";
    let imported = imported_with(&[text], &["lb1=10.0.0.1", "b1=10.0.0.3", "b2=10.0.0.4"], false);
    let cluster = cluster(&imported);
    assert!(cluster.lb.listeners[0].mode.terminates());
    assert_eq!(cluster.broker.listen_proxy.unwrap().port(), 8885);
    assert!(cluster.lb.backends.iter().any(|backend| backend.backup && backend.name == "b2"));
    assert_eq!(cluster.lb.listeners.len(), 2);
}

#[test]
fn names_that_clients_ask_for_are_routes() {
    let text = "stream {\n map $ssl_preread_server_name $name { default main; old.example.org old; .old.example.org old; }\n\
                upstream main { server 10.0.0.3:8883; }\n upstream old { server 10.0.0.9:8883; }\n\
                server { listen 9000; ssl_preread on; proxy_pass $name; }\n}\n";
    let imported = imported_with(&[text], &["lb1=10.0.0.1", "b1=10.0.0.3"], false);
    let cluster = cluster(&imported);
    assert_eq!(cluster.lb.routes.len(), 2);
    assert_eq!(cluster.brokers().count(), 1);
}

#[test]
fn missing_hosts_are_asked_for() {
    let imported = imported_with(&[MOSQUITTO], &[], false);
    assert!(!imported.complete);
    assert_eq!(
        imported.notes,
        ["there is no [[hosts]] yet: these files name no lb host: name each with --lb NAME=ADDRESS"]
    );
}

/// Whatever stands in a file, nothing panics, and what comes out is TOML.
#[test]
fn files_that_are_cut_off_or_garbled_do_no_harm() {
    for text in [MOSQUITTO, KEEPALIVED, NGINX] {
        for cut in (0..text.len()).step_by(7) {
            let garbled = format!("{}{}", &text[..cut], &text[cut..].replace(' ', "").replace('{', "}{"));
            for text in [&text[..cut], &text[cut..], &garbled] {
                let Ok(content) = content(text) else { continue };
                let imported = import(&[content], Model::new(&[], &[], BTreeMap::new(), true), None);
                imported.toml.parse::<toml::Table>().unwrap_or_else(|error| panic!("{error}\n{}", imported.toml));
            }
        }
    }
}
