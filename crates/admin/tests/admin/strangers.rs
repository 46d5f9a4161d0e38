//! What strangers can do to an endpoint: each bound, by Python's TLS and HTTP, and by openssl.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use evermq_admin::endpoint::{
    BODY_TIMEOUT, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, MAX_BODY, MAX_CONNECTIONS, MAX_HEAD, MAX_STRANGERS,
};
use serde_json::{Value, json};

use crate::site::{Site, eventually};

/// `stranger.py`, while it runs.
struct Stranger {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Stranger {
    fn start(site: &Site, what: &str, who: &str, number: usize) -> Self {
        let address = site.address("lb1");
        let mut child = Command::new("python3")
            .args(["-c", include_str!("stranger.py"), what])
            .arg(site.path(""))
            .args([&address.ip().to_string(), &address.port().to_string(), who, &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test needs python3");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// What it does, to its end.
    fn ask(site: &Site, what: &str, who: &str) -> Value {
        Self::start(site, what, who, 1).said()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn said(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Until it has begun what it does.
    fn is_open(&mut self) {
        assert_eq!(self.line(), "open");
    }

    fn go_on(&mut self) {
        drop(self.input.take());
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Long before a stranger's time is over.
fn at_once(answer: &Value) -> bool {
    answer["took"].as_f64().unwrap() < HANDSHAKE_TIMEOUT.as_secs_f64() / 2.0
}

#[test]
fn handshakes_that_do_not_go_on_keep_nobody_out() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    let mut slow = Stranger::start(&site, "slow", "-", 200);
    slow.is_open();
    let answer = Stranger::ask(&site, "ask", "admin");
    assert!(answer["status"] == 200 && at_once(&answer), "{answer}");
    slow.go_on();
    let said = slow.said();
    assert!(said["still"].as_u64().unwrap() <= u64::try_from(MAX_STRANGERS).unwrap(), "{said}");
    assert_eq!(said["at_last"], 0, "each has its time and no more");
}

#[test]
fn two_hundred_at_once_are_as_many_as_there_may_be() {
    let site = Site::new("readers = [\"prometheus\"]");
    let _endpoint = site.start("lb1");
    let mut crowd = Stranger::start(&site, "crowd", "prometheus", 200);
    let said = crowd.said();
    assert_eq!(said, json!({ "inside": MAX_CONNECTIONS, "still": MAX_CONNECTIONS }));
    crowd.is_open();
    crowd.go_on();
    drop(crowd);
    eventually("there is room again", || (Stranger::ask(&site, "ask", "admin")["status"] == 200).then_some(()));
}

#[test]
fn who_has_no_name_makes_room_for_who_has_one() {
    let site = Site::new("anonymous_read = true");
    let _endpoint = site.start("lb1");
    let mut crowd = Stranger::start(&site, "crowd", "-", 200);
    let said = crowd.said();
    assert!(said["still"].as_u64().unwrap() <= u64::try_from(MAX_CONNECTIONS).unwrap(), "{said}");
    crowd.is_open();
    let answer = Stranger::ask(&site, "ask", "admin");
    assert!(answer["status"] == 200 && at_once(&answer), "{answer}");
}

#[test]
fn a_device_is_refused_once_and_holds_no_place() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    let refused = Stranger::ask(&site, "ask", "device");
    assert_eq!((&refused["status"], &refused["closes"]), (&json!(403), &json!(true)), "{refused}");
    assert_eq!(Stranger::ask(&site, "post", "device")["own"], 403);
    // As many as came in get a refusal each, and not one stays.
    let mut crowd = Stranger::start(&site, "crowd", "device", 200);
    assert_eq!(crowd.said()["still"], 0);
    crowd.is_open();
    let answer = Stranger::ask(&site, "ask", "admin");
    assert!(answer["status"] == 200 && at_once(&answer), "{answer}");
}

#[test]
fn heads_and_bodies_have_their_bounds() {
    let site = Site::new("");
    let lb = site.program("lb1", "lb", json!({}));
    let _endpoint = site.start("lb1");
    let said = Stranger::ask(&site, "request", "admin");
    for (kind, status) in
        [("one header", 431), ("many headers", 431), ("path", 431), ("length", 413), ("chunks", 413), ("no body", 408)]
    {
        assert_eq!(said[kind]["status"], status, "{kind}: {said}");
    }
    let took = said["no body"]["took"].as_f64().unwrap();
    assert!((BODY_TIMEOUT.as_secs_f64()..BODY_TIMEOUT.as_secs_f64() * 3.0).contains(&took), "{said}");
    assert_eq!(lb.asked.lock().unwrap().len(), 0);

    // Up to them they are taken.
    let post = |body: &str| site.post("lb1", "admin", "/api/drain", "content-type: application/json\r\n", body).status;
    let body = r#"{"broker":"broker1","state":"drain"}"#;
    assert_eq!(post(&format!("{body:MAX_BODY$}")), 200);
    assert_eq!(post(&format!("{body:width$}", width = MAX_BODY + 1)), 413);
    let head =
        |bytes: usize| format!("GET /icon.svg HTTP/1.1\r\nconnection: close\r\nx: {}\r\n\r\n", "a".repeat(bytes));
    assert_eq!(site.ask("lb1", Some("admin"), &head(MAX_HEAD - 200)).unwrap().status, 200);
    assert_eq!(site.ask("lb1", Some("admin"), &head(MAX_HEAD * 2)).unwrap().status, 431);
}

#[test]
fn a_head_has_its_time() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    let took = Stranger::ask(&site, "trickle", "admin")["took"].as_f64().unwrap();
    let bound = HEADER_TIMEOUT.as_secs_f64();
    assert!((bound - 1.0..bound + 10.0).contains(&took), "{took}");
}

#[test]
fn a_page_from_elsewhere_does_nothing() {
    let site = Site::new("");
    let lb = site.program("lb1", "lb", json!({}));
    let _endpoint = site.start("lb1");
    let said = Stranger::ask(&site, "post", "admin");
    let expected = json!({ "own": 200, "elsewhere": 403, "same name, plain": 403, "another port": 403, "null": 403,
        "form": 403 });
    assert_eq!(said, expected);
    assert_eq!(lb.asked.lock().unwrap().len(), 1);
}

#[test]
fn without_tls_there_is_nothing() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    assert_eq!(Stranger::ask(&site, "plain", "-"), json!({ "http": false, "mqtt": false, "nothing": false }));
    let openssl = |more: &[&str]| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &site.address("lb1").to_string(), "-CAfile"])
            .arg(site.path("ca.crt"))
            .args(more)
            .stdin(Stdio::null())
            .output()
            .expect("the test needs openssl");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (version, words) in [("-tls1_2", "certificate required"), ("-tls1_1", "no peer certificate available")] {
        let said = openssl(&[version]);
        assert!(said.contains(words), "{version}: {said}");
    }
    assert_eq!(Stranger::ask(&site, "ask", "admin")["status"], 200);
}
