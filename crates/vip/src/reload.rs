//! Reads the cluster file again, and puts what it says in force, on the ordinary thread.
//!
//! ```text
//!   SIGHUP, a changed file, a control request
//!        |
//!      load ------------- a mistake: WARN, the old configuration stays
//!        |
//!      compare ---------- what needs a restart: the same
//!        |
//!      open sockets ----- no interface, no permission: the same
//!        |
//!      letter to the real-time thread ... in force
//! ```
//!
//! A virtual router is the same one as before if its name, VRID, family and interface are: it goes on, master or not, with
//! its other settings. One that is not in the file any more hands over; one that was not begins.

mod compare;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use evermq_config::roles::VipInstance;
use evermq_config::{Report, Severity, VipConfig};
use evermq_daemon::command::{ConfigError, ConfigSource};
use evermq_daemon::control::Reply;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;

use self::watch::FileWatch;
use crate::counters::Counters;
use crate::driver::{Change, Instance, Letter, Step, TrackedLink};
use crate::mailbox::Post;
use crate::opener::{self, Opener};
use crate::privileges::Others;
use crate::status::{InstanceStatus, Status};
use crate::takeover::Takeover;
use crate::track::{self, Tracks, hold_down};

/// Requests that wait: from operators, and of virtual routers whose interface is back.
pub const REQUESTS: usize = 64;
/// The real-time thread takes a turn at least so often, or does not run.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to open the sockets of an interface that is back.
const REOPEN: Duration = Duration::from_millis(500);

/// What is asked of the reloader.
#[derive(Debug)]
pub enum Request {
    /// Read the file.
    Reload(Option<Reply>),
    /// Open the sockets of this slot: its interface is back.
    Reopen(usize),
    /// This virtual router has gone.
    Close(Box<VipInstance>),
}

/// What will be in force when the real-time thread says so.
#[derive(Debug)]
pub struct Pending {
    placed: Vec<(usize, InstanceStatus)>,
    leaving: Vec<usize>,
    config: VipConfig,
}

/// What reloader and follower of events share.
#[derive(Debug, Clone)]
pub struct Shared {
    status: Arc<Mutex<Status>>,
    pending: Arc<Mutex<Option<Pending>>>,
    /// Counts configurations that came into force.
    in_force: Arc<channel::Sender<u64>>,
}

impl Shared {
    /// Around the status.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            status: Arc::new(Mutex::new(status)),
            pending: Arc::default(),
            in_force: Arc::new(channel::Sender::new(0)),
        }
    }

    /// The status, for a moment.
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The real-time thread has put the pending configuration in force; to be called before later events are taken in.
    pub fn enforce(&self) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pending) = pending else { return };
        let mut status = self.status();
        status.loaded(&pending.config, wall_clock());
        for (slot, instance) in pending.placed {
            status.place(slot, instance);
        }
        for slot in pending.leaving {
            if let Some(instance) = status.instance_mut(slot) {
                instance.leaving = true;
            }
        }
        drop(status);
        self.in_force.send_modify(|count| *count += 1);
    }
}

/// Reads the file when it is asked to, and when the file has changed.
#[derive(Debug)]
pub struct Reloader {
    source: ConfigSource<VipConfig>,
    config: channel::Sender<VipConfig>,
    shared: Shared,
    post: Post<Letter>,
    opener: Opener,
    /// What may be run: privileges that were given up do not come back.
    others: Others,
    requests: mpsc::Receiver<Request>,
    /// The addresses whose takeover clients are told of, by slot.
    told: Vec<Vec<IpAddr>>,
    /// Slots whose sockets are to be opened, and when.
    reopening: BTreeMap<usize, Instant>,
}

impl Reloader {
    /// A reloader; `config` is in force, and tells others what is.
    #[must_use]
    pub fn new(
        source: ConfigSource<VipConfig>,
        config: channel::Sender<VipConfig>,
        shared: Shared,
        post: Post<Letter>,
        opener: Opener,
        others: Others,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        let told = config.borrow().instances.iter().map(|router| router.addresses.clone()).collect();
        Self { source, config, shared, post, opener, others, requests, told, reopening: BTreeMap::new() }
    }

