//! `evermq clients`, `sessions`, `subscriptions`, `retained`, `kick` and `trace` against a program that answers as the broker
//! does. The real one is asked in the end-to-end tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::program::{CLUSTER, Ended, Site};
use evermq_daemon::control::{self, Answer, Control};
use evermq_daemon::health::Health;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Answers requests in turn with these lines, and keeps the requests.
struct Broker {
    site: Site,
    asked: Arc<Mutex<Vec<Value>>>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    fn start(answers: impl IntoIterator<Item = Vec<Value>>) -> Self {
        let site = Site::new(CLUSTER);
        let listener = control::bind(&site.path("run").join("broker.sock")).unwrap();
        let (_sender, health) = watch::channel(Health::Up);
        let answers: Mutex<VecDeque<Vec<Value>>> = Mutex::new(answers.into_iter().collect());
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&asked);
        let requests: control::Requests = Arc::new(move |_, request| {
            kept.lock().unwrap().push(request.clone());
            let lines =
                answers.lock().unwrap().pop_front().unwrap_or_else(|| vec![json!({ "error": "once too often" })]);
            let (sender, receiver) = mpsc::channel(lines.len().max(1));
            for line in lines {
                sender.try_send(line).unwrap();
            }
            Some(Answer::Stream(receiver))
        });
        let control = Control { state: Arc::new(|| Value::Null), health, requests };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control::serve(listener, control, token)).unwrap();
        });
        Self { site, asked, shutdown, thread: Some(thread) }
    }

    fn run(&self, words: &str) -> Ended {
        self.site.evermq(&format!("{words} --config evermq.toml --host broker1"))
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn client(name: &str) -> Value {
    json!({ "client": name, "user": "alice", "address": "192.0.2.1:40000", "listener": "plain", "version": "5.0",
        "keep_alive_s": 60, "connected_ms": 61_000, "idle_ms": 500, "inflight": 1, "queued": 2, "subscriptions": 3,
        "messages_in": 4, "messages_out": 5, "bytes_in": 6000, "bytes_out": 7 })
}

/// The answer with the first or only page of `name`.
fn page(name: &str, rows: &[Value], next: Value) -> Vec<Value> {
    vec![json!({ "ok": { "host": "broker1", name: rows, "next": next } })]
}

#[test]
fn clients_are_listed_page_by_page() {
    let broker = Broker::start([
        page("clients", &[client("a")], json!([3, 7, 0])),
        page("clients", &[], json!([9, 0, 0])),
        page("clients", &[client("b")], Value::Null),
        page("clients", &[client("a")], json!([3, 7, 0])),
        page("clients", &[], Value::Null),
        page("clients", &[client("a")], json!([3, 7, 0])),
        page("clients", &[client("b")], Value::Null),
    ]);
    let text = broker.run("clients --all me* --user al* --listener plain").good();
    assert!(text.starts_with("CLIENT  USER   ADDRESS          LISTENER  MQTT  KEEP"), "{text}");
    assert!(text.contains("\na       alice  192.0.2.1:40000  plain     5.0   60s   1m01s  500ms  1"), "{text}");
    assert!(text.contains("\nb ") && text.ends_with("broker1: 2 clients\n"), "{text}");
    let asked = broker.asked();
    assert_eq!(
        (&asked[0]["client"], &asked[0]["user"], &asked[0]["listener"]),
        (&json!("me*"), &json!("al*"), &json!("plain"))
    );
    assert_eq!((&asked[1]["from"], &asked[2]["from"]), (&json!([3, 7, 0]), &json!([9, 0, 0])));

    let one = broker.run("clients --limit 1").good();
    assert!(one.ends_with("broker1: 1 shown, and there are more: --limit N or --all\n"), "{one}");
    assert_eq!(broker.asked()[0]["limit"], 1);
    let none = broker.run("clients --json");
    assert_eq!(none.json(), json!({ "host": "broker1", "clients": [], "more": false }));
    let two = broker.run("clients --json --all");
    assert_eq!(two.json(), json!({ "host": "broker1", "clients": [client("a"), client("b")], "more": false }));
}

#[test]
fn the_first_clients_by_an_order_again_and_again() {
    let mut rated = client("a");
    rated["rate"] = json!(2000);
    let top = |row: &Value| vec![json!({ "ok": { "host": "broker1", "total": 9, "clients": [row] } })];
    let broker = Broker::start([top(&client("a")), top(&rated), top(&client("a"))]);
    let text = broker.run("clients --top --count 2 --interval 3 --limit 5").good();
    assert!(text.matches("CLIENT").count() == 2 && text.matches("RATE").count() == 1, "{text}");
    assert!(text.contains("2.0k/s") && text.ends_with("broker1: 1 of 9 shown\n"), "{text}");
    let asked: Vec<_> = broker.asked().iter().map(|one| (one["sort"].clone(), one["over_ms"].clone())).collect();
    assert_eq!(asked, [(json!("bytes"), json!(0)), (json!("rate"), json!(3000))]);
    broker.run("clients --sort queued").good();
    assert_eq!(broker.asked()[0]["sort"], "queued");
    assert!(broker.run("clients --sort size").bad(2).contains("size"));
}

#[test]
fn sessions_and_subscriptions_are_listed() {
    let away = json!({ "client": "s", "connected": false, "expiry_s": 3600, "expires_in_ms": 59_000, "queued": 7,
        "inflight": 0, "subscriptions": 1, "will": true });
    let subscription = json!({ "client": "s", "connected": true, "filter": "$share/g/a/#", "qos": 1, "no_local": false,
        "retain_as_published": true, "id": null });
    let broker =
        Broker::start([page("sessions", &[away], Value::Null), page("subscriptions", &[subscription], Value::Null)]);
    let text = broker.run("sessions").good();
    assert!(text.contains("\ns       -     no         1h00m   59s      7       0         1     yes\n"), "{text}");
    let text = broker.run("subscriptions --topic a/b --client s*").good();
    assert!(text.contains("\ns       yes        1    no        yes           -   $share/g/a/#\n"), "{text}");
    let asked = broker.asked();
    assert_eq!((&asked[1]["topic"], &asked[1]["client"]), (&json!("a/b"), &json!("s*")));
}

#[test]
fn retained_messages_are_listed_and_deleted() {
    let kept = json!({ "topic": "r/1", "qos": 1, "bytes": 3, "age_ms": 2000, "expires_in_ms": null, "origin": "broker1",
        "payload": { "text": "a\u{1b}b" }, "payload_truncated": false });
    let broker = Broker::start([
        page("retained", &[kept], Value::Null),
        vec![json!({ "ok": { "host": "broker1", "found": true } })],
        vec![json!({ "ok": { "host": "broker1", "found": false } })],
    ]);
    let text = broker.run("retained r/+ --values").good();
    assert!(text.contains("\n1    3      2s   -        broker1  r/1    a?b\n"), "{text}");
    assert!(text.ends_with("broker1: 1 retained messages\n"), "{text}");
    assert_eq!((&broker.asked()[0]["filter"], broker.asked().len()), (&json!("r/+"), 0));
    assert!(broker.run("retained --delete r/1").bad(1).contains("--yes"));
    assert!(broker.asked().is_empty());
    assert_eq!(broker.run("retained --delete r/1 --yes").good(), "deleted the retained message of r/1\n");
    assert_eq!(broker.asked()[0], json!({ "request": "forget", "topic": "r/1" }));
    assert!(broker.run("retained --delete r/1 --yes").bad(1).contains("there is no retained message of r/1"));
}

#[test]
fn a_client_is_told_to_go() {
    let answers = [true, false].map(|found| vec![json!({ "ok": { "host": "broker1", "found": found } })]);
    let broker = Broker::start(answers);
    assert_eq!(broker.run("kick m --session --reason old").good(), "m was told to go, its session has ended\n");
    let asked = &broker.asked()[0];
    assert_eq!((&asked["client"], &asked["session"], &asked["reason"]), (&json!("m"), &json!(true), &json!("old")));
    assert!(broker.run("kick m").bad(1).contains("m is not connected on broker1"));
}

#[test]
fn a_trace_is_shown_until_it_ends() {
    let begun = json!({ "ok": { "host": "broker1", "client": "m", "connected": false } });
    let ping = json!({ "at_ms": 1000, "direction": "in", "packet": "PINGREQ", "bytes": 2 });
    let broker = Broker::start([
        vec![begun.clone(), ping.clone()],
        vec![begun, ping.clone()],
        vec![json!({ "error": "16 traces run already" })],
        vec![json!({ "ok": { "host": "broker2", "client": "m", "connected": true } })],
    ]);
    let ended = broker.run("trace m --for 10m --payload");
    assert_eq!((ended.status, ended.stdout.as_str()), (0, "00:00:01.000 < PINGREQ bytes=2\n"), "{ended:#?}");
    assert!(ended.stderr.contains("m is not connected yet; following it for 600 s"), "{ended:#?}");
    let asked = &broker.asked()[0];
    assert_eq!((&asked["for_ms"], &asked["payload"]), (&json!(600_000), &json!(true)));
    assert_eq!(broker.run("trace m --json").json(), ping);
    assert!(broker.run("trace m").bad(1).contains("evermq-broker: 16 traces run already"));
    assert!(broker.run("trace m").bad(1).contains("control socket of broker2, not of broker1"));
    assert!(broker.run("trace m --for 2d").bad(2).contains("at most a day"));
}

#[test]
fn a_broker_is_drained_on_its_own_host_until_it_may_be_stopped() {
    let answer = |state: &str, clients: u64, may_stop: bool| {
        vec![
            json!({ "ok": { "host": "broker1", "state": state, "clients": clients, "rate": 100, "refuge": clients != 7,
            "may_stop": may_stop, "unacknowledged": 0, "kept_for_brokers_away": 0 } }),
        ]
    };
    let broker = Broker::start([
        answer("draining", 7, false),
        answer("draining", 5, false),
        answer("drained", 0, true),
        answer("ready", 0, false),
        answer("draining", 3, false),
        answer("ready", 3, false),
    ]);
    let done = broker.run("drain broker1 --rate 100 --wait --moved --json");
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap()["may_stop"], true, "{done:#?}");
    assert!(done.stderr.contains("no other broker is linked to broker1: 7 clients stay"), "{done:#?}");
    assert!(done.stderr.contains("\"clients\":5"), "{done:#?}");
    let asked = broker.asked();
    assert_eq!(asked[0], json!({ "request": "drain", "state": "drain", "rate": 100, "moved": true }));
    assert_eq!(asked[1..], [json!({ "request": "drain" }), json!({ "request": "drain" })]);
    assert_eq!(broker.run("drain broker1 --undo").good(), "broker1: ready, 0 clients\n");
    assert_eq!(broker.asked()[0]["state"], "ready");
    assert!(broker.run("drain broker1 --wait").bad(1).contains("broker1 does not drain any more; it has 3 clients"));
}
