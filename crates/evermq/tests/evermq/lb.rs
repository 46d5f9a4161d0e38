//! `evermq connections`, `backend`, `drain` and `reload` against a program that answers as the load balancer does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::program::{CLUSTER, Site};
use evermq_daemon::control::{self, Answer, Control, ControlError};
use evermq_daemon::health::Health;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Answers requests in turn, and keeps them.
pub(crate) struct Lb {
    asked: Arc<Mutex<Vec<Value>>>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Lb {
    #[expect(clippy::disallowed_methods, reason = "a deadline for what other tests' programs do")]
    pub(crate) fn start(
        site: &Site,
        socket: &str,
        answers: impl IntoIterator<Item = Result<Value, &'static str>>,
    ) -> Self {
        let path = site.path("run").join(socket);
        let deadline = Instant::now() + Duration::from_secs(20);
        // A program that another test is just starting holds the one before until its exec.
        let listener = loop {
            match control::bind(&path) {
                Err(ControlError::InUse(_)) if Instant::now() < deadline => std::thread::yield_now(),
                bound => break bound.unwrap(),
            }
        };
        let (_sender, health) = watch::channel(Health::Up);
        let answers: Mutex<VecDeque<_>> = Mutex::new(answers.into_iter().collect());
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&asked);
        let requests: control::Requests = Arc::new(move |_, request| {
            kept.lock().unwrap().push(request.clone());
            Some(match answers.lock().unwrap().pop_front() {
                Some(Ok(value)) => Answer::Ok(value),
                Some(Err(text)) => Answer::Error(text.to_owned()),
                None => Answer::Error("asked once too often".to_owned()),
            })
        });
        let control = Control { state: Arc::new(|| Value::Null), health, requests };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control::serve(listener, control, token)).unwrap();
        });
        Self { asked, shutdown, thread: Some(thread) }
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Lb {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn row(id: u64) -> Value {
    json!({ "id": id, "client": "192.0.2.1:40000", "listener": "main", "backend": "broker1", "phase": "relaying",
        "age_ms": 5000, "idle_ms": 0, "bytes_in": 10, "bytes_out": 20 })
}

fn shown(rows: &[Value]) -> Result<Value, &'static str> {
    Ok(json!({ "host": "lb1", "total": 9, "connections": rows }))
}

#[test]
fn connections_are_listed_as_asked_for() {
    let site = Site::new(CLUSTER);
    let ask = |words: &str| site.evermq(&format!("connections --config evermq.toml --host lb1 {words}"));
    let mut rated = row(8);
    rated["rate"] = json!(2000);
    let lb = Lb::start(
        &site,
        "lb.sock",
        [shown(&[row(7)]), shown(&[row(7)]), shown(&[rated.clone()]), shown(&[row(8)]), shown(&[rated])],
    );
    let text = ask("").good();
    assert!(
        text.starts_with("ID  CLIENT")
            && text.contains("\n7   192.0.2.1:40000  main      broker1")
            && !text.contains("RATE"),
        "{text}"
    );
    assert!(text.ends_with("lb1: 1 of 9 shown\n"), "{text}");
    let first = &lb.asked()[0];
    assert_eq!((&first["sort"], &first["limit"], &first["over_ms"]), (&json!("bytes"), &json!(20), &json!(0)));

    let json = ask("--json --backend broker1 --source 192.0.2.0/24 --listener main --sort age --limit 3").json();
    assert_eq!(json["connections"][0]["id"], 7);
    let second = &lb.asked()[0];
    assert_eq!(
        (&second["backend"], &second["source"], &second["listener"]),
        (&json!("broker1"), &json!("192.0.2.0/24"), &json!("main"))
    );

    assert!(ask("--sort rate").good().contains("2.0k/s"));
    assert_eq!(lb.asked()[0]["over_ms"], 1000);

    let top = ask("--top --interval 2 --count 2").good();
    assert_eq!((top.matches("ID  CLIENT").count(), top.matches("RATE").count()), (2, 1), "{top}");
    let asked: Vec<Value> = lb.asked().iter().map(|one| one["over_ms"].clone()).collect();
    assert_eq!(asked, [json!(0), json!(2000)]);
}

