//! What control socket, metrics, reload and the mover of connections share, all of them on the control thread.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evermq_config::LbConfig;
use evermq_config::lb::Listener;
use evermq_daemon::health::Health;
use tokio::sync::{oneshot, watch};

use crate::access_log::Hand;
use crate::admin::{self, Admin, Board};
use crate::engine::inbox::Order;
use crate::engine::steering::{Look, Slice, Steer, Target};
use crate::engine::turn::ID_STEP;
use crate::engine::worker::{Front, Worker};
use crate::peers::Peers;
use crate::pool::Pool;
use crate::tally::Books;
use crate::view::Row;

/// A worker that takes longer for a turn than this hangs; evermq-vip has been told by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// The desk.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) started: Instant,
    pub(crate) workers: Arc<[Arc<Worker>]>,
    pub(crate) board: Arc<Board>,
    pub(crate) books: Arc<Books>,
    pub(crate) log: Hand,
    pub(crate) peers: Option<Arc<Peers>>,
    pub(crate) health: watch::Receiver<Health>,
    in_force: Mutex<InForce>,
    /// One look at all connections at a time: it costs the workers something.
    looking: tokio::sync::Mutex<()>,
}

/// What there is at the start.
pub(crate) struct Parts {
    pub(crate) config: LbConfig,
    pub(crate) pool: Arc<Pool>,
    pub(crate) fronts: Arc<[Front]>,
    pub(crate) workers: Arc<[Arc<Worker>]>,
    pub(crate) board: Arc<Board>,
    pub(crate) books: Arc<Books>,
    pub(crate) log: Hand,
    pub(crate) peers: Option<Arc<Peers>>,
    pub(crate) health: watch::Receiver<Health>,
}

/// What a reload changes.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub(crate) config: Arc<LbConfig>,
    pub(crate) pool: Arc<Pool>,
    /// Every address that there was; those that are gone keep their places.
    pub(crate) fronts: Arc<[Front]>,
    /// For each of them, what the file says of it; none where it is gone.
    pub(crate) places: Arc<[Option<Listener>]>,
    pub(crate) reloads: Reloads,
    /// Why the file was not put in force, the last time that it was read, if it was not.
    pub(crate) refused: Option<String>,
}

impl InForce {
    /// Where clients connect: the first address.
    pub(crate) fn listen(&self) -> SocketAddr {
        let there = self.fronts.iter().zip(&*self.places).find(|(_, place)| place.is_some());
        there.map_or_else(|| self.config.lb.listen(), |(front, _)| front.address)
    }
}

/// How reloads went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reloads {
    pub(crate) done: u64,
    pub(crate) refused: u64,
}

/// A worker did not answer.
#[derive(Debug, thiserror::Error)]
#[error("worker {0} does not answer")]
pub(crate) struct Hangs(usize);

