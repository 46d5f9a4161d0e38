//! Notify programs: told of each change of state, and waited for by nobody but each other.
//!
//! For a change to master, backup or fault runs `notify_master`, `notify_backup` or `notify_fault`; then, for these and for
//! the stop of the program, `notify`. Each gets, after its own arguments, four more, as keepalived's notify scripts do:
//!
//! ```text
//!   INSTANCE | GROUP    a virtual router, or a sync group
//!   name                its name
//!   MASTER | BACKUP | FAULT | STOP
//!   priority            the effective one, 0 to 255; 0 where this host must not hold the VIP
//! ```
//!
//! and in its environment `EVERMQ_STATE` (`master`, `backup`, `fault`, `stop`), `EVERMQ_INSTANCE` (the name), `EVERMQ_VIP`
//! (the addresses, with commas between), `EVERMQ_INTERFACE`, `EVERMQ_PRIORITY`, `EVERMQ_REASON` and `EVERMQ_HOST`.
//!
//! [`queue`] says what runs when. What a program leaves in the background when it ends goes on.

pub mod queue;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fmt, future, io};

use evermq_config::vip::Notify;

use self::queue::{Action, Configured, News, Queue, Told, Which};
use crate::account::{Account, AccountError};
use crate::fsm::{Reason, State, Transition};
use crate::program::{Leftovers, Program, Running};

/// What does not change for the programs of one virtual router or group.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What it is.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// The addresses, with commas between.
    pub vip: String,
    /// The interface that carries them.
    pub interface: String,
    /// This host.
    pub host: String,
}

/// What a state is the state of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A virtual router.
    Instance,
    /// A sync group.
    Group,
}

/// The notify programs of one virtual router or group. Announcing never waits; [`Programs::run`] does the rest.
#[derive(Debug)]
pub struct Programs {
    notify: Notify,
    account: Account,
    facts: Facts,
    /// Held for the time of a few assignments only.
    queue: Mutex<Queue>,
    woken: tokio::sync::Notify,
    closed: AtomicBool,
}

impl Told {
    /// What programs are told of a change of state.
    #[must_use]
    pub fn of(transition: &Transition) -> Self {
        match (transition.to, transition.reason) {
            (State::Master, _) => Self::Master,
            (State::Backup, _) => Self::Backup,
            (State::Initialize, Reason::Shutdown) => Self::Stop,
            (State::Initialize, _) => Self::Fault,
        }
    }

    fn upper(self) -> &'static str {
        match self {
            Self::Master => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
            Self::Stop => "STOP",
        }
    }
}

impl Programs {
    /// Nothing is announced yet.
    ///
    /// # Errors
    /// They have to run as a user who is missing, or whom evermq-vip may not become.
    pub fn new(notify: &Notify, facts: Facts) -> Result<Self, AccountError> {
        let there = |command: &Vec<String>| !command.is_empty();
        let configured = Configured {
            master: there(&notify.master),
            backup: there(&notify.backup),
            fault: there(&notify.fault),
            any: there(&notify.any),
        };
        let some = configured.master || configured.backup || configured.fault || configured.any;
        let account = if some {
            Account::of(notify.user.as_deref(), "the notify programs", "notify_user")?
        } else {
            Account::Own
        };
        Ok(Self {
            notify: notify.clone(),
            account,
            facts,
            queue: Mutex::new(Queue::new(configured, notify.timeout)),
            woken: tokio::sync::Notify::new(),
            closed: AtomicBool::new(false),
        })
    }

    /// Whether there is any.
    #[must_use]
    pub fn are_any(&self) -> bool {
        let Notify { master, backup, fault, any, .. } = &self.notify;
        [master, backup, fault, any].iter().any(|command| !command.is_empty())
    }

    /// What they are the programs of.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether they run as another user than evermq-vip, which needs CAP_SETUID, CAP_SETGID and CAP_KILL.
    #[must_use]
    pub fn switch_users(&self) -> bool {
        self.account.switches()
    }

    /// The state has changed; never waits.
    pub fn announce(&self, news: News) {
        self.lock().handle_news(news, clock());
        self.woken.notify_one();
    }