#[test]
fn connections_are_closed_by_number() {
    let site = Site::new(CLUSTER);
    let answers = [
        Ok(json!({ "host": "lb1", "closed": [7], "unknown": [9] })),
        Ok(json!({ "host": "lb1", "closed": [7], "unknown": [] })),
    ];
    let lb = Lb::start(&site, "lb.sock", answers);
    let ended = site.evermq("connections close 7 9 --config evermq.toml --host lb1");
    assert_eq!((ended.status, ended.stdout.as_str()), (1, "closed 1 of 2\n"), "{ended:#?}");
    assert!(ended.stderr.contains("not connected any more, or never: 9"), "{ended:#?}");
    assert_eq!(lb.asked()[0]["ids"], json!([7, 9]));
    assert_eq!(site.evermq("connections close 7 --config evermq.toml --host lb1").good(), "closed 1 of 1\n");
    assert!(site.evermq("connections close --config evermq.toml").bad(2).contains("<ID>"));
}

pub(crate) fn broker(connections: u64, state: &str) -> Result<Value, &'static str> {
    Ok(
        json!({ "host": "lb1", "name": "broker1", "state": state, "standing": "up", "weight": 1, "weight_by_hand": false,
        "connections": connections, "drain_rate": 100, "refuge": true, "peers": [] }),
    )
}

#[test]
fn a_broker_is_set_and_shown() {
    let site = Site::new(CLUSTER);
    let lb = Lb::start(
        &site,
        "lb.sock",
        [broker(3, "ready"), broker(3, "maint"), Err("there is no broker \"x\"; there are: broker1")],
    );
    let ask = |words: &str| site.evermq(&format!("backend {words} --config evermq.toml --host lb1"));
    assert!(ask("broker1").good().starts_with("broker1 on lb1: ready; health up, weight 1, 3 connections"));
    ask("broker1 --state maint --weight 7").good();
    let asked = lb.asked();
    assert_eq!(asked[0], json!({ "request": "backend", "name": "broker1" }));
    assert_eq!(asked[1], json!({ "request": "backend", "name": "broker1", "state": "maint", "weight": 7 }));
    assert!(ask("x --weight file").bad(1).contains("evermq-lb: there is no broker \"x\"; there are: broker1"));
    assert_eq!(lb.asked()[0]["weight"], "file");
    assert!(ask("broker1 --weight 70000").bad(2).contains("0 to 65535"));
}

#[test]
fn a_drain_is_waited_for_and_undone() {
    let site = Site::new(CLUSTER);
    let ask = |words: &str| site.evermq(&format!("drain broker1 {words} --config evermq.toml --host lb1"));
    let lb =
        Lb::start(&site, "lb.sock", [broker(30, "drain"), broker(10, "drain"), broker(0, "drain"), broker(0, "ready")]);
    assert!(ask("--rate 100 --wait").good().contains("broker1 on lb1: drain, 100 connections moved in a second"));
    let asked = lb.asked();
    assert_eq!(asked[0], json!({ "request": "backend", "name": "broker1", "state": "drain", "rate": 100 }));
    assert_eq!(asked[1], json!({ "request": "backend", "name": "broker1" }));
    assert_eq!(asked.len(), 3);
    ask("--undo").good();
    assert_eq!(lb.asked()[0]["state"], "ready");
    assert!(ask("--undo --wait").bad(2).contains("--wait"));
    assert!(ask("--moved").bad(1).contains("run this there: `ssh broker1 evermq"));
    drop(lb);

    let mut alone = broker(5, "drain").unwrap();
    alone["refuge"] = json!(false);
    let _lb = Lb::start(&site, "lb.sock", [Ok(alone), broker(5, "ready")]);
    let said = ask("--wait").bad(1);
    assert!(
        said.contains("no other broker of its group takes clients: 5 stay") && said.contains("does not drain any more"),
        "{said}"
    );
}

