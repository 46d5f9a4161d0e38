//! The ordinary thread beside the real-time one: logs, answers the control socket and Prometheus, tells systemd, reads the
//! cluster file, runs programs, keeps the guard.
//!
//! One thread with one current-thread runtime. Its futures run side by side, none is spawned but those of connections and
//! notify programs, in sets that end with their owners. The follower of events ends with the real-time thread; then the
//! token is cancelled, and everything else ends. [`Thread::join`] waits for that.

mod guard;
mod log;
pub(crate) mod programs;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use evermq_config::VipConfig;
use evermq_daemon::command::ConfigSource;
use evermq_daemon::control::{Answer, Control};
use evermq_daemon::health::Health;
use evermq_daemon::pulse::{self, Beat};
use evermq_daemon::{control, metrics, notify};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::guard::Minder;
use self::programs::Notifier;
use crate::checks::Checks;
use crate::driver::Letter;
use crate::guard::keeper::Keeper;
use crate::mailbox::Post;
use crate::metrics as figures;
use crate::opener::Opener;
use crate::privileges::{self, Others};
use crate::reload::{REQUESTS, Reloader, Request, Shared};
use crate::report::{Event, LinkChange, Reports, What};
use crate::status::Status;
use crate::track::Verdict;

/// What the thread is built of.
#[derive(Debug)]
pub struct Parts {
    /// The control socket.
    pub listener: UnixListener,
    /// Where Prometheus asks, if anywhere.
    pub metrics: Option<TcpListener>,
    /// What is shown; the virtual routers are placed already.
    pub status: Status,
    /// From the real-time thread.
    pub reports: Reports,
    /// To the real-time thread.
    pub post: Post<Letter>,
    /// The cluster file.
    pub source: ConfigSource<VipConfig>,
    /// What is in force.
    pub config: VipConfig,
    /// What is open for the virtual routers.
    pub opener: Opener,
    /// The guard's process; none where it could not be started.
    pub keeper: Option<Keeper>,
    /// What it runs.
    pub others: Others,
    /// The real-time thread's.
    pub beat: Beat,
}

/// The running control thread.
#[derive(Debug)]
pub struct Thread(JoinHandle<()>);

/// Starts the thread.
///
/// # Errors
/// The system has no thread or no runtime to give.
pub fn start(parts: Parts) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        privileges::settle(parts.others);
        if let Err(error) = runtime.block_on(run(parts)) {
            tracing::error!(%error, "the control thread has ended; the VIP is still looked after, but nothing is logged");
        }
    })?;
    Ok(Thread(thread))
}

