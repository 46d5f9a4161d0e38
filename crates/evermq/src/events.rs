//! `evermq events` and `evermq logs`: what has happened on all hosts, in one list.
//!
//! Both are told by the hosts' endpoints, and not fetched from their journals by ssh: so they work with an admin's certificate
//! alone, and what a host has said before it died is still known of the others' words about it. Each host has the last
//! thousand lines; all of them are in its journal (`journalctl -u 'evermq-*'`).

use std::collections::{BTreeSet, HashSet};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evermq_admin::journal::Said;
use evermq_admin::overview::Look;
use evermq_admin::timeline::{Transition, transitions};

use crate::command::CommandError;
use crate::hosts::{FormatArgs, Heard, Hosts, HostsArgs, block_on};
use crate::output;

mod lines;

/// Between two questions while it is followed.
const LOOK: Duration = Duration::from_millis(500);

/// Lines that are kept while it is followed: all that hosts of a large cluster still have.
const KEPT: usize = 20_000;

/// `evermq events`
#[derive(Debug, Args)]
#[command(
    after_help = "OUTAGE is how long it was away: the VIP from its holder's last word, or the last advertisement that was heard of it, \
                  to the next one's first; a broker or a link from its loss to its return. Times are each host's own, in UTC.\n\n\
                  Exit status: 0 every host was asked; 1 one does not answer; 2 the cluster file is wrong."
)]
pub struct EventsArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// The last so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: usize,
    /// Go on as more happens
    #[arg(short, long)]
    follow: bool,
}

/// `evermq logs`
#[derive(Debug, Args)]
#[command(
    after_help = "Lines of level info and worse, but those for each connection; each host has its last thousand. Its journal has all of \
                  them, to the level that cluster.log_level says: journalctl -u 'evermq-*'. Times are each host's own, in UTC.\n\n\
                  Exit status: 0 every host was asked; 1 one does not answer; 2 the cluster file is wrong."
)]
pub struct LogsArgs {
    #[command(flatten)]
    hosts: HostsArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// The last so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: usize,
    /// Go on as more is said
    #[arg(short, long)]
    follow: bool,
}

/// Shows the transitions.
///
/// # Errors
/// The cluster file is wrong, the host is not in it, or standard output cannot be written.
pub fn run_events(args: &EventsArgs) -> Result<ExitCode, CommandError> {
    let mut said: Vec<Said> = Vec::new();
    let mut shown: HashSet<String> = HashSet::new();
    let is_json = args.format.is_json();
    let mut is_first = true;
    follow(&args.hosts, args.follow, |new| {
        said.extend(new);
        said.drain(..said.len().saturating_sub(KEPT));
        // How long something was away follows from what was said before, which may come later: from another host.
        let all = transitions(&said);
        let mut fresh: Vec<Transition> = all.iter().filter(|one| !shown.contains(&key(one))).cloned().collect();
        if is_first {
            fresh.drain(..fresh.len().saturating_sub(args.lines));
        }
        shown = all.iter().map(key).collect();
        let titled = std::mem::take(&mut is_first);
        if is_json { lines::json(&fresh) } else { Ok(lines::events(&fresh, titled)) }
    })
}

/// What tells one transition from another.
fn key(one: &Transition) -> String {
    format!("{} {} {} {} {:?}", one.time_ms, one.host, one.program, one.what, one.to)
}

/// Shows the lines.
///
/// # Errors
/// As [`run_events`].
pub fn run_logs(args: &LogsArgs) -> Result<ExitCode, CommandError> {
    let is_json = args.format.is_json();
    let mut is_first = true;
    follow(&args.hosts, args.follow, |mut new| {
        new.sort_by_key(|said| said.time_ms);
        if std::mem::take(&mut is_first) {
            new.drain(..new.len().saturating_sub(args.lines));
        }
        if is_json { lines::json(&new) } else { Ok(lines::logs(&new)) }
    })
}

/// Gives what is new to `print`, once or again and again, and prints what it makes of it. Says which hosts do not answer, each
/// time that it is others.
fn follow(
    args: &HostsArgs,
    goes_on: bool,
    mut print: impl FnMut(Vec<Said>) -> Result<String, CommandError>,
) -> Result<ExitCode, CommandError> {
    let cluster = args.load()?;
    let mut hosts = args.hosts(&cluster)?;
    let mut silent = BTreeSet::new();
    block_on(async {
        loop {
            let (said, missing) = ask(&mut hosts).await;
            for (host, why) in missing.iter().filter(|(host, _)| !silent.contains(host)) {
                output::complain(&format!("evermq: {host}: {why}"));
            }
            silent = missing.into_iter().map(|(host, _)| host).collect();
            let is_read = output::offer(&print(said)?)?;
            if !goes_on || !is_read {
                return Ok(if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            tokio::time::sleep(LOOK).await;
        }
    })?
}

/// What is new, and who does not answer.
async fn ask(hosts: &mut Hosts) -> (Vec<Said>, Vec<(String, String)>) {
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    let heard = hosts.ask().await;
    for (host, Heard { look, said }) in hosts.plan.hosts.iter().zip(heard) {
        all.extend(said);
        if let Look::Silent(why) | Look::NotAsked(why) = look {
            missing.push((host.name.clone(), why));
        }
    }
    (all, missing)
}
