//! `evermq clients`: who is connected to a broker.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::BROKER;
use super::listing::{ListArgs, Listing, PAGE};
use crate::cells::{bytes, dash, millis, number, size, word};
use crate::command::CommandError;
use crate::output;

/// Clears a terminal: home, then everything below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// `evermq clients [FILTER]`
#[derive(Debug, Args)]
#[command(after_help = "evermq clients 'meter-*' --user alice\n\
                  evermq clients --top --limit 20\n\
                  evermq clients --sort queued\n\n\
                  Without --sort they come in no particular order, and any number of them can be shown.\n\n\
                  Exit status: 0 done; 1 the broker does not answer or would not; 2 the command line or the file is wrong.")]
pub struct ClientsArgs {
    /// Only clients of this identifier, with * for any characters
    #[arg(value_name = "FILTER")]
    client: Option<String>,
    /// Only clients of this user name, with * for any characters
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only those of this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// What comes first
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Show again and again, until interrupted; by rate if not told otherwise
    #[arg(long, conflicts_with_all = ["json", "all"])]
    top: bool,
    /// Between two shows of --top, over which rates are measured too
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// End --top after so many shows
    #[arg(long, value_name = "N", requires = "top", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    list: ListArgs,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Most bytes in a second, both ways, over --interval
    Rate,
    /// Most bytes, both ways
    Bytes,
    /// Most messages, both ways
    Messages,
    /// Most messages that wait
    Queued,
    /// Most messages that were sent and are not acknowledged
    Inflight,
    /// Connected for longest
    Age,
    /// Silent for longest
    Idle,
}

const CLIENTS: Listing = Listing {
    name: "clients",
    what: "clients",
    titles: &[
        "CLIENT", "USER", "ADDRESS", "LISTENER", "MQTT", "KEEP", "AGE", "IDLE", "INFLIGHT", "QUEUED", "SUBS",
        "MSGS IN", "MSGS OUT", "IN", "OUT",
    ],
    row,
};

/// The same, with rates.
const RATED: Listing = Listing {
    name: CLIENTS.name,
    what: CLIENTS.what,
    titles: &[
        "CLIENT", "USER", "ADDRESS", "LISTENER", "MQTT", "KEEP", "AGE", "IDLE", "INFLIGHT", "QUEUED", "SUBS",
        "MSGS IN", "MSGS OUT", "IN", "OUT", "RATE",
    ],
    row: |client| {
        let rate = client["rate"].as_u64().map_or_else(dash, |rate| format!("{}/s", bytes(rate)));
        [row(client), vec![rate]].concat()
    },
};

/// Lists clients.
///
/// # Errors
/// The cluster file is wrong, the host is none of its brokers, its broker does not answer, or standard output cannot be
/// written.
pub fn run(args: &ClientsArgs) -> Result<ExitCode, CommandError> {
    match (args.top, args.sort) {
        (true, sort) => top(args, sort.unwrap_or(Sort::Rate))?,
        (false, Some(Sort::Rate)) => {
            let over = Duration::from_secs(args.interval);
            RATED.print_sorted(&args.list, &sorted_request(args, Sort::Rate, args.interval), over)?;
        }
        (false, Some(sort)) => CLIENTS.print_sorted(&args.list, &sorted_request(args, sort, 0), Duration::ZERO)?,
        (false, None) => CLIENTS.print(&args.list, request(args))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &ClientsArgs) -> Value {
    json!({ "request": "clients", "client": args.client, "user": args.user, "listener": args.listener })
}

fn sorted_request(args: &ClientsArgs, sort: Sort, over_seconds: u64) -> Value {
    let mut request = request(args);
    let sort = sort.to_possible_value().map(|value| value.get_name().to_owned());
    request["sort"] = sort.into();
    request["limit"] = args.list.limit.min(PAGE).into();
    request["over_ms"] = (over_seconds * 1000).into();
    request
}

/// The broker itself waits between its two looks, so this needs no clock.
fn top(args: &ClientsArgs, sort: Sort) -> Result<(), CommandError> {
    let broker = BROKER.find(&args.list.broker)?;
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    // Something to look at while the first rates are measured.
    let first = if sort == Sort::Rate { Sort::Bytes } else { sort };
    let mut answer = broker.ask(&sorted_request(args, first, 0), Duration::ZERO)?;
    let mut shows = 0;
    loop {
        let is_rated = answer["clients"].as_array().is_some_and(|rows| rows.iter().any(|row| !row["rate"].is_null()));
        let listing = if is_rated { &RATED } else { &CLIENTS };
        let is_read = output::offer(&format!("{clear}{}", listing.sorted(&answer)))?;
        shows += 1;
        if !is_read || args.count.is_some_and(|count| shows >= count) {
            return Ok(());
        }
        let over = args.interval;
        answer = broker.ask(&sorted_request(args, sort, over), Duration::from_secs(over))?;
    }
}

fn row(client: &Value) -> Vec<String> {
    let keep_alive = client["keep_alive_s"].as_u64();
    vec![
        word(&client["client"]),
        word(&client["user"]),
        word(&client["address"]),
        word(&client["listener"]),
        word(&client["version"]),
        keep_alive.map_or_else(dash, |seconds| if seconds == 0 { dash() } else { format!("{seconds}s") }),
        millis(&client["connected_ms"]),
        millis(&client["idle_ms"]),
        number(&client["inflight"]),
        number(&client["queued"]),
        number(&client["subscriptions"]),
        number(&client["messages_in"]),
        number(&client["messages_out"]),
        size(&client["bytes_in"]),
        size(&client["bytes_out"]),
    ]
}
