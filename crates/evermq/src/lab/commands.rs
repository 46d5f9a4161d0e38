//! What can be done to the hosts of a lab: cables, cuts, kills, programs, logs.

use std::fs;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::error::LabError;
use super::plan::Program;
use super::registry::Lab;
use super::wire::{HostRequest, KeeperRequest};
use super::{clock, remote};
use crate::output;

/// How long `lab stop` waits: longer than the programs' own `drain_timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// How often a program's end is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Most of a log file that is read back.
const MAX_TAIL: u64 = 1024 * 1024;

/// Takes out the cable of a host, or puts it in.
pub(super) fn cable(lab: &Lab, host: &str, connected: bool) -> Result<(), LabError> {
    remote::must_exist(host)?;
    remote::keeper(lab, &KeeperRequest::Cable { host: host.to_owned(), connected })
}

/// Cuts hosts off from each other, and from nobody else.
pub(super) fn cut(lab: &Lab, hosts: &[String]) -> Result<(), LabError> {
    for host in hosts {
        remote::must_exist(host)?;
    }
    remote::keeper(lab, &KeeperRequest::Cut { hosts: hosts.to_vec() })
}

/// Takes out the cable of a host and kills every process in it.
pub(super) fn kill(lab: &Lab, host: &str) -> Result<(), LabError> {
    remote::must_exist(host)?;
    remote::keeper(lab, &KeeperRequest::Kill { host: host.to_owned() })
}

/// Puts in the cable of a host and ends its part in a cut; starts it and each of its programs that does not run.
pub(super) fn heal(lab: &Lab, host: &str) -> Result<(), LabError> {
    remote::must_exist(host)?;
    remote::keeper::<Value>(lab, &KeeperRequest::Heal { host: host.to_owned() })?;
    remote::host(lab, host, &HostRequest::Start { program: None })
}

/// Starts a program of a host.
pub(super) fn start(lab: &Lab, host: &str, program: &str) -> Result<(), LabError> {
    remote::host(lab, host, &HostRequest::Start { program: Some(program.to_owned()) })
}

/// Asks a program of a host to end, and waits until it has.
pub(super) fn stop(lab: &Lab, host: &str, program: &str) -> Result<(), LabError> {
    remote::host::<Value>(lab, host, &HostRequest::Stop { program: program.to_owned() })?;
    let deadline = clock::now() + STOP_TIMEOUT;
    let wanted = Program::named(program).map(Program::name);
    while clock::now() < deadline {
        let states = remote::programs(lab, host)?;
        if states.iter().all(|state| Some(state.name.as_str()) != wanted || state.pid.is_none()) {
            return Ok(());
        }
        clock::pause(LOOK_INTERVAL);
    }
    Err(LabError::NotReady(format!(
        "{program} on {host} still runs {STOP_TIMEOUT:?} after SIGTERM; `evermq lab{} kill-program {host} {program}` ends it",
        lab.options()
    )))
}

/// Sends a program of a host a signal.
pub(super) fn signal(lab: &Lab, host: &str, program: &str, signal: Signal) -> Result<(), LabError> {
    remote::host(lab, host, &HostRequest::Signal { program: program.to_owned(), signal: signal as i32 })
}

/// A signal by its name, with or without SIG.
pub(super) fn signal_named(text: &str) -> Result<Signal, String> {
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&name).map_err(|_| "no such signal; for example KILL, TERM, STOP, CONT, HUP".to_owned())
}

/// Prints the log of a program, or of every program of a host.
pub(super) fn logs(lab: &Lab, host: &str, program: Option<&str>, lines: Option<usize>) -> Result<(), LabError> {
    let plan = remote::must_exist(host)?;
    let directory = lab.host_directory(host).join("logs");
    let files: Vec<&str> = match program {
        None => plan.programs.iter().map(|program| program.name()).chain(["host"]).collect(),
        Some("host") => vec!["host"],
        Some(name) => {
            let program = Program::named(name).filter(|program| plan.programs.contains(program));
            vec![program.ok_or_else(|| LabError::Refused(format!("there is no program \"{name}\" on {host}")))?.name()]
        }
    };
    for file in &files {
        let path = directory.join(format!("{file}.log"));
        let text = tail(&path, lines.unwrap_or(usize::MAX));
        if files.len() > 1 && !text.is_empty() {
            print(&format!("==> {host} {file} ({}) <==\n", path.display()))?;
        }
        print(&text)?;
    }
    Ok(())
}

/// The last lines of a log file; nothing where there is none.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX_TAIL)))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let skip = text.lines().count().saturating_sub(lines);
    text.lines().skip(skip).map(|line| format!("{line}\n")).collect()
}

fn print(text: &str) -> Result<(), LabError> {
    output::print(text).map_err(LabError::io("cannot write the output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name() {
        for name in ["KILL", "sigkill", "SIGKILL"] {
            assert_eq!(signal_named(name), Ok(Signal::SIGKILL));
        }
        assert!(signal_named("9x").is_err());
    }

    #[test]
    fn the_tail_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\ntwo\nthree").unwrap();
        assert_eq!(tail(file.path(), 2), "two\nthree\n");
        assert_eq!(tail(file.path(), usize::MAX), "one\ntwo\nthree\n");
        assert_eq!(tail(Path::new("/does/not/exist"), 2), "");
    }
}