impl Desk {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, pool, fronts, workers, board, books, log, peers, health } = parts;
        let places = config.lb.listeners.iter().cloned().map(Some).collect();
        let reloads = Reloads::default();
        let in_force = InForce { config: Arc::new(config), pool, fronts, places, reloads, refused: None };
        Self {
            started: clock(),
            workers,
            board,
            books,
            log,
            peers,
            health,
            in_force: Mutex::new(in_force),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// This host's name, as answers begin.
    pub(crate) fn host(&self) -> String {
        self.in_force().config.host.as_str().to_owned()
    }

    /// What holds now.
    pub(crate) fn in_force(&self) -> InForce {
        self.lock().clone()
    }

    /// Something else holds from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut InForce)) {
        change(&mut self.lock());
    }

    /// The backends, as they are now.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.lock().pool)
    }

    /// Gives an order to every worker.
    pub(crate) fn order(&self, order: impl Fn() -> Order) {
        self.workers.iter().for_each(|worker| worker.inbox.post(order()));
    }

    /// Has what operators have said hold for the backends that there are now.
    pub(crate) fn apply_words(&self) {
        let (pool, words) = (self.pool(), self.board.words());
        let mut closes = false;
        for (index, member) in pool.members().iter().enumerate() {
            let word = words.of(member.name());
            closes |= word.admin == Admin::Maint && member.admin() != Admin::Maint;
            member.set_admin(word.admin);
            member.set_weight(word.weight.unwrap_or_else(|| pool.config(index).weight));
        }
        if closes {
            self.order(|| Order::Sweep);
        }
    }

    /// An operator says something of a backend here. Whether it was taken; there may be too much said already.
    pub(crate) fn say(&self, backend: &str, change: admin::Change) -> bool {
        let host = self.host();
        let before = self.board.words().of(backend);
        let Some(word) = self.board.say(backend, change, &host, wall_millis()) else { return false };
        admin::log(backend, &before, &word, "an operator");
        self.apply_words();
        true
    }

    /// Every connection of every worker, or of those that `wanted` names by their index.
    ///
    /// # Errors
    /// A worker hangs.
    pub(crate) async fn rows(&self, wanted: impl Fn(usize) -> bool) -> Result<Vec<Row>, Hangs> {
        let _turn = self.looking.lock().await;
        let mut rows = Vec::new();
        for worker in self.workers.iter().filter(|worker| wanted(worker.index)) {
            let mut from = Some(0);
            while let Some(place) = from {
                let (reply, answer) = oneshot::channel();
                worker.inbox.post(Order::Look(Look { from: place, reply }));
                let Slice { rows: more, next } = answered(worker, answer).await?;
                rows.extend(more);
                from = next;
            }
        }
        Ok(rows)
    }

    /// Waits until every worker has done what it was told before.
    ///
    /// # Errors
    /// A worker hangs.
    pub(crate) async fn settled(&self) -> Result<(), Hangs> {
        for worker in &*self.workers {
            let (reply, answer) = oneshot::channel();
            worker.inbox.post(Order::Look(Look { from: usize::MAX, reply }));
            answered(worker, answer).await?;
        }
        Ok(())
    }

    /// Closes these, or has it only noted why they will end. Gives the numbers of those that were there.
    ///
    /// # Errors
    /// A worker hangs.
    pub(crate) async fn steer(&self, targets: &[Target], close: bool) -> Result<Vec<u64>, Hangs> {
        let mut there = Vec::new();
        for worker in &*self.workers {
            let own: Vec<Target> = targets.iter().filter(|target| is_of(target.id, worker.index)).copied().collect();
            if own.is_empty() {
                continue;
            }
            let (reply, answer) = oneshot::channel();
            worker.inbox.post(Order::Steer(Steer { targets: own, close, reply }));
            there.extend(answered(worker, answer).await?);
        }
        there.sort_unstable();
        there.dedup();
        Ok(there)
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the connection of that number may be that worker's.
pub(crate) const fn is_of(connection: u64, worker: usize) -> bool {
    connection % ID_STEP == worker as u64 % ID_STEP
}

async fn answered<T>(worker: &Worker, answer: oneshot::Receiver<T>) -> Result<T, Hangs> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Hangs(worker.index)),
    }
}

pub(crate) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "lbs agree by wall time on who spoke last")]
fn wall_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use evermq_config::cluster::LogFormat;

    use super::*;
    use crate::access_log::{AccessLog, Target};

    /// A cluster of one lb and one broker.
    const FILE: &str = "[cluster]\nname = \"test\"\n[lb]\nlisten = \"127.0.0.1:9000\"\n\
        [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n\
        [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.10\"\nroles = [\"broker\"]\n";

    /// The configuration that goes with it.
    pub(crate) fn config() -> LbConfig {
        let loaded = evermq_config::parse(std::path::Path::new("/test.toml"), FILE);
        loaded.unwrap_or_else(|report| panic!("{report}")).cluster.lb_for("lb1").unwrap()
    }

    /// A desk for these workers.
    pub(crate) fn desk(
        pool: &Arc<Pool>,
        fronts: &Arc<[Front]>,
        workers: Arc<[Arc<Worker>]>,
        health: watch::Receiver<Health>,
    ) -> Desk {
        let log = AccessLog::start(Target::Off, LogFormat::Text).unwrap();
        Desk::new(Parts {
            config: config(),
            pool: Arc::clone(pool),
            fronts: Arc::clone(fronts),
            workers,
            board: Arc::default(),
            books: Arc::new(Books::new()),
            log: log.hand(),
            peers: None,
            health,
        })
    }
}
