//! `evermq subscriptions`: who has subscribed to what, or who would get a message.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::listing::{ListArgs, Listing};
use crate::cells::{number, word, yes};
use crate::command::CommandError;

/// `evermq subscriptions`
#[derive(Debug, Args)]
#[command(after_help = "evermq subscriptions --topic plant/7/line/3\n\
                  evermq subscriptions --client 'meter-*'\n\n\
                  Of a shared subscription's group only one gets each message.\n\n\
                  Exit status: 0 done; 1 the broker does not answer or would not; 2 the command line or the file is wrong.")]
pub struct SubscriptionsArgs {
    /// Only subscriptions that this topic name matches: who would get a message
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those of clients of this identifier, with * for any characters
    #[arg(long, value_name = "FILTER")]
    client: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

const SUBSCRIPTIONS: Listing = Listing {
    name: "subscriptions",
    what: "subscriptions",
    titles: &["CLIENT", "CONNECTED", "QOS", "NO LOCAL", "AS PUBLISHED", "ID", "FILTER"],
    row,
};

/// Lists subscriptions.
///
/// # Errors
/// The cluster file is wrong, the host is none of its brokers, its broker does not answer, or standard output cannot be
/// written.
pub fn run(args: &SubscriptionsArgs) -> Result<ExitCode, CommandError> {
    SUBSCRIPTIONS.print(&args.list, json!({ "topic": args.topic, "client": args.client }))?;
    Ok(ExitCode::SUCCESS)
}

fn row(subscription: &Value) -> Vec<String> {
    vec![
        word(&subscription["client"]),
        yes(&subscription["connected"]),
        number(&subscription["qos"]),
        yes(&subscription["no_local"]),
        yes(&subscription["retain_as_published"]),
        number(&subscription["id"]),
        word(&subscription["filter"]),
    ]
}
