//! `evermq sessions`: every session of a broker, also of clients that are away.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::listing::{ListArgs, Listing, PAGE};
use crate::cells::{dash, millis, number, time, word, yes};
use crate::command::CommandError;

/// `evermq sessions [FILTER]`
#[derive(Debug, Args)]
#[command(after_help = "evermq sessions 'meter-*'\n\
                  evermq sessions --sort queued --limit 10\n\n\
                  ENDS IN is for a client that is away: then its session ends, and what waits in it is gone.\n\n\
                  Exit status: 0 done; 1 the broker does not answer or would not; 2 the command line or the file is wrong.")]
pub struct SessionsArgs {
    /// Only sessions of clients of this identifier, with * for any characters
    #[arg(value_name = "FILTER")]
    client: Option<String>,
    /// Only sessions of this user name, with * for any characters
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What comes first; without it they come in no particular order, and any number of them can be shown
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    #[command(flatten)]
    list: ListArgs,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Most messages that wait
    Queued,
    /// Most messages that were sent and are not acknowledged
    Inflight,
}

const SESSIONS: Listing = Listing {
    name: "sessions",
    what: "sessions",
    titles: &["CLIENT", "USER", "CONNECTED", "EXPIRY", "ENDS IN", "QUEUED", "INFLIGHT", "SUBS", "WILL"],
    row,
};

/// Lists sessions.
///
/// # Errors
/// The cluster file is wrong, the host is none of its brokers, its broker does not answer, or standard output cannot be
/// written.
pub fn run(args: &SessionsArgs) -> Result<ExitCode, CommandError> {
    let mut request = json!({ "client": args.client, "user": args.user });
    match args.sort.and_then(|sort| sort.to_possible_value()) {
        None => SESSIONS.print(&args.list, request)?,
        Some(sort) => {
            request["request"] = SESSIONS.name.into();
            request["sort"] = sort.get_name().into();
            request["limit"] = args.list.limit.min(PAGE).into();
            SESSIONS.print_sorted(&args.list, &request, Duration::ZERO)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(session: &Value) -> Vec<String> {
    vec![
        word(&session["client"]),
        word(&session["user"]),
        yes(&session["connected"]),
        session["expiry_s"].as_u64().map_or_else(dash, |seconds| time(seconds.saturating_mul(1000))),
        millis(&session["expires_in_ms"]),
        number(&session["queued"]),
        number(&session["inflight"]),
        number(&session["subscriptions"]),
        yes(&session["will"]),
    ]
}
