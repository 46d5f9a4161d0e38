//! Asking the programs of this host on their control sockets. All of it blocks, for as long as it is told at the most.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermq_config::Cluster;
use evermq_config::cluster::Host;
use evermq_daemon::control;
use evermq_daemon::health::{Health, HealthLine};
use serde_json::{Value, json};

use crate::report::{HostReport, ProgramReport};
use crate::{CONTROL_SOCKET, PROGRAM};

/// Longest line of a health stream.
const MAX_HEALTH_LINE: u64 = 1024;

/// A program, and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its control socket.
    pub socket: PathBuf,
}

/// The programs that a host's roles call for.
#[must_use]
pub fn programs_of(cluster: &Cluster, host: &Host) -> Vec<Program> {
    let programs = [
        (host.lb && cluster.vip.is_some(), "evermq-vip", "vip.sock"),
        (host.lb, "evermq-lb", "lb.sock"),
        (host.broker, "evermq-broker", "broker.sock"),
        (cluster.admin.listen.is_some(), PROGRAM, CONTROL_SOCKET),
    ];
    let program = |name, socket: &str| Program { name, socket: cluster.run_dir.join(socket) };
    programs.into_iter().filter(|(runs, ..)| *runs).map(|(_, name, socket)| program(name, socket)).collect()
}

/// Asks all of them, one after the other.
#[must_use]
pub fn look(host: &Host, programs: &[Program], timeout: Duration) -> HostReport {
    let reports = programs.iter().map(|program| ask(program, timeout)).collect();
    HostReport::new(host.name.to_string(), now_ms(), reports)
}

/// Asks one.
#[must_use]
pub fn ask(program: &Program, timeout: Duration) -> ProgramReport {
    let Program { name, socket } = program;
    let report = ProgramReport {
        program: (*name).to_owned(),
        socket: socket.clone(),
        health: Health::Down,
        state: Value::Null,
        about: None,
        rates: None,
        error: None,
        help: None,
    };
    let health = match ask_health(socket, timeout).or_else(|error| match error.kind() {
        // It ended with our question in its hands: whether somebody is there now says the next one.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ask_health(socket, timeout),
        _ => Err(error),
    }) {
        Ok(health) => health,
        Err(error) => {
            let help = Some(what_to_do(name, &error));
            return ProgramReport {
                error: Some(format!("no answer from {}: {error}", socket.display())),
                help,
                ..report
            };
        }
    };
    let (state, error) = match control::request(socket, &json!({ "request": "state" }), timeout) {
        Ok(state) => (state, None),
        Err(error) => (Value::Null, Some(error.to_string())),
    };
    let help = error.is_some().then(|| format!("is {name} of the same version as evermq? `{name} --version`"));
    // A program of an older version does not know the question.
    let about = control::request(socket, &json!({ "request": "about" }), timeout).ok();
    let about = about.and_then(|about| serde_json::from_value(about).ok());
    ProgramReport { health, state, about, error, help, ..report }
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

/// The wall clock, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "people on several hosts compare it")]
#[must_use]
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
