//! Draining from the page.

use serde_json::json;

use crate::site::Site;

const JSON: &str = "content-type: application/json\r\n";
const DRAIN: &str = r#"{"broker":"broker1","state":"drain"}"#;

#[test]
fn an_admin_drains_a_broker_through_the_lb() {
    let site = Site::new("readers = [\"prometheus\"]");
    let lb = site.program("lb1", "lb", json!({}));
    let _endpoint = site.start("lb1");
    let answer = site.post("lb1", "admin", "/api/drain", JSON, DRAIN);
    assert_eq!((answer.status, answer.json()), (200, json!({ "done": true })));
    let origin = format!("{JSON}origin: https://lb1\r\n");
    let undone = site.post("lb1", "admin", "/api/drain", &origin, r#"{"broker":"broker1","state":"ready","rate":5}"#);
    assert_eq!(undone.status, 200);
    let asked = lb.asked.lock().unwrap().clone();
    let request = |state: &str, rate| json!({ "request": "backend", "name": "broker1", "state": state, "rate": rate });
    assert_eq!(asked, [request("drain", json!(null)), request("ready", json!(5))]);

    // Nothing of this is done.
    let large = format!("{{\"broker\":\"{}\"}}", "x".repeat(5000));
    for (who, headers, body, status, words) in [
        ("prometheus", JSON, DRAIN, 403, "may only see"),
        ("admin", "", DRAIN, 403, "content type"),
        ("admin", "content-type: text/plain\r\n", DRAIN, 403, "content type"),
        ("admin", "content-type: application/json\r\norigin: https://evil.example\r\n", DRAIN, 403, "from elsewhere"),
        ("admin", "content-type: application/json\r\norigin: null\r\n", DRAIN, 403, "from elsewhere"),
        ("admin", JSON, "{", 400, "not a request"),
        ("admin", JSON, r#"{"broker":"broker1","state":"off"}"#, 400, "not a request"),
        ("admin", JSON, large.as_str(), 413, "at most 4096 bytes"),
        ("admin", JSON, r#"{"broker":"broker9","state":"drain"}"#, 409, "there are: broker1"),
    ] {
        let answer = site.post("lb1", who, "/api/drain", headers, body);
        assert_eq!(answer.status, status, "{headers}{body}: {}", answer.body);
        assert!(answer.body.contains(words), "{words}: {}", answer.body);
    }
    assert_eq!(site.get("lb1", Some("admin"), "/api/drain").unwrap().status, 400);
    assert_eq!(site.post("lb1", "prometheus", "/api/rebalance", JSON, "{}").status, 403);
    let moved = r#"{"broker":"broker1","state":"drain","moved":true}"#;
    let refused = site.post("lb1", "admin", "/api/drain", JSON, moved);
    assert!(refused.status == 409 && refused.body.contains("ask the host of broker1"), "{}", refused.body);
    assert_eq!(lb.asked.lock().unwrap().len(), 2);

    // To see how far it is, and to have clients evened out.
    assert_eq!(site.get("lb1", Some("prometheus"), "/api/drain?broker=broker1").unwrap().status, 200);
    assert_eq!(site.get("lb1", Some("prometheus"), "/api/drain?broker=x").unwrap().status, 409);
    assert_eq!(site.post("lb1", "admin", "/api/rebalance", JSON, r#"{"rate":7}"#).status, 200);
    let asked = lb.asked.lock().unwrap()[2..].to_vec();
    assert_eq!(
        asked,
        [json!({ "request": "backend", "name": "broker1" }), json!({ "request": "rebalance", "rate": 7 })]
    );
}

#[test]
fn a_broker_host_drains_its_own_broker() {
    let site = Site::new("");
    let broker = site.program("broker1", "broker", json!({}));
    let _endpoint = site.start("broker1");
    assert_eq!(site.get("broker1", Some("admin"), "/api/cluster").unwrap().json()["drains"], json!(["broker1"]));
    assert_eq!(site.post("broker1", "admin", "/api/drain", JSON, DRAIN).status, 200);
    let asked = broker.asked.lock().unwrap().clone();
    assert_eq!(asked, [json!({ "request": "drain", "state": "drain", "rate": null, "moved": false })]);
    let refused = site.post("broker1", "admin", "/api/rebalance", JSON, "{}");
    assert!(refused.status == 409 && refused.body.contains("ask an lb host"), "{}", refused.body);
}

#[test]
fn a_program_that_does_not_run_is_said_to_be() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    let answer = site.post("lb1", "admin", "/api/drain", JSON, DRAIN);
    assert_eq!(answer.status, 409);
    assert!(answer.body.contains("no answer from"), "{}", answer.body);
}
