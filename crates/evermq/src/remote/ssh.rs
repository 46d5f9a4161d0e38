//! Commands on other hosts. The first command to a host opens a connection, which the others share (ControlMaster).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use zeroize::Zeroizing;

/// How hosts are reached.
#[derive(Debug, Clone, Args)]
pub struct RemoteArgs {
    /// User on the hosts [default: as ~/.ssh/config has it]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Become root there with sudo, which must not ask for a password
    #[arg(long)]
    pub sudo: bool,
    /// Ask for the user's password once, for all hosts
    #[arg(long)]
    pub ask_pass: bool,
    /// An option for ssh, such as ProxyJump=gate; may be given again
    #[arg(short = 'o', long = "ssh-option", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
}

/// Why a host was not reached, or a command there failed.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no ssh.
    #[error("cannot run ssh: {source}; install openssh-client")]
    NoSsh {
        /// Why.
        source: io::Error,
    },
    /// There is no shell.
    #[error("cannot run sh: {source}")]
    NoShell {
        /// Why.
        source: io::Error,
    },
    /// A directory for the connections' sockets cannot be made.
    #[error("cannot make a private directory below {}: {source}; set TMPDIR to one that can be written", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The password cannot be asked for.
    #[error("cannot ask for the password: {0}; use keys or an agent instead of --ask-pass")]
    Ask(io::Error),
    /// ssh itself failed: no connection, no login.
    #[error("cannot log in: {said}; try `ssh {target} true`, and mend ~/.ssh/config, keys or --user")]
    Login {
        /// Whom ssh was asked to reach.
        target: String,
        /// What it said.
        said: String,
    },
    /// A command ended with an error.
    #[error("{what} failed (exit status {status}): {said}")]
    Failed {
        /// What was done.
        what: String,
        /// Its exit status.
        status: i32,
        /// What it said.
        said: String,
    },
}

/// What a command left.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; 255 is ssh's own.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Connections to hosts.
#[derive(Debug)]
pub struct Ssh {
    args: RemoteArgs,
    /// The connections' sockets, and what answers a question for the password.
    directory: PathBuf,
    answers: Option<PathBuf>,
    /// Where names lead that have been asked about; none: where ~/.ssh/config says.
    addresses: Mutex<HashMap<String, Option<Ipv4Addr>>>,
}

