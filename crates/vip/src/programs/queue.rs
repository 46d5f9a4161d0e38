//! Which notify program runs when. Pure: no process, no clock.
//!
//! One program runs at a time. While it runs only the newest state waits; those before it are skipped and counted, so the
//! queue holds one state, however long a program hangs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A state that programs are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Holds the VIP.
    Master,
    /// Watches the master.
    Backup,
    /// Must not hold the VIP.
    Fault,
    /// The program stops.
    Stop,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The state after.
    pub state: Told,
    /// The effective priority; 0 where there is none.
    pub priority: u8,
    /// Why, in words.
    pub reason: String,
}

/// One of the configured programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// `notify_master`.
    Master,
    /// `notify_backup`.
    Backup,
    /// `notify_fault`.
    Fault,
    /// `notify`.
    Any,
}

/// Which programs there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Configured {
    /// `notify_master`.
    pub master: bool,
    /// `notify_backup`.
    pub backup: bool,
    /// `notify_fault`.
    pub fault: bool,
    /// `notify`.
    pub any: bool,
}

/// What the runner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start this program, then call [`Queue::handle_exit`] when it has ended or could not start.
    Run(Which, News),
    /// End it, then call [`Queue::handle_exit`].
    Kill,
    /// Nobody is told of this state: a newer one came before its turn.
    Skipped(News),
}

/// The programs of one virtual router or group.
#[derive(Debug)]
pub struct Queue {
    configured: Configured,
    timeout: Duration,
    phase: Phase,
    /// What runs next for the news at hand.
    then: Option<(Which, News)>,
    waiting: Option<News>,
    skipped: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle,
    Running { deadline: Instant },
    Killed,
}

impl Queue {
    /// Nothing runs.
    #[must_use]
    pub fn new(configured: Configured, timeout: Duration) -> Self {
        Self {
            configured,
            timeout,
            phase: Phase::Idle,
            then: None,
            waiting: None,
            skipped: 0,
            actions: VecDeque::new(),
        }
    }

    /// The state has changed.
    pub fn handle_news(&mut self, news: News, now: Instant) {
        let [specific, any] = self.programs(news.state);
        if specific.is_none() && any.is_none() {
            return;
        }
        match self.phase {
            Phase::Idle => self.begin(news, now),
            Phase::Running { .. } | Phase::Killed => {
                if let Some(skipped) = self.waiting.replace(news) {
                    self.skipped += 1;
                    self.actions.push_back(Action::Skipped(skipped));
                }
            }
        }
    }

    /// The program has ended, or could not be started.
    pub fn handle_exit(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle => return,
            Phase::Running { .. } | Phase::Killed => self.phase = Phase::Idle,
        }
        if let Some((which, news)) = self.then.take() {
            self.start(which, news, now);
        } else if let Some(news) = self.waiting.take() {
            self.begin(news, now);
        }
    }

    /// A deadline of [`Queue::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Running { deadline } if deadline <= now => {
                self.phase = Phase::Killed;
                self.actions.push_back(Action::Kill);
            }
            Phase::Idle | Phase::Running { .. } | Phase::Killed => {}
        }
    }

    /// When [`Queue::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { deadline } => Some(deadline),
            Phase::Idle | Phase::Killed => None,
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether nothing runs, waits, or is to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.actions.is_empty()
    }

    /// States that nobody was told of, since the program started.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn programs(&self, state: Told) -> [Option<Which>; 2] {
        let specific = match state {
            Told::Master => self.configured.master.then_some(Which::Master),
            Told::Backup => self.configured.backup.then_some(Which::Backup),
            Told::Fault => self.configured.fault.then_some(Which::Fault),
            Told::Stop => None,
        };
        [specific, self.configured.any.then_some(Which::Any)]
    }

    fn begin(&mut self, news: News, now: Instant) {
        match self.programs(news.state) {
            [Some(specific), Some(any)] => {
                self.then = Some((any, news.clone()));
                self.start(specific, news, now);
            }
            [Some(only), None] | [None, Some(only)] => self.start(only, news, now),
            [None, None] => {}
        }
    }

    fn start(&mut self, which: Which, news: News, now: Instant) {
        self.phase = Phase::Running { deadline: now + self.timeout };
        self.actions.push_back(Action::Run(which, news));
    }
}

#[cfg(test)]
mod tests;
