//! Lines in a real journal: systemd-journald in a host of the lab, which has a /run of its own.

use std::time::Duration;

use evermq_e2e::lab::{Lab, text};
use evermq_e2e::wait;
use serde_json::Value;

const JOURNALD: &str = "/lib/systemd/systemd-journald";
const LIMIT: Duration = Duration::from_secs(30);

/// What a program's standard error is where systemd starts it.
const AS_A_UNIT: &str = r#"exec systemd-cat sh -c 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$0"' "$0""#;

fn found(lab: &Lab, matches: &[&str]) -> Vec<Value> {
    let output = lab.exec("lb2", &[&["journalctl", "--no-pager", "-q", "-o", "json"], matches].concat());
    let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter().map_while(Result::ok);
    lines.collect()
}

#[test]
fn lines_are_found_by_their_fields() {
    let lab = Lab::up();
    let made = lab.exec("lb2", &["mkdir", "-p", "/run/systemd/journal", "/run/log/journal"]);
    assert!(made.status.success(), "{}", text(&made));
    let _journald = lab.spawn("lb2", &[JOURNALD]);
    let has_socket = || lab.exec("lb2", &["test", "-S", "/run/systemd/journal/socket"]).status.success().then_some(());
    wait::until("journald runs (Debian package systemd)", LIMIT, has_socket);
    lab.must(["stop", "lb2", "evermq-lb"]);
    let _lb = lab.spawn("lb2", &["sh", "-c", AS_A_UNIT, &lab.path_of("evermq-lb")]);
    wait::until("it says where it listens", LIMIT, || found(&lab, &["EVERMQ_LISTEN=0.0.0.0:9000"]).pop());

    lab.kill("broker2");
    let down = ["EVERMQ_BACKEND=broker2", "EVERMQ_TO=down"];
    let line = wait::until("the dead broker is found", LIMIT, || found(&lab, &down).pop()).0;
    assert_eq!((&line["SYSLOG_IDENTIFIER"], &line["_TRANSPORT"]), (&"evermq-lb".into(), &"journal".into()), "{line}");
    let message = line["MESSAGE"].as_str().unwrap_or_default();
    assert!(message.contains("down") && message.contains("broker2"), "the text has all of it: {line}");
    assert!(line["EVERMQ_REASON"].is_string() && line["PRIORITY"].is_string(), "{line}");
    assert_eq!(found(&lab, &["EVERMQ_BACKEND=broker1", "EVERMQ_TO=down"]), [Value::Null; 0]);
}
