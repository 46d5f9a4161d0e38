//! `evermq connections`: who is connected to an lb, and `evermq connections close`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{LB, render};
use crate::asking::ProgramArgs;
use crate::command::CommandError;
use crate::output;

/// Identifiers in one request, which is bounded.
const AT_ONCE: usize = 100;
/// Clears a terminal: home, then everything below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// `evermq connections`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "evermq connections --sort rate --limit 10\n\
                  evermq connections --top --backend broker1\n\
                  evermq connections close 123456 123457\n\n\
                  Exit status: 0 done; 1 the lb does not answer or would not; 2 the command line or the file is wrong."
)]
pub struct ConnectionsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Close connections by their identifiers, both ways at once
    Close(CloseArgs),
}

/// `evermq connections close ID...`
#[derive(Debug, Args)]
struct CloseArgs {
    /// As `evermq connections` shows them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<u64>,
    #[command(flatten)]
    lb: ProgramArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    lb: ProgramArgs,
    /// Show again and again, until interrupted
    #[arg(long, conflicts_with = "json")]
    top: bool,
    /// Between two shows of --top, over which rates are measured too
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// End --top after so many shows
    #[arg(long, value_name = "N", requires = "top", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,
    /// Only those with this broker
    #[arg(long, value_name = "BROKER")]
    backend: Option<String>,
    /// Only those of this client address or network
    #[arg(long, value_name = "ADDRESS[/LENGTH]")]
    source: Option<String>,
    /// Only those of this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Most bytes in a second, both ways, over --interval
    Rate,
    /// Most bytes, both ways
    Bytes,
    /// Oldest
    Age,
}

impl Sort {
    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Bytes => "bytes",
            Self::Age => "age",
        }
    }
}

/// Lists or closes connections.
///
/// # Errors
/// The cluster file is wrong, the host is none of its lbs, its lb does not answer, or standard output cannot be written.
pub fn run(args: &ConnectionsArgs) -> Result<ExitCode, CommandError> {
    match &args.action {
        Some(Action::Close(close_args)) => close(close_args),
        None if args.list.top => top(&args.list),
        None => list(&args.list),
    }
}

fn list(args: &ListArgs) -> Result<ExitCode, CommandError> {
    let lb = LB.find(&args.lb)?;
    let over = if args.sort == Sort::Rate { args.interval } else { 0 };
    // Whoever measures waits; more than a moment of that is announced.
    if over > 2 && io::stderr().is_terminal() {
        output::complain(&format!("measuring for {over} s"));
    }
    let answer = lb.ask(&request(args, over), Duration::from_secs(over))?;
    if args.lb.json {
        output::print_json(&answer)?;
    } else {
        output::print(&render::connections(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The lb itself waits between its two looks, so this needs no clock.
fn top(args: &ListArgs) -> Result<ExitCode, CommandError> {
    let lb = LB.find(&args.lb)?;
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    // Something to look at while the first rates are measured.
    let mut answer = lb.ask(&request(args, 0), Duration::ZERO)?;
    let mut shown = 0;
    loop {
        output::print(&format!("{clear}{}", render::connections(&answer)))?;
        shown += 1;
        if args.count.is_some_and(|count| shown >= count) {
            return Ok(ExitCode::SUCCESS);
        }
        answer = lb.ask(&request(args, args.interval), Duration::from_secs(args.interval))?;
    }
}

fn request(args: &ListArgs, over_seconds: u64) -> Value {
    json!({
        "request": "connections",
        "backend": args.backend,
        "source": args.source,
        "listener": args.listener,
        "sort": args.sort.name(),
        "limit": args.limit,
        "over_ms": over_seconds * 1000,
    })
}

fn close(args: &CloseArgs) -> Result<ExitCode, CommandError> {
    let lb = LB.find(&args.lb)?;
    let (mut closed, mut unknown): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for ids in args.ids.chunks(AT_ONCE) {
        let answer = lb.ask(&json!({ "request": "close", "ids": ids }), Duration::ZERO)?;
        closed.extend(answer["closed"].as_array().cloned().unwrap_or_default());
        unknown.extend(answer["unknown"].as_array().cloned().unwrap_or_default());
    }
    let good = unknown.is_empty();
    if args.lb.json {
        output::print_json(&json!({ "host": lb.host(), "closed": closed, "unknown": unknown }))?;
    } else {
        output::print(&format!("closed {} of {}\n", closed.len(), args.ids.len()))?;
        if !good {
            let ids: Vec<String> = unknown.iter().map(Value::to_string).collect();
            output::complain(&format!("evermq: not connected any more, or never: {}", ids.join(" ")));
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