impl Ssh {
    /// Nobody is connected to yet.
    ///
    /// # Errors
    /// There is no place for the sockets, or the password cannot be asked for.
    pub fn new(args: &RemoteArgs) -> Result<Self, RemoteError> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let base = base.unwrap_or_else(std::env::temp_dir);
        let failed = |source| RemoteError::Directory { path: base.clone(), source };
        // A short name: a socket's path has 108 bytes.
        let directory = base.join(format!("evermq-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        let mut ssh = Self { args: args.clone(), directory, answers: None, addresses: Mutex::default() };
        if args.ask_pass {
            let password = crate::passwd::ask("Password for ssh: ").map_err(RemoteError::Ask)?;
            ssh.answers = Some(ssh.answer_with(&password).map_err(failed)?);
        }
        Ok(ssh)
    }

    /// A program that prints the password, as ssh wants it (SSH_ASKPASS); gone when this is.
    fn answer_with(&self, password: &Zeroizing<Vec<u8>>) -> io::Result<PathBuf> {
        let (secret, program) = (self.directory.join("secret"), self.directory.join("answer"));
        let new = |path: &Path, mode| OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        new(&secret, 0o600)?.write_all(password)?;
        new(&program, 0o700)?.write_all(format!("#!/bin/sh\ncat '{}'\n", secret.display()).as_bytes())?;
        Ok(program)
    }

    /// Runs a shell command on a host, as root where `--sudo` says so.
    ///
    /// # Errors
    /// ssh cannot be run, or does not get in.
    pub fn run(&self, host: (&str, Ipv4Addr), command: &str, input: &[u8]) -> Result<Ended, RemoteError> {
        let wrapped = if self.args.sudo { format!("sudo -n sh -c {}", quoted(command)) } else { command.to_owned() };
        let mut ssh = self.command();
        if let Some(address) = self.address_for(host)? {
            ssh.arg("-o").arg(format!("HostName={address}"));
        }
        ssh.arg(host.0).arg("--").arg(wrapped);
        let ended = with_input(ssh, input).map_err(|source| RemoteError::NoSsh { source })?;
        if ended.status == 255 {
            return Err(RemoteError::Login { target: host.0.to_owned(), said: one_line(&ended.stderr) });
        }
        Ok(ended)
    }

    /// The same for a command that has to succeed; `what` says what it does. Gives its standard output.
    ///
    /// # Errors
    /// As [`Self::run`], and where its exit status is not 0.
    pub fn done(&self, host: (&str, Ipv4Addr), what: &str, command: &str, input: &[u8]) -> Result<String, RemoteError> {
        self.run(host, command, input)?.expect_success(what)
    }

    /// A directory of this user's alone, which goes when this does.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The host's address, unless ~/.ssh/config says where the name leads.
    fn address_for(&self, (name, address): (&str, Ipv4Addr)) -> Result<Option<Ipv4Addr>, RemoteError> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let mut ssh = self.command();
        ssh.arg("-G").arg(name);
        let ended = with_input(ssh, b"").map_err(|source| RemoteError::NoSsh { source })?;
        let leads_to = ended.stdout.lines().find_map(|line| line.strip_prefix("hostname "));
        let found = leads_to.is_none_or(|to| to.eq_ignore_ascii_case(name)).then_some(address);
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), found);
        Ok(found)
    }

    fn command(&self) -> Command {
        let mut ssh = Command::new("ssh");
        let control: OsString = self.directory.join("%C").into();
        for option in [
            "ControlMaster=auto",
            "ControlPersist=60",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
        ] {
            ssh.arg("-o").arg(option);
        }
        let mut path = OsString::from("ControlPath=");
        path.push(control);
        ssh.arg("-o").arg(path);
        match &self.answers {
            Some(program) => {
                // Versions before 8.4 look for a display and for the want of a terminal instead.
                ssh.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
                ssh.arg("-o").arg("NumberOfPasswordPrompts=1");
            }
            None => {
                ssh.arg("-o").arg("BatchMode=yes");
            }
        }
        if let Some(user) = &self.args.user {
            ssh.arg("-l").arg(user);
        }
        for option in &self.args.options {
            ssh.arg("-o").arg(option);
        }
        // Its own process group: an interrupt at the terminal ends this program, which says how far it is.
        ssh.process_group(0);
        ssh
    }
}

impl Ended {
    /// Standard output of a command that did what `what` says.
    ///
    /// # Errors
    /// Its exit status is not 0.
    pub fn expect_success(self, what: &str) -> Result<String, RemoteError> {
        if self.status == 0 {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        Err(RemoteError::Failed { what: what.to_owned(), status: self.status, said: one_line(said) })
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // Connections end by themselves after ControlPersist; their sockets go with the directory.
        for socket in fs::read_dir(&self.directory).into_iter().flatten().filter_map(Result::ok) {
            let mut path = OsString::from("ControlPath=");
            path.push(socket.path());
            let mut exit = Command::new("ssh");
            exit.arg("-o").arg(path).args(["-O", "exit", "evermq"]);
            let _ = exit.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs a program to its end with that standard input.
///
/// # Errors
/// It cannot be started, or the system fails.
pub fn with_input(mut command: Command, input: &[u8]) -> io::Result<Ended> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            // A program that does not read its input to the end has had enough of it.
            stdin.map(|mut stdin| stdin.write_all(input))
        });
        child.wait_with_output()
    })?;
    Ok(Ended {
        status: output.status.code().unwrap_or(255),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A word for a shell.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The last lines that say something, as one.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("; ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_stay_what_they_are() {
        for text in ["plain", "two words", "it's", "$HOME `x` \"y\" \\", "'", ""] {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("printf %s {}", quoted(text)));
            assert_eq!(with_input(shell, b"").unwrap().stdout, text);
        }
    }

    #[test]
    fn more_input_than_a_pipe_holds() {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("wc -c; exit 3");
        let ended = with_input(shell, &vec![b'x'; 1_000_000]).unwrap();
        assert_eq!((ended.stdout.trim(), ended.status), ("1000000", 3));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("echo deaf");
        assert_eq!(with_input(shell, &vec![b'x'; 1_000_000]).unwrap().stdout, "deaf\n");
    }
}
