//! `evermq upgrade`: the new version of a program takes over from the one that runs, and its clients do not notice.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, ValueEnum};
use evermq_daemon::control::{self, ControlError};
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};
use crate::output;

/// `evermq upgrade`
#[derive(Debug, Args)]
#[command(after_help = "Put the new file in the place of the old one first (install, or a package).\n\n\
                  lb: the program that runs starts the new one, and hands over when that is ready: sockets, control socket,\n\
                  and every connection that passes through. Those whose TLS the lb ends stay with the old process, which\n\
                  closes them one by one within lb.drain_timeout. Where the new one does not start, nothing changes.\n\n\
                  vip: restarted by systemd where it holds no VIP. Where it does, nothing is done: a restart moves the VIP, and\n\
                  so ends all connections through this host; when they may end: systemctl restart evermq-vip\n\n\
                  Exit status: 0 the new one is in charge; 1 it is not, and why; 2 the cluster file is wrong.")]
pub struct UpgradeArgs {
    /// Which program
    #[arg(value_enum)]
    program: Program,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// How long to wait for the answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be upgraded while it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Program {
    /// evermq-lb
    Lb,
    /// evermq-vip, where it holds no VIP
    Vip,
}

/// Asks the program, and says what has become of it.
///
/// # Errors
/// The file is wrong, the host is not in it, or standard output cannot be written.
pub fn run(args: &UpgradeArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.config.load()?;
    args.host.find(&cluster)?;
    let timeout = Duration::from_millis(args.timeout);
    match args.program {
        Program::Lb => upgrade_lb(args, &cluster.run_dir.join("lb.sock"), timeout),
        Program::Vip => upgrade_vip(args, &cluster.run_dir.join("vip.sock"), timeout),
    }
}

/// The running process does it.
fn upgrade_lb(args: &UpgradeArgs, socket: &Path, timeout: Duration) -> Result<ExitCode, CommandError> {
    let answer = control::request(socket, &json!({ "request": "upgrade" }), timeout);
    let good = answer.is_ok();
    let text = match &answer {
        Ok(done) => format!("evermq-lb: {}\n", words(done)),
        Err(error) => format!("evermq-lb: {error}{}\n", advice(error)),
    };
    if args.json {
        let error = answer.as_ref().err().map(ToString::to_string);
        output::print_json(
            &json!({ "program": "evermq-lb", "upgraded": good, "answer": answer.ok(), "error": error }),
        )?;
    } else if good {
        output::print(&text)?;
    } else {
        output::complain(text.trim_end());
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Restarts it, unless that would move a VIP.
fn upgrade_vip(args: &UpgradeArgs, socket: &Path, timeout: Duration) -> Result<ExitCode, CommandError> {
    let restarted = match control::request(socket, &json!({ "request": "state" }), timeout) {
        Err(error) => Err(format!("{error}; start it: systemctl start evermq-vip")),
        Ok(state) => match held(&state) {
            held if held.is_empty() => restart("evermq-vip"),
            held => Err(format!(
                "it holds {}, and goes on as it is; when its clients may reconnect: systemctl restart evermq-vip",
                held.join(", ")
            )),
        },
    };
    if args.json {
        let error = restarted.as_ref().err();
        output::print_json(&json!({ "program": "evermq-vip", "upgraded": restarted.is_ok(), "error": error }))?;
    } else {
        match &restarted {
            Ok(()) => output::print("evermq-vip: restarted; it holds no VIP\n")?,
            Err(error) => output::complain(&format!("evermq-vip: {error}")),
        }
    }
    Ok(if restarted.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The virtual IPs that are here.
fn held(state: &Value) -> Vec<String> {
    let instances = state["instances"].as_array().into_iter().flatten();
    let masters = instances.filter(|instance| instance["state"] == "master");
    let addresses = masters.flat_map(|instance| instance["vips"].as_array().into_iter().flatten());
    addresses.map(|address| address.as_str().map_or_else(|| address.to_string(), str::to_owned)).collect()
}

fn restart(unit: &str) -> Result<(), String> {
    let done = Command::new("systemctl").args(["restart", unit]).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("cannot run systemctl: {error}; restart {unit} as this system does it")),
    }
}

/// What was done.
fn words(done: &Value) -> String {
    let number = |name: &str| done[name].as_u64().unwrap_or_default();
    let (moved, left) = (number("moved"), number("left"));
    let process = number("process");
    let milliseconds = number("took_us").div_ceil(1000);
    let longest = number("longest_us").div_ceil(1000);
    let rest = if left == 0 { String::new() } else { format!("; {left} end with the old process, or follow") };
    format!(
        "process {process} is in charge: {moved} connections moved in {milliseconds} ms, each within {longest} ms{rest}"
    )
}

fn advice(error: &ControlError) -> &'static str {
    match error {
        ControlError::Unreachable { .. } => "; start it: systemctl start evermq-lb",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_masters_addresses_are_held() {
        let state = json!({ "instances": [
            { "state": "backup", "vips": ["198.51.100.1"] },
            { "state": "master", "vips": ["198.51.100.2", "198.51.100.3"] },
        ] });
        assert_eq!(held(&state), ["198.51.100.2", "198.51.100.3"]);
        assert!(held(&json!({ "state": "none", "instances": [] })).is_empty());
    }

    #[test]
    fn what_was_done_is_told() {
        let done = json!({ "process": 7, "moved": 9000, "left": 0, "took_us": 400_100, "longest_us": 11_000 });
        let told = words(&done);
        assert_eq!(told, "process 7 is in charge: 9000 connections moved in 401 ms, each within 11 ms");
        let some = words(&json!({ "process": 7, "moved": 1, "left": 3, "took_us": 1, "longest_us": 1 }));
        assert!(some.ends_with("; 3 end with the old process, or follow"), "{some}");
    }
}
