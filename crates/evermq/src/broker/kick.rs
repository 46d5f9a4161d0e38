//! `evermq kick`: closes a client's connection.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::BROKER;
use crate::asking::{AskError, ProgramArgs};
use crate::command::CommandError;
use crate::output;

/// `evermq kick CLIENT`
#[derive(Debug, Args)]
#[command(after_help = "evermq kick meter-17 --reason 'wrong firmware'\n\
                  evermq kick meter-17 --session\n\n\
                  The client is told by DISCONNECT with 0x98 (administrative action), its will is published, and it may come back.\n\n\
                  Exit status: 0 done; 1 there is no such client here, or the broker does not answer; 2 the command line or the \
                  file is wrong.")]
pub struct KickArgs {
    /// The client identifier
    #[arg(value_name = "CLIENT")]
    client: String,
    /// End its session too: its subscriptions and what waits for it; also where it is away
    #[arg(long)]
    session: bool,
    /// Tell it why, if its MQTT is 5.0
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    broker: ProgramArgs,
}

/// Closes a client's connection.
///
/// # Errors
/// The cluster file is wrong, the host is none of its brokers, its broker does not answer or has no such client, or standard
/// output cannot be written.
pub fn run(args: &KickArgs) -> Result<ExitCode, CommandError> {
    let broker = BROKER.find(&args.broker)?;
    let request = json!({ "request": "kick", "client": args.client, "session": args.session, "reason": args.reason });
    let answer = broker.ask(&request, Duration::ZERO)?;
    let (client, host) = (&args.client, broker.host());
    if answer["found"] != true {
        let what = if args.session { "has no session" } else { "is not connected" };
        return Err(AskError::Gone(format!("{client} {what} on {host}")).into());
    }
    if args.broker.json {
        output::print_json(&answer)?;
    } else {
        let session = if args.session { ", its session has ended" } else { "" };
        output::print(&format!("{client} was told to go{session}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
