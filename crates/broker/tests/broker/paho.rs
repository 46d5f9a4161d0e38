//! paho-mqtt, the Python client of the Eclipse Paho project, over mutual TLS.

use std::path::PathBuf;
use std::process::Command;

use crate::running::start;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/paho_scenarios.py");

fn python() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/python");
    std::env::var_os("EVERMQ_TEST_PYTHON").unwrap_or_else(|| default.into()).into()
}

fn run(version: &str) {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    let output = Command::new(python())
        .arg(SCRIPT)
        .args([version, &broker.tls.port().to_string()])
        .args([&tls.ca, &tls.cert, &tls.key])
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
