//! `evermq reload`: the programs of this host read the cluster file again; done when it is in force.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use evermq_daemon::control::{self, ControlError};
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};
use crate::output;

/// `evermq reload`
#[derive(Debug, Args)]
#[command(
    after_help = "The files that the cluster file names are read again too: certificates, revocation lists, passwords, rules. \
                  A broker's clients that would not get in now are closed.\n\n\
                  Exit status: 0 it is in force; 1 a program refused it or does not answer; 2 the file is wrong."
)]
pub struct ReloadArgs {
    /// Only this program [default: every one of the host]
    #[arg(value_enum)]
    program: Option<Program>,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What reads the cluster file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Program {
    /// evermq-vip
    Vip,
    /// evermq-lb
    Lb,
    /// evermq-broker
    Broker,
    /// evermq-admin
    Admin,
}

/// What became of it in one program.
struct Outcome {
    program: &'static str,
    answer: Result<Value, ControlError>,
}

/// Checks the file, then has it put in force.
///
/// # Errors
/// The file is wrong (nothing is asked of any program then), the host is not in it, or standard output cannot be written.
pub fn run(args: &ReloadArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.config.load()?;
    let host = args.host.find(&cluster)?;
    let programs = [
        (Program::Lb, host.lb, "evermq-lb", "lb.sock"),
        (Program::Vip, host.lb && cluster.vip.is_some(), "evermq-vip", "vip.sock"),
        (Program::Broker, host.broker, "evermq-broker", "broker.sock"),
        // It runs everywhere, and may serve by another file than this one so far.
        (
            Program::Admin,
            cluster.admin.listen.is_some() || cluster.run_dir.join(evermq_admin::CONTROL_SOCKET).exists(),
            evermq_admin::PROGRAM,
            evermq_admin::CONTROL_SOCKET,
        ),
    ];
    // One that is named is asked, also where the file says that the host does not run it: it says so itself.
    let wanted = |program, runs| args.program.map_or(runs, |only| only == program);
    let timeout = Duration::from_millis(args.timeout);
    let ask = |(program, socket): (&'static str, &str)| Outcome {
        program,
        answer: control::request(&cluster.run_dir.join(socket), &json!({ "request": "reload" }), timeout),
    };
    let asked = programs.into_iter().filter(|(program, runs, ..)| wanted(*program, *runs));
    let outcomes: Vec<Outcome> = asked.map(|(_, _, name, socket)| ask((name, socket))).collect();
    if args.json {
        let programs: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
        output::print_json(&json!({ "host": host.name.as_str(), "programs": programs }))?;
    } else if outcomes.is_empty() {
        output::print(&format!(
            "{} has no program that takes a changed file while it runs: nothing to do\n",
            host.name
        ))?;
    } else {
        for outcome in &outcomes {
            outcome.say()?;
        }
    }
    let good = outcomes.iter().all(|outcome| outcome.answer.is_ok());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Outcome {
    fn json(&self) -> Value {
        json!({
            "program": self.program,
            "reloaded": self.answer.is_ok(),
            "answer": self.answer.as_ref().ok(),
            "error": self.answer.as_ref().err().map(ToString::to_string),
        })
    }

    fn say(&self) -> Result<(), CommandError> {
        match &self.answer {
            Ok(done) => output::print(&format!("{}: {}\n", self.program, words(done)))?,
            Err(error) => output::complain(&format!("{}: {error}{}", self.program, advice(error, self.program))),
        }
        Ok(())
    }
}

/// What was done, and what has to be done besides.
fn words(done: &Value) -> String {
    let keys = |key: &str| done[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut text = if done["changed"] == false {
        "the file says nothing else for this host".to_owned()
    } else {
        "the file is in force".to_owned()
    };
    if let Some(closed) = done["closed"].as_u64().filter(|closed| *closed > 0) {
        text.push_str(&format!("; clients closed: {closed}"));
    }
    if let Some(withdrawn) = done["withdrawn"].as_u64().filter(|withdrawn| *withdrawn > 0) {
        text.push_str(&format!("; messages that waited and may not be had any more: {withdrawn}"));
    }
    let why = |key: &str| match done["why"][key].as_str() {
        Some(reason) => format!("{key} ({reason})"),
        None => key.to_owned(),
    };
    let restart: Vec<_> = keys("restart").map(why).collect();
    if !restart.is_empty() {
        text.push_str(&format!(", but for what needs a restart: {}", restart.join(", ")));
    }
    text
}

fn advice(error: &ControlError, program: &str) -> String {
    match error {
        ControlError::Unreachable { .. } => format!("; start it: systemctl start {program}"),
        _ => String::new(),
    }
}
