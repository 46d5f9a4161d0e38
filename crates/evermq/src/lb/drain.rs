//! `evermq drain`: moves a broker's clients to the others, so that it can be stopped.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{LB, render};
use crate::asking::{AskError, Program, ProgramArgs};
use crate::broker::{BROKER, Wanted, run_drain as run_own};
use crate::command::CommandError;
use crate::output;

/// Between two looks of `--wait`.
const LOOK: Duration = Duration::from_millis(500);

/// `evermq drain BROKER`
#[derive(Debug, Args)]
#[command(after_help = "On the broker's own host: evermq drain broker1 --wait && systemctl restart evermq-broker\n\
                        From an lb's host: evermq drain broker1 --wait && ssh broker1 systemctl restart evermq-broker; \
                        evermq drain broker1 --undo\n\n\
                        On its own host the broker tells the lbs, hands all of its clients over and refuses new ones; a restart ends \
                        that. From an lb's host every lb of the cluster moves its own clients. Clients stay while no other broker \
                        takes any.\n\n\
                        Exit status: 0 done, with --wait when the last client has left; 1 the program does not answer or would not, or \
                        the drain was undone meanwhile; 2 the command line or the file is wrong.")]
pub struct DrainArgs {
    /// The broker, as the cluster file or `evermq status` names it
    #[arg(value_name = "BROKER")]
    name: String,
    /// Clients to move in a second [default: lb.rebalance_rate, or 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Wait until it has no client any more (of this lb, from an lb's host), and may be stopped
    #[arg(long)]
    wait: bool,
    /// It will not be back: clients of MQTT 5.0 are told 0x9D (Server moved) in the place of 0x9C (Use another server); on its own host
    #[arg(long)]
    moved: bool,
    /// Let it have clients again
    #[arg(long, conflicts_with_all = ["rate", "wait", "moved"])]
    undo: bool,
    #[command(flatten)]
    lb: ProgramArgs,
}

/// Begins or ends a drain.
///
/// # Errors
/// The cluster file is wrong, the host is neither the broker's nor an lb's, its program does not answer or knows no such
/// broker, or standard output cannot be written.
pub fn run(args: &DrainArgs) -> Result<ExitCode, CommandError> {
    let (cluster, host) = args.lb.load()?;
    if host.name.as_str() == args.name && (BROKER.has)(&host) {
        let DrainArgs { wait, moved, undo, .. } = *args;
        let rate = args.rate.or(cluster.lb.rebalance.rate);
        return run_own(&args.lb, Wanted { rate, moved, wait, undo });
    }
    if args.moved {
        let text = format!("--moved is for the broker to say: run this on {}", args.name);
        return Err(AskError::Gone(text).into());
    }
    let lb = LB.find(&args.lb)?;
    let state = if args.undo { "ready" } else { "drain" };
    let mut answer =
        lb.ask(&json!({ "request": "backend", "name": args.name, "state": state, "rate": args.rate }), Duration::ZERO)?;
    if args.wait {
        answer = wait(&lb, &args.name, answer)?;
    }
    if args.lb.json {
        output::print_json(&answer)?;
    } else {
        output::print(&render::backend(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Until there is no connection any more. Tells how far it is on a terminal, or where it does not get on.
fn wait(lb: &Program, name: &str, mut answer: Value) -> Result<Value, CommandError> {
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
        answer = lb.ask(&json!({ "request": "backend", "name": name }), Duration::ZERO)?;
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
