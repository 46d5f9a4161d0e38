//! `evermq retained`: the retained messages of a broker, and deleting one.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::BROKER;
use super::listing::{ListArgs, Listing};
use crate::asking::AskError;
use crate::cells::{millis, number, size, word};
use crate::command::CommandError;
use crate::output;

/// `evermq retained [FILTER]`
#[derive(Debug, Args)]
#[command(after_help = "evermq retained 'plant/#' --values\n\
                  evermq retained --delete plant/7/state\n\n\
                  What is deleted is deleted on every broker of the cluster, and subscribers get the empty message that says so.\n\n\
                  Exit status: 0 done; 1 the broker does not answer or would not, there is no such message, or it was not to be \
                  deleted after all; 2 the command line or the file is wrong.")]
pub struct RetainedArgs {
    /// Only topics that this topic filter matches; the broker's own with '$SYS/#'
    #[arg(value_name = "FILTER", default_value = "#")]
    filter: String,
    /// Show payloads too, the first kilobyte of each
    #[arg(long)]
    values: bool,
    /// Delete this topic's message; asks first
    #[arg(long, value_name = "TOPIC", conflicts_with_all = ["filter", "values", "limit", "all"])]
    delete: Option<String>,
    /// Do not ask
    #[arg(long, requires = "delete")]
    yes: bool,
    #[command(flatten)]
    list: ListArgs,
}

const RETAINED: Listing = Listing {
    name: "retained",
    what: "retained messages",
    titles: &["QOS", "BYTES", "AGE", "ENDS IN", "ORIGIN", "TOPIC"],
    row,
};

const WITH_VALUES: Listing = Listing {
    name: "retained",
    what: "retained messages",
    titles: &["QOS", "BYTES", "AGE", "ENDS IN", "ORIGIN", "TOPIC", "PAYLOAD"],
    row: |message| {
        let payload = &message["payload"];
        let more = if message["payload_truncated"] == true { "..." } else { "" };
        let text = payload["text"].as_str().map(str::to_owned);
        let shown = text.or_else(|| payload["hex"].as_str().map(|hex| format!("hex {hex}"))).unwrap_or_default();
        [row(message), vec![format!("{shown}{more}")]].concat()
    },
};

/// Lists retained messages, or deletes one.
///
/// # Errors
/// The cluster file is wrong, the host is none of its brokers, its broker does not answer, or standard output cannot be
/// written.
pub fn run(args: &RetainedArgs) -> Result<ExitCode, CommandError> {
    match &args.delete {
        Some(topic) => delete(args, topic),
        None => {
            let listing = if args.values { &WITH_VALUES } else { &RETAINED };
            listing.print(&args.list, json!({ "filter": args.filter, "values": args.values }))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn delete(args: &RetainedArgs, topic: &str) -> Result<ExitCode, CommandError> {
    let broker = BROKER.find(&args.list.broker)?;
    if !args.yes && !confirmed(topic)? {
        output::complain("evermq: nothing was deleted");
        return Ok(ExitCode::FAILURE);
    }
    let answer = broker.ask(&json!({ "request": "forget", "topic": topic }), Duration::ZERO)?;
    if answer["found"] != true {
        return Err(AskError::Gone(format!("there is no retained message of {topic}")).into());
    }
    if args.list.broker.json {
        output::print_json(&answer)?;
    } else {
        output::print(&format!("deleted the retained message of {topic}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever sits there; where nobody does, it is not meant.
fn confirmed(topic: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        output::complain("evermq: nobody can be asked here: --yes deletes without asking");
        return Ok(false);
    }
    output::complain(&format!("delete the retained message of {topic} on every broker of the cluster? [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn row(message: &Value) -> Vec<String> {
    vec![
        number(&message["qos"]),
        size(&message["bytes"]),
        millis(&message["age_ms"]),
        millis(&message["expires_in_ms"]),
        word(&message["origin"]),
        word(&message["topic"]),
    ]
}
