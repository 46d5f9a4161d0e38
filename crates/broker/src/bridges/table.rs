//! All bridges of this host: those that the cluster file has, and no others.
//!
//! One task on a thread of its own; it owns the tasks of the bridges. They end with their tokens, and the thread ends when all of
//! them have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use evermq_bridge::Message;
use evermq_config::{BridgeConfig, HostName};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::forwarded::Marks;
use super::keeper::Keeper;
use super::notices::Word;
use super::prepared::{PrepareError, Prepared};
use super::session;
use super::standby::Standby;
use super::status::Status;
use crate::broker::Broker;
use crate::connection::clock;
use crate::listener::conditions;

/// How often hosts look who is up, and say how far they are.
const LOOK: Duration = Duration::from_millis(250);
/// Whoever has changed the bridges waits no longer for it.
const SETTLED: Duration = Duration::from_secs(5);

/// The bridges, as everybody sees them.
#[derive(Debug)]
pub struct Table {
    wanted: watch::Sender<Wanted>,
    /// The number of those that are there.
    followed: watch::Sender<u64>,
    /// In the file's order.
    shown: Mutex<Vec<(String, Arc<Status>)>>,
}

/// Bridges that are to be there, numbered.
#[derive(Debug, Clone)]
struct Wanted {
    number: u64,
    bridges: Arc<Vec<Prepared>>,
}

/// The bridges' thread.
#[derive(Debug)]
pub struct Running {
    /// To be looked at, and changed.
    pub table: Arc<Table>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A bridge's task.
struct Kept {
    prepared: Prepared,
    status: Arc<Status>,
    stop: CancellationToken,
    /// Whether this host keeps the connection.
    active: watch::Sender<bool>,
    standby: Standby,
    /// How far it was when it kept it last.
    marks: Marks,
    /// The one task.
    task: JoinSet<()>,
}

/// Reads all files that the bridges' entries name.
///
/// # Errors
/// One of them cannot be used.
pub fn load(bridges: &[BridgeConfig]) -> Result<Vec<Prepared>, PrepareError> {
    bridges.iter().map(Prepared::load).collect()
}

/// Makes the sessions of `bridges`, ends those of others, and starts to connect. The sessions are there when this returns: a
/// message that is published from then on waits for its bridge.
///
/// # Errors
/// There is no thread.
pub fn start(
    broker: &Arc<Broker>,
    host: &HostName,
    bridges: Vec<Prepared>,
    conditions: &conditions::Shared,
) -> std::io::Result<Running> {
    session::end_all_but(broker, &names(&bridges), clock());
    take_up(broker, &bridges, clock());
    let (wanted, changes) = watch::channel(Wanted { number: 1, bridges: Arc::new(bridges) });
    let table = Arc::new(Table { wanted, followed: watch::channel(0).0, shown: Mutex::default() });
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (broker, host, conditions) = (Arc::clone(broker), host.clone(), Arc::clone(conditions));
    let keeping = Keeping { broker, host, conditions, kept: BTreeMap::new() };
    let run = keeping.run(Arc::clone(&table), changes, stop.clone());
    let thread = thread::Builder::new().name("bridges".to_owned()).spawn(move || runtime.block_on(run))?;
    Ok(Running { table, stop, thread: Some(thread) })
}

impl Table {
    /// Other bridges, or others of the same names.
    pub fn replace(&self, broker: &Broker, bridges: Vec<Prepared>) {
        let Wanted { number, bridges: before } = self.wanted.borrow().clone();
        let bridges: Vec<_> = bridges.into_iter().map(|new| new.after(&before)).collect();
        for prepared in &bridges {
            session::apply_limits(broker, prepared);
        }
        self.wanted.send_replace(Wanted { number: number + 1, bridges: Arc::new(bridges) });
    }

    /// Until the bridges are those that were wanted last, or it takes too long.
    pub async fn settled(&self) {
        let wanted = self.wanted.borrow().number;
        let mut followed = self.followed.subscribe();
        // It cannot have gone: this table has the other end.
        let _ = tokio::time::timeout(SETTLED, followed.wait_for(|number| *number >= wanted)).await;
    }

    /// As the control socket shows them.
    #[must_use]
    pub fn show(&self, broker: &Broker, now: Instant) -> Vec<Value> {
        self.shown.lock().iter().map(|(name, status)| status.show(name, broker, now)).collect()
    }
}

impl Running {
    /// Says goodbye to the remote brokers; the thread ends soon after.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end.
    pub fn join(mut self) {
        self.begin_stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the bridges' thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

fn names(bridges: &[Prepared]) -> Vec<&str> {
    bridges.iter().map(|prepared| prepared.config.bridge.name.as_str()).collect()
}

fn take_up<'a>(broker: &Broker, bridges: impl IntoIterator<Item = &'a Prepared>, now: Instant) {
    for prepared in bridges {
        if let Err(reason) = session::prepare(broker, prepared, now) {
            let bridge = &prepared.config.bridge.name;
            tracing::warn!(
                bridge,
                reason = reason.name(),
                "there is no room for a bridge's session: free disk space, or raise broker.max_sessions"
            );
        }
    }
}

/// What the task of all bridges has.
struct Keeping {
    broker: Arc<Broker>,
    host: HostName,
    conditions: conditions::Shared,
    kept: BTreeMap<String, Kept>,
}

impl Keeping {
    async fn run(mut self, table: Arc<Table>, mut changes: watch::Receiver<Wanted>, stop: CancellationToken) {
        let mut words = self.broker.router.notices.listen();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = changes.borrow_and_update().clone();
        self.follow(&table, &wanted).await;
        loop {
            let has_others = self.kept.values().any(Kept::has_others);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let wanted = changes.borrow_and_update().clone();
                    self.follow(&table, &wanted).await;
                }
                _ = look.tick(), if has_others => self.look(clock()),
                Some(word) = hear(&mut words) => {
                    if let Some(word) = Word::read(&word) {
                        self.handle_word(&word, clock());
                    }
                }
            }
        }
        end(&mut self.kept).await;
    }

