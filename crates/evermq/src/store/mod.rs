//! `evermq store`: what a broker keeps on disk. Reads the files only, so it may be asked while the broker runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use evermq_store::inspect::{self, Checked};
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};
use crate::output;
use crate::table::Table;

mod dump;

/// `evermq store`
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Read every record; show the files, what is in them and what is damaged. Exit status 1 if something is
    Check(CheckArgs),
    /// Print every record that can be read as a line of JSON, oldest first
    Dump(DumpArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DumpArgs {
    #[command(flatten)]
    place: Place,
}

/// Which store.
#[derive(Debug, Args)]
struct Place {
    /// The store's directory [default: broker.store.path of the cluster file]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "host"])]
    path: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
}

/// Does it.
///
/// # Errors
/// There is no store, or its files cannot be read.
pub fn run(args: &StoreArgs) -> Result<ExitCode, CommandError> {
    match &args.command {
        StoreCommand::Check(args) => check(args),
        StoreCommand::Dump(args) => dump::run(&args.place.path()?),
    }
}

fn check(args: &CheckArgs) -> Result<ExitCode, CommandError> {
    let checked = inspect::check(&args.place.path()?)?;
    if args.json {
        output::print_json(&to_json(&checked))?;
    } else {
        output::print(&to_text(&checked))?;
    }
    Ok(if is_good(&checked) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Place {
    fn path(&self) -> Result<PathBuf, CommandError> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let cluster = self.config.load()?;
        let host = self.host.find(&cluster)?;
        Ok(cluster.broker_for(host.name.as_str())?.broker.store.path)
    }
}

fn is_good(checked: &Checked) -> bool {
    let report = &checked.report;
    report.damage.is_empty() && report.lost_messages == 0 && report.replaced_sessions == 0
}

fn to_text(checked: &Checked) -> String {
    let mut table = Table::titled(&["SEGMENT", "BYTES", "USED", "RECORDS", "DAMAGED", "FILE"]);
    for segment in &checked.segments {
        table.row([
            segment.id.to_string(),
            segment.bytes.to_string(),
            segment.used.to_string(),
            segment.records.to_string(),
            segment.damaged.to_string(),
            segment.file.display().to_string(),
        ]);
    }
    let mut counts = Table::default();
    for (what, count) in [
        ("sessions", checked.sessions),
        ("messages that wait", checked.waiting),
        ("messages on their way", checked.inflight),
        ("retained messages", checked.retained),
        ("messages in all, each once", checked.messages),
    ] {
        counts.row([what, &count.to_string()]);
    }
    let mut text = format!("{table}\n{counts}\n");
    if let Some(holder) = &checked.held_by {
        text.push_str(&format!("process {holder} is writing it: what is being written may look torn\n"));
    }
    text + &verdict(checked)
}

fn verdict(checked: &Checked) -> String {
    let report = &checked.report;
    let mut text = String::new();
    if let Some(torn) = &report.torn {
        text.push_str(&format!(
            "torn end: {} from byte {}, {} bytes that were being written; the broker cuts them off when it starts\n",
            torn.file.display(),
            torn.offset,
            torn.len
        ));
    }
    for damage in &report.damage {
        text.push_str(&format!(
            "damaged: {} from byte {}, {} bytes: lost is {}\n",
            damage.file.display(),
            damage.offset,
            damage.len,
            damage.lost
        ));
    }
    if report.lost_messages > 0 {
        text.push_str(&format!("lost: {} messages that sessions wait for\n", report.lost_messages));
    }
    if report.replaced_sessions > 0 {
        text.push_str(&format!("sessions whose end is lost, replaced by later ones: {}\n", report.replaced_sessions));
    }
    text.push_str(if is_good(checked) { "good: every record can be read\n" } else { "the broker serves the rest\n" });
    text
}

fn to_json(checked: &Checked) -> Value {
    let report = &checked.report;
    let place = |damage: &evermq_store::Damage| {
        json!({
            "file": damage.file, "offset": damage.offset, "bytes": damage.len, "lost": damage.lost.to_string(),
        })
    };
    let segments = checked.segments.iter().map(|segment| {
        json!({
            "segment": segment.id.0, "file": segment.file, "bytes": segment.bytes, "used": segment.used,
            "records": segment.records, "damaged": segment.damaged,
        })
    });
    json!({
        "good": is_good(checked),
        "held_by": checked.held_by,
        "segments": segments.collect::<Vec<_>>(),
        "sessions": checked.sessions,
        "waiting": checked.waiting,
        "inflight": checked.inflight,
        "retained": checked.retained,
        "messages": checked.messages,
        "records": report.records,
        "torn": report.torn.as_ref().map(place),
        "damage": report.damage.iter().map(place).collect::<Vec<_>>(),
        "lost_messages": report.lost_messages,
        "replaced_sessions": report.replaced_sessions,
    })
}

#[cfg(test)]
mod tests;
