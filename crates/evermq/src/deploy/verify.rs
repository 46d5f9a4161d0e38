//! Whether it works: a message through the VIP, received from every broker.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evermq_config::Cluster;

use crate::certs::authority::{Authority, Leaf, Validity};
use crate::certs::{CertsError, ClientName};

/// A client's files.
#[derive(Debug, Clone)]
pub struct Client {
    /// The authority.
    pub ca: PathBuf,
    /// Its certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How long subscribers wait, in seconds; brokers that have just been started find each other well within it.
const PATIENCE: u32 = 20;
/// Between two messages.
const EVERY: Duration = Duration::from_millis(250);
/// The topic's first part: rules that name topics have to allow it, or `--no-verify` leaves the message out.
const TOPIC: &str = "evermq/deploy";

impl Client {
    /// A client for this once, valid for a day, signed by the authority whose key is here.
    ///
    /// # Errors
    /// There is no such key, or the disk refuses.
    pub fn for_once(tls: &Path, directory: &Path) -> Result<Self, CertsError> {
        let now = crate::certs::now();
        let authority = Authority::load(&tls.join("ca.crt"), &tls.join("ca.key"), now)?;
        let name: ClientName = "evermq-deploy".parse().expect("a client's name");
        let issued = authority.issue(&Leaf::Client { name: &name }, Validity::days(now, 1)?)?;
        let client =
            Self { ca: tls.join("ca.crt"), cert: directory.join("client.crt"), key: directory.join("client.key") };
        for (path, contents) in [(&client.cert, &issued.certificate), (&client.key, &issued.key)] {
            let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let written = written.and_then(|mut file| file.write_all(contents.as_bytes()));
            written.map_err(|source| CertsError::Write { path: path.clone(), source })?;
        }
        Ok(client)
    }
}

/// Subscribes at every broker, publishes through the VIP (or an lb where there is none), and says which brokers had nothing.
///
/// # Errors
/// The programs cannot be run, or nothing could be published; the text says what it was.
pub fn verify(cluster: &Cluster, client: &Client) -> io::Result<Result<String, String>> {
    let port = cluster.lb.listen().port();
    let through = match cluster.vips().next() {
        Some(vip) => SocketAddr::new(vip, port),
        None => SocketAddr::new(cluster.lbs().next().map_or([127, 0, 0, 1].into(), |lb| lb.address.into()), port),
    };
    let topic = format!("{TOPIC}/{}", std::process::id());
    let mut waiting: Vec<(String, Child)> = Vec::new();
    for broker in cluster.brokers() {
        let at = SocketAddr::new(broker.address.into(), cluster.broker.listen.port());
        let patience = PATIENCE.to_string();
        let more = ["-t", &topic, "-q", "1", "-C", "1", "-W", &patience];
        waiting.push((broker.name.to_string(), program("sub", at, client, &more).spawn()?));
    }
    let (mut published, mut last) = (false, String::new());
    while waiting.iter_mut().any(|(_, child)| matches!(child.try_wait(), Ok(None))) {
        let done = program("pub", through, client, &["-t", &topic, "-q", "1", "-m", "deployed"]).output()?;
        published |= done.status.success();
        if !done.status.success() {
            last = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        }
        pause();
    }
    let mut without = Vec::new();
    let mut said = String::new();
    let count = waiting.len();
    for (name, child) in waiting {
        let ended = child.wait_with_output()?;
        if !ended.status.success() || ended.stdout.is_empty() {
            said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            without.push(name);
        }
    }
    if !published {
        return Ok(Err(format!("nothing could be published through {through}: {last}")));
    }
    if without.is_empty() {
        return Ok(Ok(format!("a message through {through} came to all {count} brokers")));
    }
    let reason = if said.is_empty() { String::new() } else { format!(": {said}") };
    Ok(Err(format!("a message through {through} did not come to {}{reason}", without.join(", "))))
}

fn program(what: &str, at: SocketAddr, client: &Client, more: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "evermq".into()));
    command.arg(what).arg("-h").arg(at.ip().to_string()).arg("-p").arg(at.port().to_string());
    command.arg("--cafile").arg(&client.ca).arg("--cert").arg(&client.cert).arg("--key").arg(&client.key);
    command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "other hosts' brokers can only be asked; the subscribers have a deadline"
)]
fn pause() {
    std::thread::sleep(EVERY);
}
