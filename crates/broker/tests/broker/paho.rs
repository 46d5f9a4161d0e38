//! paho-mqtt, the Python client of the Eclipse Paho project, over mutual TLS, and over WebSocket within it.

use std::path::PathBuf;
use std::process::Command;

use evermq_config::broker::Protocol;

use crate::listeners::{listener, tcp};
use crate::running::{start, start_with};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/paho_scenarios.py");

pub(crate) fn python() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/python");
    std::env::var_os("EVERMQ_TEST_PYTHON").unwrap_or_else(|| default.into()).into()
}

fn run(version: &str) {
    let (site, broker) = start();
    run_at(&site, broker.tls.port(), &[version, "tcp"]);
}

fn run_at(site: &crate::running::Site, port: u16, how: &[&str; 2]) {
    let tls = site.ca.issue("device-1", 1);
    let output = Command::new(python())
        .arg(SCRIPT)
        .args([how[0], &port.to_string()])
        .args([&tls.ca, &tls.cert, &tls.key])
        .arg(how[1])
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; this test needs Python with paho-mqtt: `make test` installs it into target/test-venv, \
                 or name another interpreter in EVERMQ_TEST_PYTHON",
                python().display()
            )
        });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), 6, "{out}\n{err}");
}

#[test]
fn mqtt_3_1_1() {
    run("311");
}

#[test]
fn mqtt_5() {
    run("5");
}

fn run_over_websocket(version: &str) {
    let (site, broker) = start_with(|config| {
        let mut web = listener("web", tcp());
        (web.protocol, web.tls) = (Protocol::WebSocket, true);
        config.listeners.push(web);
    });
    run_at(&site, broker.at("web").port(), &[version, "websockets"]);
}

#[test]
fn mqtt_3_1_1_over_websocket_within_tls() {
    run_over_websocket("311");
}

#[test]
fn mqtt_5_over_websocket_within_tls() {
    run_over_websocket("5");
}
