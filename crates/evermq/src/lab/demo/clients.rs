//! The process in the client host: a publisher, a subscriber, and a prober of new connections.
//!
//! Tasks, all on this thread: the two clients and the prober end with the set that holds them; the prober owns its attempts.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::{JoinSet, LocalSet};

use super::events::{Client, Event, What};
use super::session::{Connection, Identity};
use super::tally::Tally;
use super::{prober, publisher, subscriber};
use crate::lab::clock;
use crate::lab::error::LabError;
use crate::lab::plan;

/// Where the client host has its certificates.
const TLS: &str = "/etc/evermq/tls";
/// A client gives up an attempt to connect after this: a SYN that met no host is repeated only after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A client that was refused tries again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long the end waits until every message is accounted for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How often that is looked at.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// How the demo starts this process.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::lab) struct ClientsArgs {
    /// Messages per second
    #[arg(long)]
    pub(super) rate: u32,
    /// Milliseconds between two new connections
    #[arg(long)]
    pub(super) probe_interval: u64,
}

/// What every task here shares.
pub(super) struct Shared {
    tally: RefCell<Tally>,
    /// No new messages any more.
    finishing: tokio::sync::watch::Receiver<bool>,
}

impl Shared {
    /// The count of messages.
    pub(super) fn tally<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.borrow_mut())
    }

    /// Whether no new messages are wanted.
    pub(super) fn is_finishing(&self) -> bool {
        *self.finishing.borrow()
    }
}

/// Runs until standard input ends or says that it is over, then reports.
pub(in crate::lab) fn run_clients(arguments: &ClientsArgs) -> Result<ExitCode, LabError> {
    let failed = || LabError::io("the demo's clients");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed())?;
    LocalSet::new().block_on(&runtime, run(arguments)).map_err(failed())?;
    Ok(ExitCode::SUCCESS)
}

async fn run(arguments: &ClientsArgs) -> io::Result<()> {
    let address: SocketAddrV4 = plan::service();
    let identity = |name| Identity::load(Path::new(TLS), name, address).map_err(|error| named(TLS, name, &error));
    let (finish, finishing) = tokio::sync::watch::channel(false);
    let shared = Rc::new(Shared { tally: RefCell::default(), finishing });
    let mut tasks = JoinSet::new();
    tasks.spawn_local(subscriber::run(identity("sub")?, shared.clone()));
    tasks.spawn_local(publisher::run(identity("pub")?, shared.clone(), arguments.rate));
    tasks.spawn_local(prober::run(identity("client")?, Duration::from_millis(arguments.probe_interval)));
    let mut input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut word = [0; 1];
    tokio::select! {
        ended = tasks.join_next() => return Err(io::Error::other(format!("a client has ended: {ended:?}"))),
        read = input.read(&mut word) => if read? == 0 {
            // The demo is gone; nobody reads a report.
            return Ok(());
        },
    }
    // A closed channel cannot be: `shared` holds the other end.
    let _ = finish.send(true);
    let settled = async {
        while !shared.tally(|tally| tally.is_settled()) {
            tokio::time::sleep(SETTLE_INTERVAL).await;
        }
    };
    let _ = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
    emit(What::Finished(shared.tally(|tally| tally.messages())))
}

/// Connects, at once again where that fails.
pub(super) async fn connect(identity: &Identity, client_id: &str) -> Connection {
    loop {
        match identity.connect(client_id, CONNECT_TIMEOUT).await {
            Ok(connection) => return connection,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// Tells the demo that a client is connected.
pub(super) fn connected(client: Client, broker: &str) -> io::Result<()> {
    emit(What::Connected { client, broker: broker.to_owned() })
}

/// Tells the demo that a client's connection has ended.
pub(super) fn disconnected(client: Client, reason: &io::Error) -> io::Result<()> {
    emit(What::Disconnected { client, reason: reason.to_string() })
}

/// Tells the demo what has just happened.
pub(super) fn emit(what: What) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Event::new(clock::monotonic(), what))?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

fn named(directory: &str, name: &str, error: &io::Error) -> io::Error {
    let path = PathBuf::from(directory).join(name);
    io::Error::other(format!("cannot use the certificate {}: {error}", path.display()))
}
