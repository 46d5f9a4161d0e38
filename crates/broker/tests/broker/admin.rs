//! What an operator sees of clients, sessions, subscriptions and retained messages, and can do to them.

use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, Version};
use serde_json::{Value, json};

use crate::client::{Client, connect, message, resume, will};
use crate::running::{PATIENCE, Running, start, start_two};

/// All rows, page by page.
fn all(broker: &Running, name: &str, mut request: Value) -> Vec<Value> {
    request["request"] = name.into();
    let mut rows = Vec::new();
    loop {
        let answer = broker.ask(&request);
        rows.extend(answer[name].as_array().unwrap().iter().cloned());
        if answer["next"].is_null() {
            return rows;
        }
        request["from"] = answer["next"].clone();
    }
}

fn names<'a>(rows: &'a [Value], key: &str) -> Vec<&'a str> {
    let mut names: Vec<_> = rows.iter().map(|row| row[key].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn clients_are_shown_with_what_they_do() {
    let (site, broker) = start();
    let mut asked = connect("meter-1");
    asked.keep_alive = 30;
    let (mut meter, _) = Client::open(broker.plain, asked);
    meter.subscribe_at("a/#", QoS::AtLeastOnce);
    meter.subscribe_at("b", QoS::AtLeastOnce);
    meter.publish(message("a/1", "12345"), QoS::AtLeastOnce);
    assert_eq!(meter.message().1, "12345");
    let tls = site.ca.issue("device-1", 1);
    let stream = crate::tls::connect(broker.tls, &tls);
    let (_device, _) = Client::over(stream, evermq_mqtt::packet::Connect { version: Version::V4, ..connect("device") });
    let (away, _) = Client::open(broker.plain, resume("away"));
    away.disconnect(ReasonCode::Success);

    let rows = all(&broker, "clients", json!({ "client": "meter-*" }));
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (&row["client"], &row["listener"], &row["version"]),
        (&json!("meter-1"), &json!("plain"), &json!("5.0"))
    );
    assert_eq!((&row["keep_alive_s"], &row["subscriptions"]), (&json!(30), &json!(2)));
    assert_eq!((&row["messages_in"], &row["messages_out"], &row["user"]), (&json!(1), &json!(1), &Value::Null));
    assert!(row["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(row["bytes_in"].as_u64() > Some(30) && row["bytes_out"].as_u64() > Some(15), "{row}");
    assert!(row["connected_ms"].as_u64() >= row["idle_ms"].as_u64());

    let rows = all(&broker, "clients", json!({ "user": "device-*" }));
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row["listener"], &row["version"], &row["tls"]), (&json!("tls"), &json!("3.1.1"), &json!("TLSv1.3")));
    assert_eq!(names(&all(&broker, "clients", json!({})), "client"), ["device", "meter-1"]);
    let by_bytes = broker.ask(&json!({ "request": "clients", "sort": "bytes", "limit": 1 }));
    assert_eq!((&by_bytes["clients"][0]["client"], &by_bytes["total"]), (&json!("meter-1"), &json!(2)));
    let by_rate = broker.ask(&json!({ "request": "clients", "sort": "rate", "over_ms": 10 }));
    assert_eq!(by_rate["clients"][0]["rate"], 0);
}

#[test]
fn many_clients_come_in_pages() {
    let (_site, broker) = start();
    let _clients: Vec<_> = (0..60).map(|number| broker.client(&format!("c{number}"))).collect();
    let rows = all(&broker, "clients", json!({ "limit": 7 }));
    let mut names = names(&rows, "client");
    names.dedup();
    assert_eq!((rows.len(), names.len()), (60, 60));
    assert_eq!(broker.ask(&json!({ "request": "clients", "limit": 7 }))["clients"].as_array().unwrap().len(), 7);
}

#[test]
fn sessions_are_shown_also_of_those_who_are_away() {
    let (_site, broker) = start();
    let asked = evermq_mqtt::packet::Connect { will: Some(will("w", 30)), ..resume("away") };
    let (mut away, _) = Client::open(broker.plain, asked);
    away.subscribe_at("t", QoS::AtLeastOnce);
    away.vanish();
    let request = json!({ "request": "sessions", "client": "away" });
    broker.ask_until("its end", &request, |answer| answer["sessions"][0]["connected"] == false);
    let mut here = broker.client("here");
    here.publish(message("t", "x"), QoS::AtLeastOnce);
    let rows = all(&broker, "sessions", json!({}));
    assert_eq!(names(&rows, "client"), ["away", "here"]);
    let away = rows.iter().find(|row| row["client"] == "away").unwrap();
    assert_eq!((&away["queued"], &away["subscriptions"], &away["will"]), (&json!(1), &json!(1), &json!(true)));
    let left = away["expires_in_ms"].as_u64().unwrap();
    assert!((50_000..=60_000).contains(&left), "{away}");
    let here = rows.iter().find(|row| row["client"] == "here").unwrap();
    assert_eq!((&here["connected"], &here["expires_in_ms"]), (&json!(true), &Value::Null));
}

