//! `evermq reload`: the programs of this host read the cluster file again; done when it is in force.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evermq_daemon::control::{self, ControlError};
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};
use crate::output;

/// `evermq reload`
#[derive(Debug, Args)]
#[command(after_help = "evermq-lb and evermq-broker take a changed file when they are restarted.\n\n\
                  Exit status: 0 it is in force; 1 a program refused it or does not answer; 2 the file is wrong.")]
pub struct ReloadArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// How long to wait for the answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks the file, then has it put in force.
///
/// # Errors
/// The file is wrong (nothing is asked of any program then), the host is not in it, or standard output cannot be written.
pub fn run(args: &ReloadArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.config.load()?;
    let host = args.host.find(&cluster)?;
    if !(host.lb && cluster.vip.is_some()) {
        output::print(&format!("{} has no evermq-vip: nothing to do\n", host.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let socket = cluster.run_dir.join("vip.sock");
    let answer = control::request(&socket, &json!({ "request": "reload" }), Duration::from_millis(args.timeout));
    let (text, good) = match &answer {
        Ok(done) => (format!("evermq-vip: {}\n", words(done)), true),
        Err(error) => (format!("evermq-vip: {error}{}\n", advice(error)), false),
    };
    if args.json {
        let error = answer.as_ref().err().map(ToString::to_string);
        output::print_json(
            &json!({ "program": "evermq-vip", "reloaded": good, "answer": answer.ok(), "error": error }),
        )?;
    } else if good {
        output::print(&text)?;
    } else {
        output::complain(text.trim_end());
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was done.
fn words(done: &Value) -> &'static str {
    if done["changed"] == false { "the file says nothing else for this host" } else { "the file is in force" }
}

fn advice(error: &ControlError) -> &'static str {
    match error {
        ControlError::Unreachable { .. } => "; start it: systemctl start evermq-vip",
        _ => "",
    }
}
