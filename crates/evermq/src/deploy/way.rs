//! How commands get to a host: over ssh, or into a shell here (`evermq install`).

use std::net::Ipv4Addr;
use std::process;

use crate::remote::ssh::with_input;
use crate::remote::{Ended, RemoteError, Ssh};

/// The way to a host.
#[derive(Debug)]
pub enum Way {
    /// Over ssh.
    Ssh(Ssh),
    /// This is the host.
    Here,
}

impl Way {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// There is no way to the host.
    pub fn run(&self, host: (&str, Ipv4Addr), command: &str, input: &[u8]) -> Result<Ended, RemoteError> {
        match self {
            Self::Ssh(ssh) => ssh.run(host, command, input),
            Self::Here => {
                let mut shell = process::Command::new("sh");
                shell.arg("-c").arg(command);
                with_input(shell, input).map_err(|source| RemoteError::NoShell { source })
            }
        }
    }

    /// Runs a command that has to succeed; gives its standard output.
    ///
    /// # Errors
    /// There is no way to the host, or the command failed.
    pub fn done(&self, host: (&str, Ipv4Addr), what: &str, command: &str, input: &[u8]) -> Result<String, RemoteError> {
        self.run(host, command, input)?.expect_success(what)
    }
}