    /// Nothing more will be announced: [`Programs::run`] ends when what was announced is done.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    /// States that nobody was told of because a program took too long.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.lock().skipped()
    }

    /// Runs the programs, until closed and done: at most four timeouts after [`Programs::close`]. Only one such future at a
    /// time; dropping it kills the program that runs.
    pub async fn run(&self) {
        let mut running: Option<(Which, Running)> = None;
        loop {
            while let Some(action) = self.next() {
                match action {
                    Action::Run(which, news) => match self.start(which, &news) {
                        Ok(started) => running = Some((which, started)),
                        Err(error) => {
                            self.unable(which, &error);
                            self.lock().handle_exit(clock());
                        }
                    },
                    Action::Kill => {
                        if let Some((which, mut late)) = running.take() {
                            let ended = late.stop().await;
                            self.late(which, &ended, &late);
                        }
                        self.lock().handle_exit(clock());
                    }
                    Action::Skipped(news) => self.log_skipped(&news),
                }
            }
            let deadline = {
                let queue = self.lock();
                if queue.is_idle() && self.closed.load(Ordering::Acquire) {
                    return;
                }
                queue.poll_timeout()
            };
            tokio::select! {
                biased;
                (which, ended, program) = end(&mut running) => {
                    self.ended(which, &ended, &program);
                    self.lock().handle_exit(clock());
                }
                () = until(deadline) => self.lock().handle_timeout(clock()),
                () = self.woken.notified() => {}
            }
        }
    }

    fn next(&self) -> Option<Action> {
        self.lock().poll_action()
    }

    fn command(&self, which: Which) -> &[String] {
        match which {
            Which::Master => &self.notify.master,
            Which::Backup => &self.notify.backup,
            Which::Fault => &self.notify.fault,
            Which::Any => &self.notify.any,
        }
    }

    fn start(&self, which: Which, news: &News) -> io::Result<Running> {
        let Facts { scope, name, vip, interface, host } = &self.facts;
        let priority = news.priority.to_string();
        let state = news.state.upper();
        let added = [scope.to_string(), name.clone(), state.to_owned(), priority.clone()];
        let environment = [
            ("EVERMQ_STATE", state.to_ascii_lowercase()),
            ("EVERMQ_INSTANCE", name.clone()),
            ("EVERMQ_VIP", vip.clone()),
            ("EVERMQ_INTERFACE", interface.clone()),
            ("EVERMQ_PRIORITY", priority),
            ("EVERMQ_REASON", news.reason.clone()),
            ("EVERMQ_HOST", host.clone()),
        ];
        let program = Program {
            command: self.command(which).iter().cloned().chain(added).collect(),
            account: self.account.clone(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            leftovers: Leftovers::Keep,
        };
        program.spawn()
    }

    fn ended(&self, which: Which, ended: &io::Result<std::process::ExitStatus>, program: &Running) {
        let (instance, output) = (&self.facts.name, program.output());
        match ended {
            Ok(status) if status.success() => tracing::debug!(instance, program = %which, output, "notify program"),
            Ok(status) => tracing::warn!(instance, program = %which, %status, output, "notify program failed"),
            Err(error) => {
                tracing::warn!(instance, program = %which, %error, "the end of a notify program was not seen");
            }
        }
    }

    fn late(&self, which: Which, ended: &io::Result<std::process::ExitStatus>, program: &Running) {
        let timeout_ms = self.notify.timeout.as_millis();
        let status = ended.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        tracing::warn!(
            instance = self.facts.name,
            program = %which,
            timeout_ms,
            status,
            output = program.output(),
            "notify program took too long and was killed; see `notify_timeout`"
        );
    }

    fn unable(&self, which: Which, error: &io::Error) {
        let program = self.command(which).first();
        tracing::warn!(instance = self.facts.name, %which, program, %error, "notify program cannot be run");
    }

    fn log_skipped(&self, news: &News) {
        tracing::warn!(
            instance = self.facts.name,
            state = news.state.upper(),
            "no notify program was told of this state: the one before still runs, and a newer state waits"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancel-safe: the program stays where it is until it has ended.
async fn end(running: &mut Option<(Which, Running)>) -> (Which, io::Result<std::process::ExitStatus>, Running) {
    let ended = match running {
        Some((_, running)) => running.wait().await,
        None => future::pending().await,
    };
    match running.take() {
        Some((which, program)) => (which, ended, program),
        None => future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => future::pending().await,
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Instance => "INSTANCE",
            Self::Group => "GROUP",
        })
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "notify_master",
            Self::Backup => "notify_backup",
            Self::Fault => "notify_fault",
            Self::Any => "notify",
        })
    }
}

#[cfg(test)]
mod tests;