impl Thread {
    /// Waits until everything that was reported has been logged; the reporter must be gone.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

async fn run(parts: Parts) -> io::Result<()> {
    let Parts { listener, metrics, status, reports, post, source, config, opener, keeper, others, beat } = parts;
    let over = CancellationToken::new();
    let (health, health_seen) = watch::channel(status.health());
    let shared = Shared::new(status);
    let (asking, requests) = mpsc::channel(REQUESTS);
    let (in_force, config_seen) = watch::channel(config);
    let control = Control {
        state: {
            let shared = shared.clone();
            Arc::new(move || shared.status().to_json())
        },
        health: health_seen,
        requests: {
            let (shared, asking) = (shared.clone(), asking.clone());
            Arc::new(move |name, _: &Value| answer(name, &shared, &asking))
        },
    };
    let server = control::serve(listener, control, over.clone());
    let scraped = scraped(metrics, shared.clone(), over.clone());
    let (lost, minder) = Minder::new(keeper, config_seen.borrow().clone(), post.clone());
    let notifier = Notifier::new(config_seen.clone());
    let reloader = Reloader::new(source, in_force, shared.clone(), post.clone(), opener, others, requests);
    let follower = Follower { shared: shared.clone(), health, asking, lost, notifier: &notifier };
    let work = async {
        tokio::select! {
            followed = follower.run(reports) => followed,
            () = reloader.run() => Ok(()),
            never = checked(config_seen.clone(), &shared, &post) => match never {},
            never = minder.run() => match never {},
            () = pulse::watch_over(vec![beat], over.clone()) => Ok(()),
            never = notifier.run() => match never {},
        }
    };
    let work = async {
        let worked = work.await;
        notifier.finish().await;
        over.cancel();
        worked
    };
    tokio::try_join!(server, scraped, work).map(|_| ())
}

/// The requests that only this program knows.
fn answer(name: &str, shared: &Shared, asking: &mpsc::Sender<Request>) -> Option<Answer> {
    match name {
        "metrics" => Some(Answer::Ok(json!(figures::text(&shared.status())))),
        "reload" => Some(control::pass_on("evermq-vip", asking, |reply| Request::Reload(Some(reply)))),
        _ => None,
    }
}

async fn scraped(listener: Option<TcpListener>, shared: Shared, over: CancellationToken) -> io::Result<()> {
    match listener {
        Some(listener) => metrics::serve(listener, Arc::new(move || figures::text(&shared.status())), over).await,
        None => Ok(()),
    }
}

/// Runs the checks of what is tracked, those of each configuration in its turn.
async fn checked(
    mut config: watch::Receiver<VipConfig>,
    shared: &Shared,
    post: &Post<Letter>,
) -> std::convert::Infallible {
    loop {
        let now = config.borrow_and_update().clone();
        // What they know goes on from where it was.
        let before = |track: &evermq_config::vip::Track| shared.status().standing().state(track);
        let verdicts = Verdicts::default();
        let checking = async {
            match Checks::new(&now.tracks, &now.host, before) {
                Ok(checks) => match checks.run(|index, verdict| verdicts.tell(index, verdict)).await {},
                Err(error) => {
                    // It was permitted when the configuration was judged.
                    tracing::error!(%error, "what is tracked cannot be checked");
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = checking => {}
            () = verdicts.deliver(post) => {}
            changed = config.changed() => if changed.is_err() { std::future::pending::<()>().await; },
        }
    }
}

/// The newest verdict on each track, on their way to the real-time thread: one place for each, whatever that thread does.
#[derive(Debug, Default)]
struct Verdicts {
    newest: Mutex<std::collections::BTreeMap<usize, Verdict>>,
    told: tokio::sync::Notify,
}

impl Verdicts {
    fn tell(&self, index: usize, verdict: Verdict) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert(index, verdict);
        self.told.notify_one();
    }

    async fn deliver(&self, post: &Post<Letter>) {
        loop {
            let next = self.newest.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match next {
                Some((index, verdict)) => post.deliver(Letter::Verdict { index, verdict }).await,
                None => self.told.notified().await,
            }
        }
    }
}

/// Takes in what the real-time thread reports.
struct Follower<'a> {
    shared: Shared,
    health: watch::Sender<Health>,
    asking: mpsc::Sender<Request>,
    lost: mpsc::Sender<()>,
    notifier: &'a Notifier,
}

impl Follower<'_> {
    /// Until the reporter is gone. Cancel-safe in no need: only end-of-file ends it.
    async fn run(self, mut reports: Reports) -> io::Result<()> {
        let mut wake = tokio::net::UnixStream::from_std(reports.wake)?;
        let mut bytes = [0; 64];
        loop {
            let read = wake.read(&mut bytes).await?;
            while let Ok(event) = reports.events.pop() {
                self.take(event);
            }
            if read == 0 {
                return Ok(());
            }
        }
    }

    fn take(&self, event: Event) {
        let mut status = self.shared.status();
        log::log(&event, &status);
        if let Some(track) = status.apply(&event) {
            let (from, to, effect) = (track.from, track.to, track.effect.as_deref().unwrap_or("none"));
            tracing::info!(track = track.name, from, to, effect, "tracked");
        }
        self.health.send_replace(status.health());
        let slot = event.slot;
        match event.what {
            What::Moved(transition) => {
                let reason = status.names().reason(transition.reason);
                let several = status.instances().count() > 1;
                let name = status.instance(slot).map(|instance| instance.name.clone()).unwrap_or_default();
                let name = if several { format!("{name} ") } else { String::new() };
                notify::status(&format!("{name}{}: {reason}", transition.to));
                self.notifier.moved(&status, slot, &transition);
            }
            What::Retired(instance) => {
                status.clear(slot);
                self.ask(Request::Close(Box::new(instance.router.clone())));
            }
            What::InForce(replaced) => {
                drop(status);
                drop(replaced);
                self.shared.enforce();
            }
            What::ReloadAsked => self.ask(Request::Reload(None)),
            What::Link(LinkChange::Back) => self.ask(Request::Reopen(slot)),
            // A request that waits already does.
            What::GuardLost => drop(self.lost.try_send(())),
            What::Effective(_)
            | What::Part(_)
            | What::Follows(_)
            | What::AddressRestored
            | What::Link(LinkChange::Down | LinkChange::Up | LinkChange::Gone)
            | What::Trouble(_)
            // What these carry is freed here.
            | What::Superseded(_)
            | What::Freed(_)
            | What::GuardReplaced(_) => {}
        }
    }

    fn ask(&self, request: Request) {
        if self.asking.try_send(request).is_err() {
            tracing::warn!("too many requests to read the cluster file wait already; one is left out");
        }
    }
}
