//! `evermq backend`: a broker's weight and administrative state on the lbs.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{LB, render};
use crate::asking::ProgramArgs;
use crate::command::CommandError;
use crate::output;

/// `evermq backend BROKER`
#[derive(Debug, Args)]
#[command(after_help = "evermq backend broker1 --weight 50\n\
                        evermq backend broker1 --state maint\n\
                        evermq backend broker1            # only show\n\n\
                        What is said holds on every lb of the cluster, until it is said otherwise or all of them restart.\n\n\
                        Exit status: 0 done; 1 the lb does not answer or would not; 2 the command line or the file is wrong.")]
pub struct BackendArgs {
    /// The broker, as the cluster file or `evermq status` names it
    #[arg(value_name = "BROKER")]
    name: String,
    /// Its share beside the others', or `file` for that of the cluster file
    #[arg(long, value_name = "N|file")]
    weight: Option<Weight>,
    /// What it is to do
    #[arg(long, value_enum)]
    state: Option<State>,
    #[command(flatten)]
    lb: ProgramArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    File,
    Number(u16),
}

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) => Ok(Self::Number(number)),
            Err(_) if text == "file" => Ok(Self::File),
            Err(_) => Err("a whole number from 0 to 65535, or \"file\"".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// It gets its share
    Ready,
    /// No new clients; those that it has are moved away at a bounded rate, as `evermq drain` does
    Drain,
    /// No new clients; those that it has are closed at once
    Maint,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// Shows a broker, after changing it if that was asked for.
///
/// # Errors
/// The cluster file is wrong, the host is none of its lbs, its lb does not answer or knows no such broker, or standard output
/// cannot be written.
pub fn run(args: &BackendArgs) -> Result<ExitCode, CommandError> {
    let lb = LB.find(&args.lb)?;
    let mut request = Map::from_iter([("request".to_owned(), json!("backend")), ("name".to_owned(), json!(args.name))]);
    if let Some(state) = args.state {
        request.insert("state".to_owned(), json!(state.name()));
    }
    match args.weight {
        Some(Weight::Number(weight)) => request.insert("weight".to_owned(), json!(weight)),
        Some(Weight::File) => request.insert("weight".to_owned(), json!("file")),
        None => None,
    };
    let answer = lb.ask(&Value::Object(request), Duration::ZERO)?;
    if args.lb.json {
        output::print_json(&answer)?;
    } else {
        output::print(&render::backend(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}
