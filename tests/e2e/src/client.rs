//! mosquitto's clients, paho-mqtt, openssl and the load generator in the lab's client host.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Output;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, Running};
use crate::{PORT, VIP};

/// Where the client certificates are in the client host.
pub const TLS: &str = "/etc/evermq/tls";
/// How long a client may take for what takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The Python that has paho-mqtt: `EVERMQ_TEST_PYTHON`, or that of `make test-tools`.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn python() -> String {
    let python = std::env::var("EVERMQ_TEST_PYTHON").unwrap_or_else(|_| in_workspace("target/test-venv/bin/python"));
    assert!(Path::new(&python).exists(), "{python} is missing; run `make test-tools`");
    python
}

/// The path of one of `tests/clients`.
#[must_use]
pub fn script(name: &str) -> String {
    in_workspace(&format!("tests/clients/{name}"))
}

fn in_workspace(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
    root.join(path).display().to_string()
}

/// The certificate options of mosquitto's clients, of `evermq pub` and of the load generator.
#[must_use]
pub fn tls_options(client: &str) -> Vec<String> {
    [
        "--cafile",
        &format!("{TLS}/ca.crt"),
        "--cert",
        &format!("{TLS}/{client}.crt"),
        "--key",
        &format!("{TLS}/{client}.key"),
    ]
    .map(ToOwned::to_owned)
    .to_vec()
}

fn line(program: &str, address: (&str, &str), client: &str, options: &[&str]) -> Vec<String> {
    let mut line =
        vec![program.to_owned(), "-h".to_owned(), address.0.to_owned(), "-p".to_owned(), address.1.to_owned()];
    line.extend(tls_options(client));
    line.extend(options.iter().map(|option| (*option).to_owned()));
    line
}

fn borrowed(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// A subscriber whose lines are read as they come.
pub struct Subscriber {
    _process: Running,
    lines: Receiver<String>,
}

impl Subscriber {
    /// The next line.
    ///
    /// # Panics
    /// None comes in time.
    #[must_use]
    pub fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a message in time")
    }

    /// The next line, if one comes within `time`.
    #[must_use]
    pub fn next_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }
}

impl Lab {
    /// Publishes with `program` (`mosquitto_pub` or the path of `evermq` with its verb) at `address`.
    #[must_use]
    pub fn publish_at(&self, address: (&str, &str), options: &[&str]) -> Output {
        self.exec("client", &borrowed(&line("mosquitto_pub", address, "pub", options)))
    }

    /// Publishes through the VIP, which must succeed.
    ///
    /// # Panics
    /// It fails.
    pub fn publish(&self, options: &[&str]) {
        let output = self.publish_at((VIP, PORT), options);
        assert!(output.status.success(), "mosquitto_pub {options:?}: {}", crate::lab::text(&output));
    }

    /// Subscribes at `address` with mosquitto_sub; returns when the broker has acknowledged.
    ///
    /// # Panics
    /// No acknowledgement comes in time.
    #[must_use]
    pub fn subscribe_at(&self, address: (&str, &str), options: &[&str]) -> Subscriber {
        // -d shows the acknowledgement; unbuffered because a pipe would hold lines back.
        let mut command = vec!["stdbuf".to_owned(), "-oL".to_owned()];
        command.extend(line("mosquitto_sub", address, "sub", options));
        command.push("-d".to_owned());
        let mut process = self.spawn("client", &borrowed(&command));
        let stdout = process.child().stdout.take().expect("piped");
        let (sender, lines) = channel();
        let (ready, subscribed) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("Subscribed") {
                    let _ = ready.send(());
                } else if !line.starts_with("Client ") {
                    let _ = sender.send(line);
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).expect("a SUBACK in time");
        Subscriber { _process: process, lines }
    }

    /// Runs the load generator in the client host and gives its result.
    ///
    /// # Panics
    /// It fails.
    #[must_use]
    pub fn load(&self, options: &[&str]) -> Value {
        finish_load(self.start_load(options))
    }

    /// Starts the load generator in the client host.
    #[must_use]
    pub fn start_load(&self, options: &[&str]) -> Running {
        let mut command = vec![self.path_of("evermq-load")];
        command.extend(options.iter().map(|option| (*option).to_owned()));
        command.extend(tls_options("client"));
        self.spawn("client", &borrowed(&command))
    }
}

/// Waits until all clients of a `hold` are connected.
///
/// # Panics
/// It ends before.
pub fn wait_ready(holding: &mut Running) {
    let mut line = String::new();
    let stderr = holding.child().stderr.take().expect("piped");
    BufReader::new(stderr).read_line(&mut line).expect("readable");
    assert_eq!(line, "ready\n");
}

/// The result of a load generator.
///
/// # Panics
/// It failed.
#[must_use]
pub fn finish_load(running: Running) -> Value {
    let output = running.finish();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("evermq-load: {error}: {}", crate::lab::text(&output)))
}