#[test]
fn subscriptions_are_shown_by_client_and_by_topic() {
    let (_site, broker) = start();
    let mut one = broker.client("one");
    for filter in ["plant/+/line", "plant/7/#", "office"] {
        one.subscribe_at(filter, QoS::AtLeastOnce);
    }
    let mut two = broker.client("two");
    two.subscribe_at("#", QoS::AtMostOnce);
    let of = |request: Value| all(&broker, "subscriptions", request);
    assert_eq!(names(&of(json!({})), "filter"), ["#", "office", "plant/+/line", "plant/7/#"]);
    assert_eq!(names(&of(json!({ "limit": 1 })), "filter").len(), 4);
    assert_eq!(names(&of(json!({ "client": "one" })), "filter").len(), 3);
    let rows = of(json!({ "topic": "plant/7/line", "limit": 1 }));
    assert_eq!(names(&rows, "filter"), ["#", "plant/+/line", "plant/7/#"]);
    let qos = |filter: &str| rows.iter().find(|row| row["filter"] == filter).unwrap()["qos"].clone();
    assert_eq!((qos("#"), qos("plant/7/#")), (json!(0), json!(1)));
    let error = evermq_daemon::control::request(
        &broker.control,
        &json!({ "request": "subscriptions", "topic": "a/#" }),
        PATIENCE,
    );
    assert!(error.unwrap_err().to_string().contains("no topic name"));
}

#[test]
fn retained_messages_are_shown_and_deleted_everywhere() {
    let (_site, brokers) = start_two();
    let mut publisher = brokers[0].client("p");
    for number in 0..20 {
        let retained = Publish { retain: true, ..message(&format!("r/{number:02}"), &format!("value {number}")) };
        publisher.publish(retained, QoS::AtLeastOnce);
    }
    brokers[1].wait_for("the messages", |state| state["retained"] == 20);
    let rows = all(&brokers[1], "retained", json!({ "filter": "r/+", "limit": 3 }));
    let expected: Vec<_> = (0..20).map(|number| format!("r/{number:02}")).collect();
    assert_eq!(names(&rows, "topic"), expected);
    assert!(rows.iter().all(|row| row["origin"] == "broker1" && row.get("payload").is_none()), "{rows:?}");
    let rows = all(&brokers[0], "retained", json!({ "filter": "r/07", "values": true }));
    assert_eq!((&rows[0]["payload"]["text"], &rows[0]["bytes"]), (&json!("value 7"), &json!(7)));

    let mut watcher = brokers[1].client("w");
    watcher.subscribe_at("r/07", QoS::AtLeastOnce);
    assert_eq!(watcher.message().1, "value 7");
    let forget = |topic: &str| brokers[0].ask(&json!({ "request": "forget", "topic": topic }))["found"] == true;
    assert!(forget("r/07") && !forget("r/07") && !forget("r/never"));
    assert_eq!(watcher.message(), ("r/07".to_owned(), String::new()));
    brokers[1].wait_for("the deletion", |state| state["retained"] == 19);
    for wrong in ["", "r/+", "$SYS/broker/uptime"] {
        let request = json!({ "request": "forget", "topic": wrong });
        assert!(evermq_daemon::control::request(&brokers[0].control, &request, PATIENCE).is_err(), "{wrong}");
    }
}

#[test]
fn a_client_is_kicked_and_told_why() {
    let (_site, broker) = start();
    let mut watcher = broker.client("watcher");
    watcher.subscribe_at("w", QoS::AtLeastOnce);
    let kick = |request: Value| {
        let mut request = request;
        request["request"] = "kick".into();
        broker.ask(&request)["found"] == true
    };
    let asked = || evermq_mqtt::packet::Connect { will: Some(will("w", 0)), ..resume("c") };
    let (mut client, _) = Client::open(broker.plain, asked());
    client.subscribe_at("t", QoS::AtLeastOnce);
    assert!(kick(json!({ "client": "c", "reason": "wrong firmware" })));
    let Packet::Disconnect(disconnect) = client.receive() else { panic!("no DISCONNECT") };
    assert_eq!(disconnect.reason, ReasonCode::AdministrativeAction);
    assert_eq!(disconnect.properties.unwrap().reason_string.unwrap().as_str(), "wrong firmware");
    assert_eq!(client.next(), None);
    assert_eq!(watcher.message().0, "w");

    // Its session is still there, until it is ended as well.
    let (mut client, connack) = Client::open(broker.plain, asked());
    assert!(connack.session_present);
    assert!(kick(json!({ "client": "c", "session": true })));
    client.expect_disconnect(ReasonCode::AdministrativeAction);
    assert_eq!(watcher.message().0, "w");
    broker.wait_for("the session's end", |state| state["sessions"] == 1);
    assert!(!kick(json!({ "client": "c", "session": true })) && !kick(json!({ "client": "never" })));

    let (away, connack) = Client::open(broker.plain, resume("c"));
    assert!(!connack.session_present);
    away.disconnect(ReasonCode::Success);
    broker.wait_for("its end", |state| state["connections"] == 1);
    assert!(!kick(json!({ "client": "c" })) && kick(json!({ "client": "c", "session": true })));
    broker.wait_for("the session's end", |state| state["sessions"] == 1);
}
