//! The table of bridges: as it is read again, and as operators see it.

use evermq_exposition::parse;
use evermq_mqtt::QoS;
use serde_json::json;

use super::mosquitto::Mosquitto;
use super::{config, entry, listener, next, publish};
use crate::client::{Client, connect};
use crate::program::Program;
use crate::running::{Running, Site};

#[test]
fn bridges_come_change_and_go_by_reload() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    let program = Program::start(&site, "", None);
    let bridges = || program.ask("state").unwrap()["bridges"].as_array().unwrap().clone();
    assert!(bridges().is_empty());
    let reload = |topics: &str| {
        program.write(&entry(remote.address, &format!("topics = [{topics}]")));
        let done = program.reload().unwrap();
        assert_eq!(done["applied"], json!(["[[bridges]]"]), "{done}");
        program.wait_for("the bridge", || bridges().first().is_some_and(|bridge| bridge["state"] == "connected"));
    };
    let mut there = listener(remote.address, "there", "#");
    let mut here = Client::open(program.plain, connect("here")).0;
    let mut send = |topics: &[&str]| {
        for topic in topics {
            publish(&mut here, topic, "x", QoS::ExactlyOnce, false);
        }
    };
    reload("'a/# out 2', 'in/# in 2'");
    send(&["a/1"]);
    assert_eq!(next(&mut there).0, "a/1");
    // The same file again leaves the connection alone.
    assert_eq!(program.reload().unwrap()["changed"], false);
    assert_eq!(bridges()[0]["connections"], 1);
    reload("'b/# out 2 \"\" r/', 'in/# out 2'");
    send(&["a/2", "b/1", "in/1"]);
    assert_eq!([(); 2].map(|()| next(&mut there).0), ["r/b/1", "in/1"]);
    program.write(&entry(remote.address, "topics = ['#']\nusername = \"u\"\npassword_file = \"none\""));
    let error = program.reload().unwrap_err();
    assert!(
        error.contains("bridge \"old\": cannot read the password from") && error.contains("put it there"),
        "{error}"
    );
    send(&["b/2"]);
    assert_eq!(next(&mut there).0, "r/b/2");
    let sessions = || program.ask("state").unwrap()["sessions"].as_u64();
    let before = sessions();
    program.write("");
    assert_eq!(program.reload().unwrap()["applied"], json!(["[[bridges]]"]));
    program.wait_for("its end", || bridges().is_empty() && sessions() < before);
}

#[test]
fn each_bridge_shows_how_it_is() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    let absent = evermq_ports::free_address();
    let second = entry(absent, "topics = ['# out 1']").replace("\"old\"", "\"gone\"");
    let first = entry(remote.address, "topics = ['b out 0', 'a both 1']");
    let config = config(&site, &(first + &second));
    let broker = Running::start(&config);
    broker.wait_for_connected();
    publish(&mut broker.client("here"), "a", "payload", QoS::AtLeastOnce, false);
    let state = broker.wait_for("both", |state| {
        let [first, second] = [0, 1].map(|index| &state["bridges"][index]);
        first["sent"] == 1 && first["inflight"] == 0 && second["failures"] != 0
    });
    let [first, second] = [0, 1].map(|index| &state["bridges"][index]);
    assert_eq!((&first["name"], &first["address"]), (&json!("old"), &json!(remote.address.to_string())));
    assert_eq!((&second["state"], &second["queued"]), (&json!("connecting"), &json!(1)), "{second:#}");
    assert!(second["last_error"].as_str().unwrap().contains(&absent.to_string()), "{second:#}");
    let shown = broker.ask(&json!({ "request": "metrics" }));
    let families = parse(shown["text"].as_str().unwrap());
    let value = |series: &str| families.of(&format!("evermq_broker_bridge_{series}"));
    assert_eq!(value("state{bridge=\"old\",state=\"connected\"}"), 1.0);
    assert_eq!(value("state{bridge=\"gone\",state=\"connected\"}"), 0.0);
    assert_eq!(value("sent_total{bridge=\"old\"}"), 1.0);
    assert_eq!(value("queued_messages{bridge=\"gone\"}"), 1.0);
}
