use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evermq_config::lb::{ClientIdAction, ClientIdRule, Queue, Route};
use evermq_daemon::listen::SocketOptions;

use super::*;
use crate::pool::Pool;
use crate::routes::Routes;

/// Groups `brokers`, `legacy`, and settings that route to them.
fn settings(routed: bool) -> (Settings, GroupId, GroupId) {
    let host = |name: &str| evermq_config::HostName::new(name).unwrap();
    let backend = |name: &str| evermq_config::BackendConfig::of_cluster(host(name), ([127, 0, 0, 1], 1).into(), None);
    let mut legacy = backend("old");
    legacy.group = "legacy".to_owned();
    let pool = Pool::new(
        &[backend("new"), legacy],
        &crate::pool::tests::settings(evermq_config::lb::Balance::LeastConn),
        clock(),
    );
    let (brokers, legacy) = (pool.group("brokers").unwrap(), pool.group("legacy").unwrap());
    let route = Route { sni: vec!["old.example.org".to_owned()], group: "legacy".to_owned() };
    let rule = |pattern: &str, action| ClientIdRule { pattern: pattern.to_owned(), action };
    let rules = [rule("bad*", ClientIdAction::Deny), rule("old*", ClientIdAction::Group("legacy".to_owned()))];
    let routes = if routed { (&[route][..], &rules[..]) } else { (&[][..], &[][..]) };
    let settings = Settings {
        handshakes: 1,
        tls: None,
        greeting_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        idle_timeout: None,
        socket: SocketOptions { keepalive: Duration::from_secs(1), user_timeout: Duration::from_secs(1) },
        queue: Queue { size: 1, timeout: Duration::from_secs(1) },
        accept_proxy_from: Vec::new(),
        routes: Routes::new(routes.0, routes.1, |name| pool.group(name)).unwrap(),
    };
    (settings, brokers, legacy)
}

#[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
fn clock() -> Instant {
    Instant::now()
}

fn front(mode: Mode, group: GroupId) -> Front {
    Front {
        name: "main".into(),
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        mode,
        group,
        figures: std::sync::Arc::default(),
    }
}

/// A ClientHello as openssl sends it, asking for `old.example.org`.
fn hello() -> Vec<u8> {
    let name = b"old.example.org";
    let short = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let entry = [&[0][..], &short(name.len()), name].concat();
    let list = [&short(entry.len())[..], &entry].concat();
    let extension = [&[0, 0][..], &short(list.len()), &list].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &short(extension.len()), &extension].concat();
    let message = [&[1, 0][..], &short(body.len()), &body].concat();
    [&[22, 3, 1][..], &short(message.len()), &message].concat()
}

#[test]
fn a_name_routes_and_is_waited_for() {
    let hello = hello();
    let (settings, _, legacy) = self::settings(true);
    let front_ = front(Mode::Passthrough, self::settings(true).1);
    for length in 0..hello.len() {
        assert_eq!(judge(&front_, &settings, &hello[..length]).0, Judged::NeedMore, "{length}");
    }
    let (judged, details) = judge(&front_, &settings, &hello);
    assert_eq!((judged, details.sni.as_deref()), (Judged::Good(legacy), Some("old.example.org")));

    let (settings, brokers, _) = self::settings(false);
    let front_ = front(Mode::Passthrough, brokers);
    for length in 0..hello.len() {
        assert_eq!(judge(&front_, &settings, &hello[..length]).0, Judged::NeedMore, "{length}");
    }
    let (judged, details) = judge(&front_, &settings, &hello);
    assert_eq!((judged, details.sni.as_deref()), (Judged::Good(brokers), Some("old.example.org")));
}

#[test]
fn what_is_no_tls_is_known_at_once() {
    let (settings, brokers, _) = settings(false);
    for bad in [&b"GET"[..], &[0x10, 12], &[21, 3, 1, 0, 1, 0], &[22, 3, 1, 0, 4, 2]] {
        let (judged, _) = judge(&front(Mode::Passthrough, brokers), &settings, bad);
        assert_eq!(judged, Judged::Bad(Why::NotTls, None), "{bad:?}");
    }
}

fn connect(client_id: &[u8]) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).unwrap();
    [&[0x10, 12 + length, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, length][..], client_id].concat()
}

#[test]
fn rules_for_client_identifiers_let_in_send_elsewhere_and_refuse_in_words() {
    let (settings, brokers, legacy) = settings(true);
    let front = front(Mode::Plain, brokers);
    let whole = connect(b"new1");
    for length in 0..whole.len() {
        assert_eq!(judge(&front, &settings, &whole[..length]).0, Judged::NeedMore, "{length}");
    }
    let (judged, details) = judge(&front, &settings, &whole);
    assert_eq!((judged, details.client_id.as_deref()), (Judged::Good(brokers), Some(&b"new1"[..])));
    assert_eq!(judge(&front, &settings, &connect(b"old1")).0, Judged::Good(legacy));
    // CONNACK, return code 5: not authorized.
    let refused = Judged::Bad(Why::Denied, Some(vec![0x20, 2, 0, 5]));
    assert_eq!(judge(&front, &settings, &connect(b"bad1")).0, refused);
    assert_eq!(judge(&front, &settings, b"\x16\x03").0, Judged::Bad(Why::NotConnect, None));
}

#[test]
fn a_header_is_taken_off_and_names_the_client() {
    let mut bytes = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 9000\r\nrest".to_vec();
    let addresses = take_header(&mut bytes).unwrap().unwrap().addresses.unwrap();
    assert_eq!(addresses.source, "192.0.2.1:1000".parse().unwrap());
    assert_eq!(addresses.destination, "192.0.2.2:9000".parse().unwrap());
    assert_eq!(bytes, b"rest");
    assert_eq!(take_header(&mut b"PROXY TCP4".to_vec()), Ok(None));
    assert_eq!(take_header(&mut b"PROXY UNKNOWN\r\n".to_vec()).map(|header| header.unwrap().addresses), Ok(None));
    assert_eq!(take_header(&mut b"\x16\x03\x01".to_vec()), Err(Why::NoProxyHeader));
}
