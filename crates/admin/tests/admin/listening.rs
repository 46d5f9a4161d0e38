//! Where an endpoint listens, and what a reload changes of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::site::{Site, eventually};

/// Another address of this machine that is free.
fn another() -> SocketAddr {
    evermq_ports::free_on([Ipv4Addr::LOCALHOST.into()])[0]
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

fn listen(site: &Site, address: impl std::fmt::Display) -> Result<Value, String> {
    site.write_for("lb1", &format!("listen = \"{address}\""));
    site.reload("lb1")
}

#[test]
fn another_address_is_taken_over_and_who_is_in_gets_his_answer() {
    let site = Site::new("");
    let _lb = site.program("lb1", "lb", json!({}));
    let _endpoint = site.start("lb1");
    let (old, new) = (site.address("lb1"), another());
    // A request that has begun.
    let mut inside = site.open("lb1", Some("admin"));
    inside.write_all(b"GET /icon.svg HTTP/1.1\r\nhost: lb1\r\n").unwrap();
    eventually("it is in", || (site.get("lb1", Some("admin"), "/icon.svg")?.status == 200).then_some(()));

    let done = listen(&site, new).unwrap();
    assert_eq!(done, json!({ "host": "lb1", "changed": true, "restart": [] }));
    assert!(listens(new));
    eventually("the old one is closed", || (!listens(old)).then_some(()));
    assert_eq!(site.request("lb1", "state").unwrap()["listen"], json!(new));
    assert_eq!(site.at(new, "/api/host").json()["report"]["programs"][1]["program"], "evermq-lb");
    inside.write_all(b"\r\n").unwrap();
    let mut first = [0; 12];
    inside.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    // One that covers it, and back: both have the same port.
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, new.port()));
    listen(&site, all).unwrap();
    eventually("every address is served", || listens((Ipv4Addr::new(127, 0, 0, 3), new.port()).into()).then_some(()));
    assert_eq!(site.at(new, "/icon.svg").status, 200);
    listen(&site, new).unwrap();
    eventually("one address is", || (!listens((Ipv4Addr::new(127, 0, 0, 3), new.port()).into())).then_some(()));
    assert_eq!(site.at(new, "/icon.svg").status, 200);
}

#[test]
fn one_that_cannot_be_had_is_refused_and_the_old_one_stays() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    for (address, words) in [
        (address.to_string(), "another program has port"),
        ("192.0.2.1:9003".to_owned(), "is no address of this host"),
        ("9003".to_owned(), "an address and a port"),
    ] {
        let refused = listen(&site, &address).unwrap_err();
        assert!(refused.contains(words), "{address}: {refused}");
        assert_eq!(site.request("lb1", "state").unwrap()["listen"], json!(site.address("lb1")));
        assert_eq!(site.get("lb1", Some("admin"), "/icon.svg").unwrap().status, 200);
    }
    // What is wrong elsewhere leaves it where it is too, and the new address is nobody's.
    let new = another();
    site.write_for("lb1", &format!("listen = \"{new}\"\n[broker]\nauth.crl = \"none.pem\""));
    let refused = site.reload("lb1").unwrap_err();
    assert!(refused.contains("none.pem"), "{refused}");
    assert!(!listens(new) && listens(site.address("lb1")));
}

#[test]
fn from_none_to_some_and_back() {
    let site = Site::new("");
    let _lb = site.program("lb1", "lb", json!({}));
    site.write_for("lb1", "");
    let _endpoint = site.start_unheard("lb1");
    let state = eventually("it runs", || site.request("lb1", "state").ok());
    assert_eq!(state["listen"], Value::Null);
    for _ in 0..2 {
        let address = another();
        listen(&site, address).unwrap();
        let report = site.at(address, "/api/host").json();
        assert_eq!(report["report"]["programs"][1]["health"], "up", "the lb is asked: {report}");
        site.write_for("lb1", "");
        assert_eq!(site.reload("lb1").unwrap()["changed"], true);
        eventually("nothing is served", || (!listens(address)).then_some(()));
        assert_eq!(site.request("lb1", "state").unwrap()["listen"], Value::Null);
    }
}
