//! MQTT.js, the client of Node.js, over mutual TLS.

use std::process::Command;

use crate::running::start;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/mqttjs_scenarios.cjs");
/// Where `tests/install-tools` puts it: `node`, and the module in `node_modules`.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-node");

fn run(version: &str) {
    let tools = std::env::var("EVERMQ_TEST_NODE").unwrap_or_else(|_| TOOLS.to_owned());
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    let output = Command::new(format!("{tools}/node"))
        .env("NODE_PATH", format!("{tools}/node_modules"))
        .arg(SCRIPT)
        .args([version, &broker.tls.port().to_string()])
        .args([&tls.ca, &tls.cert, &tls.key])
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{tools}/node: {error}; this test needs Node.js with MQTT.js: `make test-tools` installs them into \
                 target/test-node, or name another directory with `node` and `node_modules` in EVERMQ_TEST_NODE"
            )
        });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), 4, "{out}\n{err}");
}

#[test]
fn mqtt_3_1_1() {
    run("4");
}

#[test]
fn mqtt_5() {
    run("5");
}
