//! What hosts say of each other.

use evermq_daemon::health::Health;
use serde_json::{Value, json};

use crate::site::{Site, eventually};

fn master() -> Value {
    json!({ "instances": [{ "name": "vip", "state": "master", "since": "2026-11-23T15:20:11.250Z" }] })
}

fn lb() -> Value {
    let backend = json!({ "name": "broker1", "state": "up", "admin": "ready", "connections": 4 });
    json!({ "connections": { "current": 4 }, "backends": [backend] })
}

fn broker() -> Value {
    let messages = json!({ "from_clients": 100, "to_clients": 200 });
    json!({ "connections": 4, "readiness": "ready", "messages": messages, "bridge": { "peers": [] } })
}

#[test]
fn each_host_shows_all_of_them() {
    let site = Site::new("");
    let (_vip, _lb) = (site.program("lb1", "vip", master()), site.program("lb1", "lb", lb()));
    let broker = site.program("broker1", "broker", broker());
    let _one = site.start("lb1");
    let other = site.start("broker1");
    for host in ["lb1", "broker1"] {
        let overview = site.get(host, Some("admin"), "/api/cluster").unwrap().json()["overview"].clone();
        assert_eq!((&overview["verdict"], &overview["reasons"]), (&json!("up"), &json!([])), "{host}");
        assert_eq!(overview["vips"][0]["holders"], json!(["lb1"]));
        assert_eq!(overview["hosts"][0]["lb_connections"], 4);
        assert_eq!(overview["hosts"][1]["broker_connections"], 4);
        assert!(overview["certificate_days"].is_i64());
    }
    // A rate takes two looks.
    let rates = eventually("there is a rate", || {
        let answer = site.get("lb1", Some("admin"), "/api/host").unwrap().json();
        assert_eq!(answer["report"]["programs"][0]["program"], "evermq-vip");
        let own = site.get("broker1", Some("admin"), "/api/host").unwrap().json();
        own["report"]["programs"][0]["rates"].as_object().cloned()
    });
    assert_eq!(Value::from(rates), json!({ "in": 0.0, "out": 0.0 }));

    let row = |host: &str, wanted: &str| {
        eventually(wanted, || {
            let shown = site.get(host, Some("admin"), "/api/cluster").unwrap().json();
            (shown["overview"]["hosts"][1]["state"] == wanted).then_some(shown)
        })
    };
    broker.health.send(Health::Degraded).unwrap();
    let shown = row("lb1", "degraded");
    assert_eq!(shown["overview"]["verdict"], "degraded");
    drop(broker);
    let shown = row("lb1", "down");
    assert_eq!(
        (&shown["overview"]["verdict"], &shown["overview"]["reasons"][0]),
        (&json!("down"), &json!("no broker answers"))
    );
    drop(other);
    let shown = row("lb1", "silent");
    let note = shown["overview"]["hosts"][1]["notes"][0].as_str().unwrap();
    assert!(note.contains("does evermq-admin run there?") || note.contains("does not answer"), "{note}");
}

#[test]
fn figures_of_each_program_are_there_for_prometheus() {
    let site = Site::new("");
    let _lb = site.program("lb1", "lb", lb());
    let _endpoint = site.start("lb1");
    let figures = site.get("lb1", Some("broker1"), "/metrics/lb").unwrap();
    assert_eq!((figures.status, figures.body.as_str()), (200, "up 1\n"));
    assert!(figures.head.contains("content-type: text/plain; version=0.0.4"), "{}", figures.head);
    assert_eq!(site.get("lb1", Some("broker1"), "/metrics/broker").unwrap().status, 404);
    assert_eq!(site.get("lb1", Some("broker1"), "/metrics/vip").unwrap().status, 502);
}