    /// Ends the bridges that are not wanted any more and begins those that are new. One that has changed is both.
    async fn follow(&mut self, table: &Table, Wanted { number, bridges: wanted }: &Wanted) {
        let is_wanted = |kept: &Kept| wanted.iter().any(|wanted| wanted.is_same(&kept.prepared));
        let (stay, mut leave): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.kept).into_iter().partition(|(_, kept)| is_wanted(kept));
        self.kept = stay;
        end(&mut leave).await;
        session::end_all_but(&self.broker, &names(wanted), clock());
        let is_new = |new: &&Prepared| !self.kept.contains_key(&new.config.bridge.name);
        let new: Vec<_> = wanted.iter().filter(is_new).collect();
        take_up(&self.broker, new.iter().copied(), clock());
        for kept in self.kept.values_mut() {
            kept.meet(wanted, clock());
        }
        for prepared in new {
            self.kept.insert(prepared.config.bridge.name.clone(), self.keep(prepared, clock()));
        }
        let shown = |prepared: &Prepared| {
            let name = &prepared.config.bridge.name;
            self.kept.get(name).map(|kept| (name.clone(), Arc::clone(&kept.status)))
        };
        *table.shown.lock() = wanted.iter().filter_map(shown).collect();
        table.followed.send_replace(*number);
    }

    fn keep(&self, prepared: &Prepared, now: Instant) -> Kept {
        let standby = Standby::new(&prepared.config, now);
        let status = Arc::new(Status::new(now));
        let stop = CancellationToken::new();
        let (active, is_active) = watch::channel(standby.is_active());
        let keeper = Keeper {
            broker: Arc::clone(&self.broker),
            prepared: prepared.clone(),
            status: Arc::clone(&status),
            conditions: Arc::clone(&self.conditions),
            active: is_active,
            is_subscribed: false,
        };
        let mut task = JoinSet::new();
        task.spawn(keeper.run(stop.clone()));
        Kept { prepared: prepared.clone(), status, stop, active, standby, marks: Marks::new(), task }
    }

    /// Whether this host is to keep the connections, by who is up now, and a word to the others.
    fn look(&mut self, now: Instant) {
        let mesh = self.broker.backbone.state();
        let peers = mesh["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_up =
            |host: &HostName| peers.iter().any(|peer| peer["name"] == host.as_str() && peer["receiving"] == true);
        let latest = self.broker.router.notices.latest(&self.broker);
        for (name, kept) in self.kept.iter_mut().filter(|(_, kept)| kept.has_others()) {
            let was_active = kept.standby.is_active();
            kept.standby.handle_look(is_up, now);
            let is_active = kept.standby.is_active();
            if was_active || is_active {
                // What it has been told of others is not its own to tell.
                kept.marks = session::marks(&self.broker, name, latest.clone()).unwrap_or_default();
            }
            kept.tell();
            Word { bridge: name.clone(), host: self.host.clone(), marks: kept.marks.clone() }.say(&self.broker, now);
        }
    }

    /// Another host is so far.
    fn handle_word(&mut self, word: &Word, now: Instant) {
        let Some(kept) = self.kept.get_mut(&word.bridge) else { return };
        if !kept.prepared.config.others.contains(&word.host) {
            return;
        }
        if kept.prepared.forwarded.raise(&word.marks) {
            session::drop_forwarded(&self.broker, &word.bridge, now);
        }
        kept.standby.handle_word(&word.host);
    }
}

impl Kept {
    /// It goes on with the hosts that it has now.
    fn meet(&mut self, wanted: &[Prepared], now: Instant) {
        if let Some(now_wanted) = wanted.iter().find(|wanted| wanted.is_same(&self.prepared))
            && now_wanted.config != self.prepared.config
        {
            self.standby.handle_hosts(&now_wanted.config, now);
            self.tell();
            self.prepared = now_wanted.clone();
        }
    }

    /// The bridge's task hears whether this host keeps the connection.
    fn tell(&self) {
        let is_active = self.standby.is_active();
        self.active.send_if_modified(|active| std::mem::replace(active, is_active) != is_active);
    }

    fn has_others(&self) -> bool {
        !self.prepared.config.others.is_empty()
    }
}

async fn hear(words: &mut Option<mpsc::Receiver<Arc<Message>>>) -> Option<Arc<Message>> {
    match words {
        Some(words) => words.recv().await,
        None => std::future::pending().await,
    }
}

async fn end(kept: &mut BTreeMap<String, Kept>) {
    kept.values().for_each(|kept| kept.stop.cancel());
    for kept in kept.values_mut() {
        while let Some(ended) = kept.task.join_next().await {
            if ended.is_err() {
                tracing::error!(bridge = kept.prepared.config.bridge.name, "a bridge's task panicked");
            }
        }
    }
}
