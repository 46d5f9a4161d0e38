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
/// Files that are left: two for each queue, of which 20,000 connections fill two, and the words.
const ROOM: u64 = 64;
/// For the process that runs to have the program checked, and to write everything down.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the process that runs to leave what it has, if systemd restarts it. Where it does not, it drains when it is stopped.
pub(crate) fn before_stop(control_socket: &Path) -> anyhow::Result<()> {
    if !is_restart(&systemctl(&["list-jobs", "--no-legend", "--plain", UNIT])?) {
        return Ok(());
    }
    let store = systemctl(&["show", "--property=FileDescriptorStoreMax,NFileDescriptorStore", UNIT])?;
    anyhow::ensure!(
        has_room(&store),
        "systemd keeps no more files for {UNIT}, so connections of this process end with it: raise FileDescriptorStoreMax="
    );
    let left = control::request(control_socket, &json!({ "request": "bequeath" }), PATIENCE)
        .context("connections of this process end with it")?;
    tracing::info!(connections = %left["moved"], end = %left["left"], "connections wait for the next process");
    Ok(())
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemctl").args(arguments).output();
    let output = output.context("cannot run systemctl: connections of this process end with it")?;
    anyhow::ensure!(
        output.status.success(),
        "systemctl {}: {}: connections of this process end with it",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Of a store that is full systemd says nothing: it closes what it is given.
fn has_room(store: &str) -> bool {
    let number = |name: &str| {
        let mut values = store.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next().and_then(|value| value.trim().parse::<u64>().ok())
    };
    let (most, there) = (number("FileDescriptorStoreMax"), number("NFileDescriptorStore"));
    most.zip(there).is_some_and(|(most, there)| most.saturating_sub(there) >= ROOM)
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
    fn a_store_that_is_full_or_that_there_is_not_has_no_room() {
        assert!(has_room("FileDescriptorStoreMax=8192\nNFileDescriptorStore=4\n"));
        assert!(has_room("NFileDescriptorStore=0\nFileDescriptorStoreMax=64\n"));
        assert!(!has_room("FileDescriptorStoreMax=1024\nNFileDescriptorStore=1023\n"));
        assert!(!has_room("FileDescriptorStoreMax=0\nNFileDescriptorStore=0\n"));
        assert!(!has_room(""));
    }

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
