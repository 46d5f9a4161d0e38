//! `evermq status`: how the programs of this host are, as they say on their control sockets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evermq_config::Cluster;
use evermq_config::cluster::Host;
use evermq_daemon::control;
use evermq_daemon::health::{Health, HealthLine};
use serde::Serialize;
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};
use crate::output;

mod render;

/// `evermq status`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 every program of the host is up; 1 one is degraded; 2 one is down or does not answer."
)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a host is.
#[derive(Debug, Serialize)]
pub struct HostStatus {
    host: String,
    /// The worst of its programs.
    health: Health,
    programs: Vec<ProgramStatus>,
}

/// How a program is.
#[derive(Debug, Serialize)]
pub struct ProgramStatus {
    program: &'static str,
    socket: PathBuf,
    health: Health,
    /// What it shows on its control socket; null where it does not answer.
    state: Value,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// Longest line of a health stream.
const MAX_HEALTH_LINE: u64 = 1024;

/// Asks the host's programs and prints what they say.
///
/// # Errors
/// The cluster file is wrong, the host is not in it, or standard output cannot be written.
pub fn run(args: &StatusArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.config.load()?;
    let status = HostStatus::ask(&cluster, args.host.find(&cluster)?, Duration::from_millis(args.timeout));
    if args.json {
        output::print_json(&status)?;
    } else {
        output::print(&render::text(&status))?;
    }
    Ok(ExitCode::from(match status.health {
        Health::Up => 0,
        Health::Degraded => 1,
        Health::Down => 2,
    }))
}

impl HostStatus {
    fn ask(cluster: &Cluster, host: &Host, timeout: Duration) -> Self {
        let programs: Vec<ProgramStatus> = programs_of(cluster, host)
            .into_iter()
            .map(|(program, socket)| ProgramStatus::ask(program, cluster.run_dir.join(socket), timeout))
            .collect();
        let health = programs.iter().map(|program| program.health).max_by_key(|health| badness(*health));
        Self { host: host.name.to_string(), health: health.unwrap_or(Health::Up), programs }
    }
}

/// The programs that a host's roles call for, each with its control socket's name.
fn programs_of(cluster: &Cluster, host: &Host) -> Vec<(&'static str, &'static str)> {
    let programs = [
        (host.lb && cluster.vip.is_some(), "evermq-vip", "vip.sock"),
        (host.lb, "evermq-lb", "lb.sock"),
        (host.broker, "evermq-broker", "broker.sock"),
    ];
    programs.into_iter().filter(|(runs, ..)| *runs).map(|(_, program, socket)| (program, socket)).collect()
}

const fn badness(health: Health) -> u8 {
    match health {
        Health::Up => 0,
        Health::Degraded => 1,
        Health::Down => 2,
    }
}

impl ProgramStatus {
    fn ask(program: &'static str, socket: PathBuf, timeout: Duration) -> Self {
        let health = match ask_health(&socket, timeout).or_else(|error| match error.kind() {
            // It ended with our question in its hands: whether somebody is there now says the next one.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ask_health(&socket, timeout),
            _ => Err(error),
        }) {
            Ok(health) => health,
            Err(error) => {
                return Self {
                    program,
                    health: Health::Down,
                    state: Value::Null,
                    error: Some(format!("no answer from {}: {error}", socket.display())),
                    help: Some(what_to_do(program, &error)),
                    socket,
                };
            }
        };
        let (state, error) = match control::request(&socket, &json!({ "request": "state" }), timeout) {
            Ok(state) => (state, None),
            Err(error) => (Value::Null, Some(error.to_string())),
        };
        let help =
            error.is_some().then(|| format!("is {program} of the same version as evermq? `{program} --version`"));
        Self { program, socket, health, state, error, help }
    }
}

/// The first line of the health stream, which a program sends at once.
fn ask_health(socket: &Path, timeout: Duration) -> io::Result<Health> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(b"{\"request\":\"health\"}\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_HEALTH_LINE)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str::<HealthLine>(&line)?.health)
}

fn what_to_do(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("it does not run: systemctl start {program}; why it stopped: journalctl -u {program} -n 50")
        }
        io::ErrorKind::PermissionDenied => "this user may not ask: use root or a member of the group evermq".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("it runs but is stuck: journalctl -u {program} -n 50, then systemctl restart {program}")
        }
        _ => format!("journalctl -u {program} -n 50 tells what it does"),
    }
}

#[cfg(test)]
mod tests;
