use evermq_admin::local::Program;
use evermq_admin::report::{HostReport, ProgramReport};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn host(programs: Vec<ProgramReport>) -> HostReport {
    HostReport { host: "lb1".to_owned(), time_ms: 0, health: Health::Up, programs }
}

fn up(program: &str, state: Value) -> ProgramReport {
    ProgramReport {
        program: program.to_owned(),
        socket: "x.sock".into(),
        health: Health::Up,
        state,
        about: None,
        rates: None,
        error: None,
        help: None,
    }
}

#[test]
fn the_table_shows_whatever_a_program_says() {
    let lb = json!({
        "host": "lb1",
        "listen": "0.0.0.0:9000",
        "connections": { "current": 0, "total": 12 },
        "draining": false,
        "backends": [
            { "name": "broker1", "state": "up", "connections": 12, "refused": 0 },
            { "name": "broker2", "connected": false, "last_error": "timed out", "times": { "connect_ms": 3 } },
        ],
    });
    let vip = json!({
        "priority": 200,
        "state": "master",
        "master": null,
        "transitions": [{ "from": "initialize", "to": "backup" }, { "from": "backup", "to": "master" }],
        "instances": [{ "name": "vip", "state": "master" }, { "name": "six", "state": "backup", "vrid": 52 }],
        "bridge": { "lag": 0, "peers": [{ "name": "broker2", "connected": true, "lag": 7 }] },
    });
    assert_eq!(
        programs::text(&host(vec![up("evermq-lb", lb), up("evermq-vip", vip)])),
        "PROGRAM            HEALTH  DETAILS\n\
         host lb1           up\n\
         evermq-lb          up      listen 0.0.0.0:9000, draining no\n\
         \x20 backend broker1  up      connections 12\n\
         \x20 backend broker2  down    last error timed out\n\
         \x20   times                  connect ms 3\n\
         \x20 connections              total 12\n\
         evermq-vip         up      state master, priority 200\n\
         \x20 bridge\n\
         \x20   peer broker2   up      lag 7\n\
         \x20 instance six     backup  vrid 52\n\
         \x20 last transition          from backup, to master\n"
    );
}

#[test]
fn what_is_wrong_comes_first() {
    let broker = json!({
        "host": "broker1",
        "readiness": "ready",
        "trouble": "no room for the store in /var/lib/evermq: free disk space",
        "store": { "state": "full", "bytes": 7, "damaged_bytes": 0 },
    });
    let program = ProgramReport { health: Health::Degraded, ..up("evermq-broker", broker) };
    let status = HostReport { health: Health::Degraded, ..host(vec![program]) };
    assert_eq!(
        programs::text(&status),
        "PROGRAM        HEALTH    DETAILS\n\
         host lb1       degraded\n\
         evermq-broker  degraded  trouble no room for the store in /var/lib/evermq: free disk space, readiness ready\n\
         \x20 store                  state full, bytes 7\n"
    );
}

#[test]
fn odd_states_do_not_upset_the_table() {
    for state in [Value::Null, json!([]), json!("text"), json!({}), json!({ "list": [1, [2], { "a": null }] })] {
        let text = programs::text(&host(vec![up("evermq-lb", state)]));
        assert!(text.contains("evermq-lb"), "{text}");
    }
}

#[test]
fn advice_follows_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let text = programs::text(&host(vec![local::ask(
        &Program { name: "evermq-lb", socket: dir.path().join("lb.sock") },
        PATIENCE,
    )]));
    assert!(text.contains("evermq-lb  down    no answer from "), "{text}");
    assert!(text.contains("\n\nevermq-lb: it does not run: systemctl start evermq-lb"), "{text}");
}