#[test]
fn clients_are_evened_out_when_an_operator_says_so() {
    let site = Site::new(CLUSTER);
    let ask = |words: &str| site.evermq(&format!("rebalance {words} --config evermq.toml --host lb1"));
    let groups = json!([{ "name": "brokers", "moves": 30 }, { "name": "legacy", "moves": 0 }]);
    let begun = json!({ "host": "lb1", "rate": 10, "groups": groups });
    let lb = Lb::start(&site, "lb.sock", [Ok(begun.clone()), Ok(begun), Err("clients belong where they are")]);
    assert_eq!(ask("").good(), "brokers: 30 clients to move, 10 in a second, about 3 s\nlegacy: nothing to move\n");
    assert!(ask("--rate 10 --json").good().contains("\"moves\""));
    let asked = lb.asked();
    assert_eq!(asked, [json!({ "request": "rebalance", "rate": null }), json!({ "request": "rebalance", "rate": 10 })]);
    assert!(ask("").bad(1).contains("evermq-lb: clients belong where they are"));
    assert!(ask("--rate 0").bad(2).contains("--rate"));
}

#[test]
fn what_cannot_be_asked_here_says_where_to_ask() {
    let site = Site::new(CLUSTER);
    let away = site.evermq("connections --config evermq.toml --host lb2").bad(1);
    assert!(
        away.contains("lb2 is not this machine")
            && away.contains("`ssh lb2 evermq ...`")
            && away.contains("evermq lab exec lb2"),
        "{away}"
    );
    let _lb = Lb::start(&site, "lb.sock", [shown(&[])]);
    let other = site.evermq("connections --config evermq.toml --host lb2").bad(1);
    assert!(other.contains("is the control socket of lb1, not of lb2"), "{other}");
    let broker = site.evermq("drain broker2 --config evermq.toml --host broker1").bad(1);
    assert!(
        broker.contains("broker2 cannot be asked from here: the cluster file has no admin.listen")
            && broker.contains("`ssh broker2 evermq ...`"),
        "{broker}"
    );
}

#[test]
fn reload_asks_every_program_of_the_host_that_reloads() {
    let site = Site::new(CLUSTER);
    let ask = |words: &str| site.evermq(&format!("reload --config evermq.toml --host lb1 {words}"));
    let lb = Lb::start(
        &site,
        "lb.sock",
        [
            Ok(json!({ "host": "lb1", "changed": true, "applied": ["lb.balance"], "restart": ["lb.workers"] })),
            Err("evermq.toml:3:1: error: no"),
        ],
    );
    let vip = Lb::start(&site, "vip.sock", [Ok(json!({ "changed": false })), Ok(json!({ "changed": false }))]);
    assert_eq!(
        ask("").good(),
        "evermq-lb: the file is in force, but for what needs a restart: lb.workers\n\
         evermq-vip: the file says nothing else for this host\n"
    );
    assert_eq!((lb.asked().len(), vip.asked().len()), (1, 1));
    let refused = ask("--json");
    assert_eq!(refused.status, 1, "{refused:#?}");
    let json = refused.json();
    assert_eq!(
        (&json["host"], &json["programs"][0]["reloaded"], &json["programs"][1]["reloaded"]),
        (&json!("lb1"), &json!(false), &json!(true))
    );
    assert!(json["programs"][0]["error"].as_str().unwrap().contains("evermq.toml:3:1"));
    drop((lb, vip));
    let gone = ask("").bad(1);
    assert!(gone.contains("systemctl start evermq-lb") && gone.contains("systemctl start evermq-vip"), "{gone}");
    let broker = site.evermq("reload --config evermq.toml --host broker1").bad(1);
    assert!(broker.contains("systemctl start evermq-broker"), "{broker}");
}
