//! The PROXY protocol on both sides of it.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use evermq_config::HostName;
use evermq_daemon::proxy_protocol::{self, Parsed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, StreamOwned};

use super::{CONNECT, client, config, connected, listen, terminating};
use crate::harness::{PATIENCE, Running};
use crate::pki::Pki;

#[test]
fn the_broker_learns_who_the_client_is() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let mut config = config(&pki, "client_certificates = \"optional\"", None, Some(address));
    config.backends[0].send_proxy_plain = true;
    config.backends[0].host = Some(HostName::new("broker1").unwrap());
    let lb = Running::start(config);
    for (certificate, resumed) in [(Some("client"), false), (Some("client"), true), (None, false)] {
        static CLIENT: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
        let client = match certificate {
            Some(_) => Arc::clone(CLIENT.get_or_init(|| {
                let mut client = pki.client(certificate);
                client.alpn_protocols = vec![b"mqtt".to_vec()];
                Arc::new(client)
            })),
            None => Arc::new(pki.client(None)),
        };
        let connection = ClientConnection::new(client, ServerName::try_from("lb1").unwrap()).unwrap();
        let mut tls = StreamOwned::new(connection, lb.stranger());
        tls.write_all(CONNECT).unwrap();
        let (mut stream, _) = backend.accept().unwrap();
        stream.write_all(b"\x20\x02\x00\x00").unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(CONNECT) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        let Parsed::Header { header, length } = proxy_protocol::parse(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(&bytes[length..], CONNECT);
        assert_eq!(header.source(), Some(tls.sock.local_addr().unwrap()));
        assert_eq!(header.addresses.unwrap().destination, lb.address);
        assert_eq!(header.authority.as_deref(), Some("lb1"));
        assert!(header.unique_id.is_some());
        let ssl = header.ssl.unwrap();
        assert_eq!(ssl.version.as_deref(), Some("TLSv1.3"));
        assert_eq!(ssl.cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
        assert_eq!((ssl.shown, ssl.in_session), (certificate.is_some() && !resumed, certificate.is_some()));
        assert_eq!(ssl.is_verified(), certificate.is_some());
        assert_eq!(ssl.cn.as_deref(), certificate);
        assert_eq!(ssl.dn.is_some(), certificate.is_some());
        // Itself too, for what its names do not say: a ticket has kept it. Only to brokers of the cluster.
        let sent = ssl.certificate.as_deref().map(CertificateDer::from);
        assert_eq!(sent.as_ref().and_then(evermq_daemon::tls::common_name).as_deref(), certificate);
        assert_eq!(header.alpn.as_deref(), certificate.map(|_| &b"mqtt"[..]));
        let mut answer = [0; 4];
        tls.read_exact(&mut answer).unwrap_or_else(|error| panic!("{certificate:?} {resumed} {error}"));
        assert_eq!(&answer, b"\x20\x02\x00\x00");
    }
}

#[test]
fn a_broker_with_tls_of_its_own_learns_it_too() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let mut config = config(&pki, "mode = \"reencrypt\"", Some(address), None);
    // As for every broker of the cluster; `lb.send_proxy` is for TLS that passes through.
    config.backends[0].send_proxy_plain = true;
    assert!(!config.backends[0].send_proxy);
    let lb = Running::start(config);
    let mut tls = client(&pki, lb.address);
    tls.write_all(CONNECT).unwrap();
    let (mut stream, _) = backend.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let header = loop {
        match proxy_protocol::parse_v2(&bytes) {
            Parsed::Header { header, .. } => break header,
            Parsed::NeedMore => {
                let mut more = vec![0; proxy_protocol::length_v2(&bytes) - bytes.len()];
                stream.read_exact(&mut more).unwrap();
                bytes.extend(more);
            }
            Parsed::Invalid(invalid) => panic!("{invalid}"),
        }
    };
    assert_eq!(header.source(), Some(tls.sock.local_addr().unwrap()));
    let ssl = header.ssl.unwrap();
    assert!(ssl.is_verified());
    assert_eq!(ssl.cn.as_deref(), Some("client"));
    assert!(ssl.dn.is_some_and(|dn| dn.contains("CN=client") && dn.contains("O=plant")));
    assert_eq!(ssl.certificate, None, "it is no broker of the cluster, and may not take headers of that length");
    // Behind it comes a ClientHello.
    let mut first = [0; 6];
    stream.read_exact(&mut first).unwrap();
    assert_eq!((first[0], first[5]), (22, 1));
}

#[test]
fn a_balancer_before_the_lb_may_speak_first() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let lb = terminating(&pki, "accept_proxy_from = [\"127.0.0.1\"]", address);
    for together in [true, false] {
        let mut tls = client(&pki, lb.address);
        let mut first = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\r\n".to_vec();
        if together {
            while tls.conn.wants_write() {
                tls.conn.write_tls(&mut first).unwrap();
            }
        }
        tls.sock.write_all(&first).unwrap();
        connected(tls, &backend);
    }
}
