//! A host that only votes: a thread of its own with one poll loop.
//!
//! Owner: [`VoterThread`], which stops and joins it when it is told to or dropped.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermq_config::QuorumConfig;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use crate::counts::Counts;
use crate::member::{Member, QuorumError, clock};
use crate::membership::Settings;
use crate::state::State;

/// How old the state may be that is shown, at most, when something has happened since.
const FRESH: Duration = Duration::from_millis(200);
/// Dropped messages are told of once in this time.
const AGAIN: Duration = Duration::from_secs(60);

/// A voter that runs.
#[derive(Debug)]
pub struct VoterThread {
    stop: Arc<EventFd>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

/// Reads the key, binds the address and starts to answer. Claims nothing, so the gateway does not matter.
///
/// # Errors
/// The key cannot be used, the address not be bound, or there is no thread.
pub fn voter_thread(config: &QuorumConfig) -> Result<VoterThread, QuorumError> {
    let settings = Settings { gateway: None, ..Settings::load(config)? };
    tracing::info!(address = %settings.host().address, voters = settings.hosts.len(), "votes on who holds the VIP");
    VoterThread::start(Member::open(settings)?)
}

impl VoterThread {
    /// Lets `member` answer on a thread of its own.
    ///
    /// # Errors
    /// There is no thread or no descriptor.
    pub fn start(member: Member) -> Result<Self, QuorumError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_flags(flags).map_err(|error| QuorumError::System(error.into()))?;
        let stop = Arc::new(stop);
        let mut shown = State::default();
        member.update_state(&mut shown, clock());
        let state = Arc::new(Mutex::new(shown));
        let (told, shown) = (Arc::clone(&stop), Arc::clone(&state));
        let work = move || {
            if let Err(error) = (Work { member, shown, told: Told::default() }).run(&told) {
                tracing::error!(%error, "this host does not vote any more; restart the program");
            }
        };
        let thread = std::thread::Builder::new().name("voter".to_owned()).spawn(work).map_err(QuorumError::System)?;
        Ok(Self { stop, state, thread: Some(thread) })
    }

    /// The state, at most a second old.
    #[must_use]
    pub fn state(&self) -> State {
        self.watch().get()
    }

    /// What shows the state to another thread.
    #[must_use]
    pub fn watch(&self) -> StateWatch {
        StateWatch(Arc::clone(&self.state))
    }

    /// Ends the thread and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Written once, so that it cannot be full.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the voter's thread panicked");
        }
    }
}

impl Drop for VoterThread {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads a voter's state; stays when the voter has ended, and then shows its last.
#[derive(Debug, Clone)]
pub struct StateWatch(Arc<Mutex<State>>);

impl StateWatch {
    /// The state, at most a second old.
    #[must_use]
    pub fn get(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Work {
    member: Member,
    shown: Arc<Mutex<State>>,
    told: Told,
}

impl Work {
    fn run(&mut self, stop: &EventFd) -> io::Result<()> {
        let mut fresh_until = clock();
        loop {
            let timeout = self.member.poll_timeout().map(|due| TimeSpec::from(due.saturating_duration_since(clock())));
            let mut fds =
                [PollFd::new(self.member.fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, timeout, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [readable, stopped] = fds.map(|fd| fd.any().unwrap_or(false));
            if stopped {
                return Ok(());
            }
            if readable {
                self.member.handle_readable();
            }
            let now = clock();
            if self.member.poll_timeout().is_some_and(|due| due <= now) {
                self.member.handle_timeout(now);
            }
            if fresh_until <= now {
                self.show(now);
                fresh_until = now + FRESH;
            }
        }
    }

    fn show(&mut self, now: Instant) {
        let mut state = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        self.member.update_state(&mut state, now);
        let (changes, dropped) = self.told.compare(&state, now);
        drop(state);
        for (host, reachable) in changes {
            let (from, to) = if reachable { ("unreachable", "reachable") } else { ("reachable", "unreachable") };
            tracing::info!(
                host,
                from,
                to,
                reason = if reachable { "it answers" } else { "no answer for a lease" },
                "voter"
            );
        }
        if let Some(dropped) = dropped {
            tracing::warn!(
                wrong_tag = dropped.tag_errors,
                other_cluster = dropped.cluster_errors,
                stranger = dropped.stranger_errors,
                old = dropped.old_errors,
                other_files = dropped.membership,
                "heartbeats do not count: does every host have the same cluster file and heartbeat key?"
            );
        }
    }
}

/// What was logged last.
#[derive(Default)]
struct Told {
    reachable: Vec<bool>,
    dropped: u64,
    at: Option<Instant>,
}

impl Told {
    /// Whose reachability has changed, and the counters if more was dropped and it is time to say so.
    fn compare(&mut self, state: &State, now: Instant) -> (Vec<(String, bool)>, Option<Counts>) {
        self.reachable.resize(state.hosts.len(), false);
        let mut changes = Vec::new();
        for (told, host) in self.reachable.iter_mut().zip(&state.hosts).filter(|(_, host)| !host.own) {
            if std::mem::replace(told, host.reachable) != host.reachable {
                changes.push((host.name.as_str().to_owned(), host.reachable));
            }
        }
        let counts = state.counts;
        // A late duplicate is no trouble.
        let dropped = counts.tag_errors + counts.cluster_errors + counts.stranger_errors + counts.membership;
        let due = self.at.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN);
        if dropped <= self.dropped || !due {
            return (changes, None);
        }
        (self.dropped, self.at) = (dropped, Some(now));
        (changes, Some(counts))
    }
}
