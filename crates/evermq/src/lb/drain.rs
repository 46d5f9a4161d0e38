//! `evermq drain`: moves a broker's clients to the others, so that it can be stopped.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{LB, drain_afar, render};
use crate::asking::{AskError, ProgramArgs};
use crate::broker::{BROKER, Wanted, run_drain as run_own};
use crate::command::CommandError;
use crate::hosts::CertificateArgs;
use crate::output;

/// Between two looks of `--wait`.
const LOOK: Duration = Duration::from_millis(500);

/// `evermq drain BROKER`
#[derive(Debug, Args)]
#[command(after_help = "On the broker's own host: evermq drain broker1 --wait && systemctl restart evermq-broker\n\
                        From an lb's host: evermq drain broker1 --wait && ssh broker1 systemctl restart evermq-broker; \
                        evermq drain broker1 --undo\n\
                        From a laptop with an admin's certificate: evermq drain broker1 --moved --wait --config evermq.toml\n\n\
                        On its own host the broker tells the lbs, hands all of its clients over and refuses new ones; a restart ends \
                        that. From an lb's host every lb of the cluster moves its own clients. From anywhere else the broker's host is \
                        asked at its endpoint ([admin]) to do as on its own host; where that host does not answer, the lbs are. Clients \
                        stay while no other broker takes any.\n\n\
                        Exit status: 0 done, with --wait when the last client has left; 1 the program does not answer or would not, or \
                        the drain was undone meanwhile; 2 the command line or the file is wrong.")]
pub struct DrainArgs {
    /// The broker, as the cluster file or `evermq status` names it
    #[arg(value_name = "BROKER")]
    pub(super) name: String,
    /// Clients to move in a second [default: lb.rebalance_rate, or 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Wait until it has no client any more (of this lb, from an lb's host), and may be stopped
    #[arg(long)]
    wait: bool,
    /// It will not be back: clients of MQTT 5.0 are told 0x9D (Server moved) in the place of 0x9C (Use another server)
    #[arg(long)]
    moved: bool,
    /// Let it have clients again
    #[arg(long, conflicts_with_all = ["rate", "wait", "moved"])]
    undo: bool,
    #[command(flatten)]
    pub(super) lb: ProgramArgs,
    #[command(flatten)]
    pub(super) certificate: CertificateArgs,
}

/// Begins or ends a drain.
///
/// # Errors
/// The cluster file is wrong, the program that is asked does not answer or knows no such broker, another host cannot be
/// asked, or standard output cannot be written.
pub fn run(args: &DrainArgs) -> Result<ExitCode, CommandError> {
    let (cluster, host) = args.lb.load()?;
    let DrainArgs { rate, wait, moved, undo, .. } = *args;
    let wanted = Wanted { rate, moved, wait, undo };
    let by_itself = Wanted { rate: rate.or(cluster.lb.rebalance.rate), ..wanted };
    match &host {
        Some(host) if host.name.as_str() == args.name && (BROKER.has)(host) => run_own(&args.lb, by_itself),
        // Only the broker says that it will not be back.
        Some(host) if (LB.has)(host) && !moved => run_here(args, wanted),
        this => drain_afar::run(args, &cluster, this.as_ref(), wanted, by_itself),
    }
}

fn run_here(args: &DrainArgs, wanted: Wanted) -> Result<ExitCode, CommandError> {
    let lb = LB.find(&args.lb)?;
    let state = if wanted.undo { "ready" } else { "drain" };
    let request = json!({ "request": "backend", "name": args.name, "state": state, "rate": wanted.rate });
    let mut answer = lb.ask(&request, Duration::ZERO)?;
    if wanted.wait {
        let look = || Ok(lb.ask(&json!({ "request": "backend", "name": args.name }), Duration::ZERO)?);
        answer = until_empty(&args.name, answer, look)?;
    }
    if args.lb.json {
        output::print_json(&answer)?;
    } else {
        output::print(&render::backend(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Until the lb has no connection to it any more. Tells how far it is on a terminal, or where it does not get on.
pub(super) fn until_empty(
    name: &str,
    mut answer: Value,
    mut look: impl FnMut() -> Result<Value, CommandError>,
) -> Result<Value, CommandError> {
    let terminal = io::stderr().is_terminal();
    let mut stuck_said = false;
    loop {
        let left = answer["connections"].as_u64().unwrap_or(0);
        if left == 0 {
            return Ok(answer);
        }
        if answer["state"] != "drain" {
            return Err(AskError::Gone(format!("{name} does not drain any more; it has {left} connections")).into());
        }
        if answer["refuge"] == false {
            if !std::mem::replace(&mut stuck_said, true) {
                output::complain(&format!(
                    "evermq: no other broker of its group takes clients: {left} stay until one does"
                ));
            }
        } else if terminal {
            output::complain(&format!("{name}: {left} connections left{}", remaining(left, &answer)));
        }
        pause();
        answer = look()?;
    }
}

/// How long that takes at the rate.
fn remaining(left: u64, answer: &Value) -> String {
    let rate = answer["drain_rate"].as_u64().unwrap_or(0);
    left.checked_div(rate).map_or_else(String::new, |seconds| format!(", about {seconds} s"))
}

#[expect(clippy::disallowed_methods, reason = "another process's state can only be asked for; the operator ends it")]
fn pause() {
    std::thread::sleep(LOOK);
}
