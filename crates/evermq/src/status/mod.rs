//! `evermq status`: how the cluster is, host by host; with `--programs` how the programs of this host are, in detail.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evermq_admin::local;
use evermq_admin::overview::{Look, Overview};
use evermq_daemon::health::Health;
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::hosts::{FormatArgs, Heard, Hosts, HostsArgs, block_on};
use crate::output;

mod programs;
mod table;

/// `evermq status`
#[derive(Debug, Args)]
#[command(
    after_help = "This host's programs are asked on their control sockets, other hosts at their endpoint ([admin] of the cluster file), \
                  to which the certificate is shown: so it works on any host, and with an admin's certificate from anywhere.\n\n\
                  Exit status: 0 all is up; 1 something needs a hand, or not every host can be asked; 2 clients are not served. With \
                  --programs: 0 every program of the host is up; 1 one is degraded; 2 one is down or does not answer."
)]
pub struct StatusArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// The programs of this host, in detail
    #[arg(long)]
    programs: bool,
    /// Again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// Moves a terminal's cursor to the top and clears what is below it.
const TOP: &str = "\u{1b}[H\u{1b}[J";

/// Asks and prints what they say.
///
/// # Errors
/// The cluster file is wrong, the host is not in it, or standard output cannot be written.
pub fn run(args: &StatusArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.hosts.load()?;
    if args.programs {
        let host = args.hosts.this_host(&cluster)?;
        let programs = local::programs_of(&cluster, host);
        return repeat(args, async || {
            let report = local::look(host, &programs, args.hosts.timeout());
            let json = serde_json::to_value(&report).map_err(io::Error::from)?;
            Ok((programs::text(&report), json, report.health))
        });
    }
    let hosts = tokio::sync::Mutex::new(args.hosts.hosts(&cluster)?);
    repeat(args, async || {
        let mut hosts = hosts.lock().await;
        let (overview, reports) = look(&mut hosts).await;
        let text = table::text(&overview, local::now_ms());
        let mut json = serde_json::to_value(&overview).map_err(io::Error::from)?;
        json["reports"] = Value::Array(reports);
        Ok((text, json, overview.verdict))
    })
}

async fn look(hosts: &mut Hosts) -> (Overview, Vec<Value>) {
    let looks: Vec<Look> = hosts.ask().await.into_iter().map(|Heard { look, .. }| look).collect();
    let overview = Overview::new(&hosts.plan, &looks, local::now_ms());
    let reports = looks.iter().map(|look| json!(look)).collect();
    (overview, reports)
}

/// Once, or again and again until it is ended from outside or nobody reads it any more.
fn repeat(
    args: &StatusArgs,
    look: impl AsyncFn() -> Result<(String, Value, Health), CommandError>,
) -> Result<ExitCode, CommandError> {
    let top = if io::stdout().is_terminal() { TOP } else { "" };
    block_on(async {
        loop {
            let (text, json, health) = look().await?;
            let is_read = match (args.format.is_json(), args.watch) {
                (true, None) => output::print_json(&json).map(|()| true),
                (true, Some(_)) => output::offer(&format!("{json}\n")),
                (false, None) => output::offer(&text),
                (false, Some(_)) => output::offer(&format!("{top}{text}\n")),
            }?;
            match args.watch.filter(|_| is_read) {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => return Ok(exit(health)),
            }
        }
    })?
}

fn exit(health: Health) -> ExitCode {
    ExitCode::from(match health {
        Health::Up => 0,
        Health::Degraded => 1,
        Health::Down => 2,
    })
}

#[cfg(test)]
mod tests;
