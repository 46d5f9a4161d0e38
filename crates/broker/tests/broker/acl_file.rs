//! mosquitto's files, read by mosquitto and by this broker: the same clients, the same messages, the same outcome.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evermq_config::broker::Anonymous;
use evermq_mqtt::packet::{Connect, SubscriptionOptions};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};

use crate::client::{Client, connect, message, text, will};
use crate::running::{PATIENCE, Running, Site};

/// Who may do everything, and so sees everything.
const ADMIN: &str = "user admin\ntopic #\n";

struct Mosquitto {
    child: Child,
    address: SocketAddr,
}

impl Mosquitto {
    fn start(directory: &Path) -> Self {
        let address = evermq_ports::free_address();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npassword_file {directory}/passwords\nacl_file {directory}/acl\n",
            port = address.port(),
            directory = directory.display(),
        );
        let config = directory.join("mosquitto.conf");
        std::fs::write(&config, text).unwrap();
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed: apt-get install mosquitto");
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(evermq_broker::connection::clock() < deadline, "mosquitto does not listen");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Self { child, address }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Both kinds of hashes, made by mosquitto's own program; every password is "p".
fn make_passwords(directory: &Path, users: &[&str]) {
    let file = directory.join("passwords");
    std::fs::write(&file, "").unwrap();
    for (index, user) in users.iter().enumerate() {
        let mut command = Command::new("mosquitto_passwd");
        if index % 2 == 1 {
            command.args(["-H", "sha512"]);
        }
        let status = command.arg("-b").arg(&file).args([user, "p"]).stderr(Stdio::null()).status();
        assert!(status.expect("mosquitto_passwd is needed: apt-get install mosquitto").success());
    }
}

fn client(address: SocketAddr, user: Option<&str>, id: &str, password: &str) -> Result<Client, ReasonCode> {
    let hello = Connect {
        version: Version::V4,
        username: user.map(text),
        password: user.map(|_| password.as_bytes().to_vec().into()),
        ..connect(id)
    };
    let (client, connack) = Client::open(address, hello);
    if connack.reason == ReasonCode::Success { Ok(client) } else { Err(connack.reason) }
}

/// Which topics of `topics` get from `from` to `to`, which has subscribed to everything that it may.
fn through(from: &mut Client, to: &mut Client, topics: &[&str]) -> BTreeSet<String> {
    for topic in topics {
        from.publish(message(topic, ""), QoS::AtLeastOnce);
    }
    // What was acknowledged is on its way; the second answer comes after it.
    let mut got = BTreeSet::new();
    for _ in 0..2 {
        to.send(&Packet::PingReq);
        loop {
            match to.receive() {
                Packet::Publish(publish) => {
                    got.insert(publish.topic.to_string());
                }
                Packet::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
    }
    got
}

/// For each client: what it gets through, and what gets through to it.
fn outcome(address: SocketAddr, clients: &[(Option<&str>, &str)], topics: &[&str]) -> Vec<String> {
    let mut admin = client(address, Some("admin"), "admin", "p").unwrap();
    let mut writer = client(address, Some("admin"), "writer", "p").unwrap();
    admin.subscribe("#", SubscriptionOptions::default());
    let told = |(user, id): &(Option<&str>, &str)| {
        let mut client = client(address, *user, id, "p").unwrap();
        let written = through(&mut client, &mut admin, topics);
        // One filter for each topic, and some wide ones.
        let filters = topics.iter().copied().chain(["#", "+/+", "a/#", "+"]);
        let granted: Vec<_> = filters.map(|filter| client.subscribe(filter, SubscriptionOptions::default())).collect();
        let read = through(&mut writer, &mut client, topics);
        let text = format!("{user:?} {id}: write {written:?}, subscribe {granted:?}, read {read:?}");
        client.disconnect(ReasonCode::Success);
        // The admin's own copies.
        drain(&mut admin);
        text
    };
    clients.iter().map(told).collect()
}

fn drain(client: &mut Client) {
    for _ in 0..2 {
        client.send(&Packet::PingReq);
        while !matches!(client.receive(), Packet::PingResp) {}
    }
}

fn compare(acl: &str, users: &[&str], clients: &[(Option<&str>, &str)], topics: &[&str]) {
    let site = Site::new();
    let directory = site.directory.path();
    make_passwords(directory, users);
    std::fs::write(directory.join("acl"), acl).unwrap();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.broker.auth.password_file = Some(directory.join("passwords"));
    config.broker.auth.acl_file = Some(directory.join("acl"));
    config.broker.auth.anonymous = Anonymous::On;
    let (ours, theirs) = (Running::start(&config), Mosquitto::start(directory));
    for user in users {
        for password in ["p", "P", ""] {
            let get_in = |address| client(address, Some(user), "x", password).is_ok();
            assert_eq!(get_in(ours.plain), get_in(theirs.address), "{user} with {password:?}");
        }
    }
    assert_eq!(
        client(ours.plain, Some("unknown"), "x", "p").is_ok(),
        client(theirs.address, Some("unknown"), "x", "p").is_ok()
    );
    let (got, expected) = (outcome(ours.plain, clients, topics), outcome(theirs.address, clients, topics));
    assert_eq!(got.len(), clients.len());
    assert_eq!(got, expected, "with this file:\n{acl}");
}

#[test]
fn a_file_with_everything_in_it() {
    let acl = format!(
        "# Comments and blank lines.\n\ntopic read public/#\ntopic a\n\n\
         {ADMIN}\
         user anna\ntopic a/#\ntopic deny a/no/#\ntopic read b/+\ntopic   write   with blank/x\n\
         user bo+b\ntopic a/b\n\
         user empty\n\
         user anna\ntopic deny b/no\n\
         pattern readwrite c/%c/#\npattern write u/%u\npattern deny c/closed\npattern read p\npattern a%ub/%c\n"
    );
    let clients = [
        (None, "c1"),
        (None, "closed"),
        (None, "c+"),
        (Some("anna"), "c1"),
        (Some("anna"), "#"),
        (Some("anna"), "closed"),
        (Some("bo+b"), "c1"),
        (Some("empty"), "c1"),
        (Some("unlisted"), "c2"),
    ];
    let topics = [
        "public/x",
        "public",
        "a",
        "a/b",
        "a/no",
        "a/no/x",
        "b/x",
        "b/no",
        "b/x/y",
        "with blank/x",
        "c/c1",
        "c/c1/x",
        "c/c2",
        "c/closed",
        "c",
        "u/anna",
        "u/unlisted",
        "u/empty",
        "p",
        "aannab/c1",
        "aemptyb/c1",
        "x",
    ];
    compare(&acl, &["admin", "anna", "bo+b", "empty", "unlisted"], &clients, &topics);
}

#[test]
fn no_rules_at_all() {
    compare(ADMIN, &["admin", "anna"], &[(None, "c1"), (Some("anna"), "c1")], &["a", "a/b"]);
}

/// Files of chance, the same at each run.
#[test]
fn files_of_chance() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % bound
    };
    let kinds = ["", "read ", "write ", "readwrite ", "deny "];
    let filters = ["#", "a", "a/#", "a/+", "+/b", "a/b", "+", "b/#", "a/b/c", "+/+/c", "/", "/+"];
    let patterns = ["%c/#", "a/%c", "%u/b", "a/%u", "%u/%c", "+/%u", "b/%c/#"];
    let topics =
        ["a", "b", "a/b", "a/x", "b/b", "a/b/c", "x/y/c", "/", "/b", "x/b", "u1/b", "a/u1", "u2/x", "b/x/y", "x"];
    for _ in 0..6 {
        let mut acl = String::new();
        for user in [None, Some("u1"), Some("u2"), Some("u1")] {
            if let Some(user) = user {
                writeln!(acl, "user {user}").unwrap();
            }
            for _ in 0..next(4) {
                writeln!(acl, "topic {}{}", kinds[next(kinds.len())], filters[next(filters.len())]).unwrap();
            }
            if next(2) == 0 {
                writeln!(acl, "pattern {}{}", kinds[next(kinds.len())], patterns[next(patterns.len())]).unwrap();
            }
        }
        acl.push_str(ADMIN);
        let clients = [(None, "x"), (Some("u1"), "x"), (Some("u2"), "b"), (Some("u3"), "a")];
        compare(&acl, &["admin", "u1", "u2", "u3"], &clients, &topics);
    }
}

/// A will that may not be written: both let the client in, and leave it out.
#[test]
fn a_will_that_is_not_allowed() {
    let site = Site::new();
    let directory = site.directory.path();
    make_passwords(directory, &["admin", "anna"]);
    std::fs::write(directory.join("acl"), format!("{ADMIN}user anna\ntopic a\n")).unwrap();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.broker.auth.password_file = Some(directory.join("passwords"));
    config.broker.auth.acl_file = Some(directory.join("acl"));
    let (ours, theirs) = (Running::start(&config), Mosquitto::start(directory));
    for address in [ours.plain, theirs.address] {
        let mut admin = client(address, Some("admin"), "admin", "p").unwrap();
        admin.subscribe("#", SubscriptionOptions::default());
        // The one that is not allowed goes first, so that it would come first.
        for (topic, id) in [("b", "1"), ("a", "2")] {
            let connect = Connect {
                version: Version::V4,
                username: Some(text("anna")),
                password: Some("p".into()),
                will: Some(will(topic, 0)),
                ..connect(id)
            };
            let (dying, connack) = Client::open(address, connect);
            assert_eq!(connack.reason, ReasonCode::Success);
            dying.vanish();
        }
        assert_eq!(admin.message().0, "a");
        admin.expect_nothing();
    }
}
