//! What comes before systemd stops the unit (ExecStop=): where it starts it again, connections wait for the next process.
//!
//! Only systemd knows whether a stop is a restart: its job says so until the unit has stopped.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use evermq_daemon::control;
use serde_json::json;

/// The unit that the packages bring.
const UNIT: &str = "evermq-lb.service";
/// For the process that runs to have the program checked, and to write everything down.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the process that runs to leave what it has, if systemd restarts it. Where it does not, it drains when it is stopped.
pub(crate) fn before_stop(control_socket: &Path) -> anyhow::Result<()> {
    let jobs = Command::new("systemctl").args(["list-jobs", "--no-legend", "--plain", UNIT]).output();
    let jobs = jobs.context("cannot run systemctl: connections of this process end with it")?;
    if !is_restart(&String::from_utf8_lossy(&jobs.stdout)) {
        return Ok(());
    }
    let left = control::request(control_socket, &json!({ "request": "bequeath" }), PATIENCE)
        .context("connections of this process end with it")?;
    tracing::info!(connections = %left["moved"], end = %left["left"], "connections wait for the next process");
    Ok(())
}

/// Of lines such as `1234 evermq-lb.service restart running`.
fn is_restart(jobs: &str) -> bool {
    let kind = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != UNIT);
        words.nth(1).map(str::to_owned)
    };
    jobs.lines().filter_map(kind).any(|kind| kind == "restart" || kind == "try-restart")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_is_one() {
        assert!(is_restart("1234 evermq-lb.service restart running\n"));
        assert!(is_restart("  7 evermq-vip.service stop waiting\n1234 evermq-lb.service try-restart running\n"));
        assert!(!is_restart("1234 evermq-lb.service stop running\n"));
        assert!(!is_restart("1234 evermq-vip.service restart running\n"));
        assert!(!is_restart("No jobs running.\n"));
        assert!(!is_restart(""));
    }
}
