//! The alert rules, by promtool.

use std::path::Path;
use std::process::Command;

const RULES: &str = include_str!("../../../../deploy/prometheus/evermq.rules.yml");
const TESTS: &str = include_str!("../../../../deploy/prometheus/evermq.rules.test.yml");
const ADVICE: &str = include_str!("../../../../docs/alerts.md");

fn alerts() -> Vec<&'static str> {
    let alerts: Vec<_> = RULES.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn each_alert_is_tested_and_has_its_advice() {
    for alert in alerts() {
        let fires = format!("        alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        let is_quiet = format!("alertname: {alert}, exp_alerts: []");
        assert!(TESTS.contains(&fires) && TESTS.contains(&is_quiet), "{alert} has no test in evermq.rules.test.yml");
        let title = alert.trim_end_matches("Now");
        assert!(ADVICE.contains(&format!("## {title}\n")), "docs/alerts.md does not say what to do about {alert}");
    }
    for line in RULES.lines().filter_map(|line| line.trim_start().strip_prefix("runbook: docs/alerts.md#")) {
        let title = |heading: &str| heading.to_lowercase() == line;
        assert!(ADVICE.lines().filter_map(|line| line.strip_prefix("## ")).any(title), "docs/alerts.md has no #{line}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever reads that it passed is to know that it did not run")]
fn promtool_finds_that_each_alert_fires_when_it_must() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/evermq.rules.test.yml");
    let output = match Command::new("promtool").args(["test", "rules"]).arg(tests).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "NOT TESTED: there is no promtool here; tests/install-tools installs it (Debian package prometheus)"
            );
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
}