    /// Works until every requester is gone.
    pub async fn run(mut self) {
        let mut file = FileWatch::new(self.source.path());
        loop {
            let reopen = self.reopening.values().min().copied();
            tokio::select! {
                request = self.requests.recv() => match request {
                    None => return,
                    Some(Request::Reload(reply)) => {
                        file.look();
                        let outcome = self.reload().await;
                        if let Some(reply) = reply {
                            // Whoever asked may have left.
                            let _ = reply.send(outcome);
                        }
                    }
                    Some(Request::Close(router)) => self.close(&router),
                    Some(Request::Reopen(slot)) => {
                        self.reopening.insert(slot, Instant::now());
                    }
                },
                () = file.changed() => {
                    tracing::info!(file = %self.source.path().display(), "the cluster file has changed");
                    // What is wrong has been logged, and is shown.
                    let _ = self.reload().await;
                }
                () = until(reopen) => self.reopen().await,
            }
        }
    }

    async fn reload(&mut self) -> Result<Value, String> {
        let outcome = self.try_reload().await;
        if let Err(error) = &outcome {
            for line in error.lines() {
                tracing::warn!(problem = line, "the cluster file is not in force; the one before is");
            }
            self.shared.status().refused(Some(error.clone()));
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<Value, String> {
        let (new, warnings) = self.source.load().map_err(|error| match error {
            ConfigError::File(report) => errors(&report),
            error @ ConfigError::Role { .. } => error.to_string(),
        })?;
        for warning in &warnings.problems {
            tracing::warn!(%warning, "cluster file");
        }
        let old = self.config.borrow().clone();
        compare::refusals(&old, &new)?;
        if compare::is_same(&old, &new) {
            self.shared.status().refused(None);
            tracing::info!("the cluster file says nothing else for this host");
            return Ok(json!({ "changed": false }));
        }
        let others = crate::start::others(&new).map_err(|error| error.to_string())?;
        if others != self.others && nix::unistd::geteuid().is_root() {
            let need = "the first or the last check or notify program, or another user for one, needs a restart";
            return Err(format!("{need}: evermq-vip has given up the privileges for it at its start"));
        }
        let (change, pending) = self.prepare(&old, &new)?;
        let mut in_force = self.shared.in_force.subscribe();
        *self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
        let posted = async {
            self.post.deliver(Letter::Change(Box::new(change))).await;
            in_force.changed().await
        };
        match tokio::time::timeout(PATIENCE, posted).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => {
                return Err("the real-time thread does not answer; is this machine stuck?".to_owned());
            }
        }
        if let Err(error) = self.opener.filter(&new) {
            tracing::warn!(%error, "packets to the VIPs of the cluster file are not kept out");
        }
        self.config.send_replace(new);
        tracing::info!(file = %self.source.path().display(), "the cluster file is in force");
        Ok(json!({ "changed": true }))
    }

    /// Another virtual router may have taken its identifier meanwhile, and with it the interface of the virtual MAC.
    fn close(&mut self, router: &VipInstance) {
        let taken = self.config.borrow().instances.iter().any(|other| other.vrid == router.vrid);
        if !taken {
            self.opener.close(router);
        }
    }

    /// Opens what is needed, and says what becomes of each slot.
    fn prepare(&mut self, old: &VipConfig, new: &VipConfig) -> Result<(Change, Pending), String> {
        let status = self.shared.status();
        let mut steps: Vec<Step> = (0..status.slots()).map(|_| Step::Rest).collect();
        let mut pending = Pending { placed: Vec::new(), leaving: Vec::new(), config: new.clone() };
        let mut wanted: Vec<&VipInstance> = new.instances.iter().collect();
        for (slot, step) in steps.iter_mut().enumerate() {
            let Some(known) = status.instance(slot).filter(|known| !known.leaving) else { continue };
            let found = wanted.iter().position(|router| compare::is_same_router(&known.router, router));
            if let Some(router) = found.map(|position| wanted.remove(position)) {
                let instance = open(&mut self.opener, new, router, known.counters.clone())?;
                pending.placed.push((slot, InstanceStatus::new(&instance, wall_clock())));
                *step = Step::Keep(Box::new(instance));
            } else {
                pending.leaving.push(slot);
                *step = Step::Leave;
            }
        }
        for router in wanted {
            let instance = open(&mut self.opener, new, router, Arc::default())?;
            let free =
                (0..steps.len()).find(|slot| matches!(steps[*slot], Step::Rest) && status.instance(*slot).is_none());
            let slot = free.unwrap_or_else(|| {
                steps.push(Step::Rest);
                steps.len() - 1
            });
            pending.placed.push((slot, InstanceStatus::new(&instance, wall_clock())));
            steps[slot] = Step::Begin(Some(Box::new(instance)));
        }
        let mut slots: Vec<Option<&VipInstance>> = vec![None; steps.len()];
        for (slot, instance) in &pending.placed {
            slots[*slot] = Some(&instance.router);
        }
        drop(status);
        let takeover = self.takeover(new, &slots)?;
        let quorum = if old.quorum == new.quorum { None } else { new.quorum.as_ref() };
        let quorum = quorum.map(evermq_quorum::Settings::load).transpose().map_err(|error| error.to_string())?;
        let (tracker, tracked_links) = (tracker(new), TrackedLink::of(&new.tracks));
        let quorum = quorum.map(Box::new);
        Ok((
            Change {
                steps,
                quorum,
                takeover,
                tracked_links,
                tracker,
                tracks: Some(Tracks::reloaded(&old.tracks, &new.tracks)),
            },
            pending,
        ))
    }

    /// Another thread that tells clients of takeovers, where there are other addresses to tell of.
    fn takeover(&mut self, config: &VipConfig, slots: &[Option<&VipInstance>]) -> Result<Option<Takeover>, String> {
        let told: Vec<Vec<IpAddr>> =
            slots.iter().map(|router| router.map(|router| router.addresses.clone()).unwrap_or_default()).collect();
        if told == self.told {
            return Ok(None);
        }
        let counters = self.shared.status().tickle_counters();
        let takeover = opener::takeover(config, slots, &counters).map_err(|error| error.to_string())?;
        self.told = told;
        Ok(takeover)
    }

    async fn reopen(&mut self) {
        let now = Instant::now();
        let due: Vec<usize> = self.reopening.iter().filter(|(_, due)| **due <= now).map(|(slot, _)| *slot).collect();
        for slot in due {
            self.reopening.remove(&slot);
            let known = self
                .shared
                .status()
                .instance(slot)
                .filter(|known| !known.leaving)
                .map(|known| (known.router.clone(), known.counters.clone()));
            let Some((router, counters)) = known else { continue };
            let opened = open(&mut self.opener, &self.config.borrow(), &router, counters);
            match opened {
                Ok(instance) => {
                    tracing::info!(instance = router.name, interface = instance.interface.name, "interface is back");
                    self.shared.status().place(slot, InstanceStatus::new(&instance, wall_clock()));
                    self.post.deliver(Letter::Reopened { slot, instance: Box::new(instance) }).await;
                }
                Err(error) => {
                    tracing::debug!(instance = router.name, error, "interface is not usable yet");
                    self.reopening.insert(slot, now + REOPEN);
                }
            }
        }
    }
}

/// For the judgement of the lb.
#[must_use]
pub fn tracker(config: &VipConfig) -> track::Settings {
    track::Settings { lb_timeout: config.vip.lb_timeout, hold_down: hold_down(config.vip.advert_interval) }
}

fn open(
    opener: &mut Opener,
    config: &VipConfig,
    router: &VipInstance,
    counters: Arc<Counters>,
) -> Result<Instance, String> {
    opener.open(config, router, counters).map_err(|error| format!("virtual router \"{}\": {error}", router.name))
}

/// The errors of a report, each on lines of its own.
fn errors(report: &Report) -> String {
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error).cloned();
    Report { problems: errors.collect() }.to_string()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "people read wall time in the state")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
