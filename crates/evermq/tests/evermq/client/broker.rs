//! Debian's mosquitto on a free port of the loopback interface.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{From, Running};

/// A broker, killed when dropped.
pub(crate) struct Broker {
    pub(crate) port: u16,
    process: Running,
    _dir: TempDir,
}

impl Broker {
    /// Plain and open to everybody.
    pub(crate) fn plain() -> Self {
        Self::start("allow_anonymous true\n")
    }

    /// With more settings of mosquitto.conf for its one listener.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_on(evermq_ports::free_port(), settings)
    }

    pub(crate) fn start_on(port: u16, settings: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("mosquitto.conf");
        let text = format!("user root\nlog_dest stderr\nlog_type all\nlistener {port} 127.0.0.1\n{settings}");
        std::fs::write(&file, text).expect("a config file");
        let mut process = Running::start(mosquitto(&file));
        process.wait_for(From::Stderr, "running");
        Self { port, process, _dir: dir }
    }

    /// Waits until the broker logs `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.process.wait_for(From::Stderr, text);
    }

    /// Where it listens, as flags.
    pub(crate) fn at(&self) -> String {
        format!("-h 127.0.0.1 -p {}", self.port)
    }
}

fn mosquitto(config: &Path) -> Command {
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(config);
    command
}
