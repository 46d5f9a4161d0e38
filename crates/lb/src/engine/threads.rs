//! The workers' threads: made, and waited for.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use mio::Poll;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ended::Sink;
use super::gate::Gate;
use super::inbox::Inbox;
use super::turn::{Engine, ID_STEP, INBOX};
use super::worker::{Front, Settings, Worker};
use crate::peers::clients::Clients;
use crate::pool::Pool;
use crate::sources::Sources;

/// What all workers have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) limit: usize,
    pub(crate) pool: Arc<Pool>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) fronts: Arc<[Front]>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) lost: CancellationToken,
}

/// Workers that are made and not yet running.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) workers: Arc<[Arc<Worker>]>,
    pub(crate) fronts: Arc<[Front]>,
    engines: Vec<Engine>,
}

/// Threads that run.
#[derive(Debug)]
#[must_use = "the lb waits for its workers"]
pub(crate) struct Threads {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// Makes a worker for each set of listeners, each with the number of its address among `fronts`.
///
/// # Errors
/// There are too few descriptors.
pub(crate) fn make(
    common: &Common,
    listeners: Vec<Vec<(u16, TcpListener)>>,
    mut clients: impl FnMut(usize) -> Option<Clients>,
) -> io::Result<Made> {
    let polls = listeners
        .iter()
        .map(|_| {
            let poll = Poll::new()?;
            let inbox = Arc::new(Inbox::new(poll.registry(), INBOX)?);
            Ok((poll, inbox))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let gate = Arc::new(Gate::new(common.limit, polls.iter().map(|(_, inbox)| Arc::clone(inbox))));
    let start = first_id();
    let mut engines = Vec::new();
    let mut workers = Vec::new();
    for (index, ((poll, inbox), listeners)) in polls.into_iter().zip(listeners).enumerate() {
        let worker = Arc::new(Worker::new(index, inbox, Arc::clone(&gate), common, clients(index)));
        workers.push(Arc::clone(&worker));
        let first_id = start + index as u64 % ID_STEP;
        engines.push(Engine::new(
            poll,
            worker,
            Arc::clone(&common.settings),
            Arc::clone(&common.fronts),
            listeners,
            first_id,
        )?);
    }
    Ok(Made { workers: workers.into(), fronts: Arc::clone(&common.fronts), engines })
}

impl Made {
    /// Where clients connect, in the file's order.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.fronts.iter().map(|front| front.address).collect()
    }

    /// Starts the threads. Each holds an `alive` until it ends.
    ///
    /// # Errors
    /// A thread could not be made.
    pub(crate) fn start(self, alive: &mpsc::Sender<()>) -> io::Result<Threads> {
        let start = |(engine, worker): (Engine, &Arc<Worker>)| {
            let (alive, worker) = (alive.clone(), Arc::clone(worker));
            thread::Builder::new().name(format!("lb-{}", worker.index)).spawn(move || {
                let _alive = alive;
                // Also where it panics.
                let _lost = worker.lost.clone().drop_guard();
                engine.run()
            })
        };
        let threads = self.engines.into_iter().zip(&*self.workers).map(start).collect::<io::Result<_>>()?;
        Ok(Threads { threads })
    }
}

impl Threads {
    /// Waits until every worker has ended.
    ///
    /// # Errors
    /// The first worker's error, or that it panicked.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("worker").to_owned();
            let ended = thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("thread panicked"))).context(name);
            result = result.and(ended);
        }
        result
    }
}

/// Nanoseconds since 1970, with room for the worker's number. Each connection adds 256, which no host reaches in as many
/// nanoseconds, so a program that starts later begins above.
#[expect(clippy::disallowed_methods, reason = "numbers are to differ from those of an earlier start")]
fn first_id() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or_default() / ID_STEP * ID_STEP
}
