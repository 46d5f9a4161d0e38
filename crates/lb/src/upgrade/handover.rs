//! The old process's side of an upgrade, step by step.
//!
//! ```text
//!            hello           ready             suspended          began            nothing left to move
//! Starting ────────▶ Preparing ────▶ Suspending ────────▶ Beginning ────▶ Moving ──────────────────────▶ Settled ────▶ Over
//!    │                  │                │                   │              │                              │
//!    └──────────────────┴─ the new process refuses, is late or ends: as before ─────────────────────────────┘ it ends: so does this one
//! ```
//!
//! What is handed over is the new process's from the moment that it has written the deed (`Began`, `Took`); what it wrote before
//! it ended is still read. So a process that is late is killed first, and taken back is what it has no deed for: then
//! nobody else can be at it. Until [`Action::Settle`] the old process keeps copies of the sockets that listen, and goes on
//! with them if the new process ends.
//!
//! Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// For the new process to start and say hello.
pub const START: Duration = Duration::from_secs(10);
/// For it to read certificates, bind what is new, and reach the backends.
pub const PREPARE: Duration = Duration::from_secs(15);
/// For everything after that: the new process has nothing to wait for.
pub const STEP: Duration = Duration::from_secs(5);
/// Between two looks for connections that can be moved by now.
pub const LOOK: Duration = Duration::from_millis(50);

/// The steps.
#[derive(Debug)]
pub struct Handover {
    phase: Phase,
    /// Sent, and there is no deed for it yet.
    in_flight: Option<u64>,
    last_batch: u64,
    /// Why the new process was told to end.
    doomed: Option<String>,
    due: Option<Instant>,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Preparing,
    Suspending,
    Beginning,
    Moving,
    Settled,
    Over,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The new process is there and speaks a version that this one does.
    Hello,
    /// It could serve.
    Ready,
    /// It will not.
    Refused(String),
    /// It is in charge.
    Began,
    /// A batch is its own.
    Took(u64),
    /// It says what makes no sense.
    Strange(String),
    /// It has ended; everything that it said before has been handled.
    Lost,
    /// After [`Action::Suspend`].
    Suspended,
    /// After [`Action::Export`].
    Exported {
        /// Connections in the batch; with none nothing was sent.
        moved: usize,
        /// Connections that this process still has.
        left: usize,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the sockets that listen. This process goes on using them.
    Offer,
    /// Accept no more, and stop answering whoever can be passed on; then [`Event::Suspended`].
    Suspend,
    /// Send whoever is connected to the control socket.
    Begin,
    /// Take connections from the workers and send them; then [`Event::Exported`].
    Export {
        /// The batch's number.
        batch: u64,
    },
    /// The batch is the new process's: close this process's copies.
    Release(u64),
    /// The new process has no deed for the batch, and never will: the connections are this process's.
    TakeBack(u64),
    /// Tell it, and systemd, that it is on its own, and close the copies of what listens.
    Settle,
    /// Kill the new process, unless it has ended.
    Kill,
    /// Accept again.
    Resume,
    /// It is over.
    End(Outcome),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This process goes on as before.
    Failed(String),
    /// The new process has everything.
    Done,
    /// The new process was in charge, and has ended.
    Orphaned(String),
}

impl Handover {
    /// The new process has been started.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Starting,
            in_flight: None,
            last_batch: 0,
            doomed: None,
            due: Some(now + START),
            actions: VecDeque::new(),
        }
    }

    /// When [`Handover::handle_timeout`] is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether the new process is on its own.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled | Phase::Over)
    }

    /// Whether the new process was killed, and its end is waited for.
    #[must_use]
    pub const fn is_doomed(&self) -> bool {
        self.doomed.is_some()
    }

    /// The new process is late, or it is time to look for more connections.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        match self.phase {
            Phase::Starting => self.doom(format!("it has not started within {} s", START.as_secs())),
            Phase::Preparing => self.doom(format!("it was not ready within {} s", PREPARE.as_secs())),
            Phase::Beginning => self.doom(format!("it has not begun within {} s", STEP.as_secs())),
            Phase::Moving => self.doom(format!("it has not taken connections within {} s", STEP.as_secs())),
            Phase::Settled => self.export(),
            Phase::Suspending | Phase::Over => {}
        }
    }

    /// Something happened.
    pub fn handle_event(&mut self, event: Event, now: Instant) {
        match (self.phase, event) {
            (Phase::Over, _) => {}
            (_, Event::Lost) => self.lose(),
            (_, Event::Took(batch)) if self.in_flight == Some(batch) => {
                self.in_flight = None;
                self.actions.push_back(Action::Release(batch));
                if self.doomed.is_none() {
                    self.export();
                }
            }
            // Whatever a doomed process says but that, it will not be for long.
            (_, _) if self.doomed.is_some() => {}
            (Phase::Starting, Event::Hello) => {
                self.enter(Phase::Preparing, now + PREPARE);
                self.actions.push_back(Action::Offer);
            }
            (Phase::Preparing, Event::Ready) => {
                self.phase = Phase::Suspending;
                self.due = None;
                self.actions.push_back(Action::Suspend);
            }
            (Phase::Starting | Phase::Preparing, Event::Refused(reason)) => self.doom(reason),
            (Phase::Suspending, Event::Suspended) => {
                self.enter(Phase::Beginning, now + STEP);
                self.actions.push_back(Action::Begin);
            }
            (Phase::Beginning, Event::Began) => {
                self.phase = Phase::Moving;
                self.export();
            }
            (Phase::Moving, Event::Exported { moved: 0, left }) => {
                self.phase = Phase::Settled;
                self.actions.push_back(Action::Settle);
                self.look_again(left, now);
            }
            (Phase::Settled, Event::Exported { moved: 0, left }) => self.look_again(left, now),
            (Phase::Moving, Event::Exported { .. }) => {
                self.in_flight = Some(self.last_batch);
                self.due = Some(now + STEP);
            }
            // It is in charge, so it is not killed for being slow: at worst these connections wait until this process ends.
            (Phase::Settled, Event::Exported { .. }) => self.in_flight = Some(self.last_batch),
            (Phase::Settled, _) => {}
            (Phase::Starting | Phase::Preparing | Phase::Suspending | Phase::Beginning | Phase::Moving, event) => {
                self.doom(match event {
                    Event::Strange(what) => what,
                    event => format!("it is out of step: {event:?}"),
                });
            }
        }
    }

    fn enter(&mut self, phase: Phase, due: Instant) {
        self.phase = phase;
        self.due = Some(due);
    }

    fn export(&mut self) {
        self.due = None;
        self.last_batch += 1;
        self.actions.push_back(Action::Export { batch: self.last_batch });
    }

    fn look_again(&mut self, left: usize, now: Instant) {
        if left == 0 {
            self.end(Outcome::Done);
        } else {
            self.due = Some(now + LOOK);
        }
    }

    fn doom(&mut self, reason: String) {
        self.doomed = Some(reason);
        self.due = None;
        self.actions.push_back(Action::Kill);
    }

    fn lose(&mut self) {
        let reason = self.doomed.take().unwrap_or_else(|| "it has ended".to_owned());
        if let Some(batch) = self.in_flight.take() {
            self.actions.push_back(Action::TakeBack(batch));
        }
        match self.phase {
            Phase::Starting | Phase::Preparing => self.end(Outcome::Failed(reason)),
            Phase::Suspending | Phase::Beginning | Phase::Moving => {
                self.actions.push_back(Action::Resume);
                self.end(Outcome::Failed(reason));
            }
            Phase::Settled => self.end(Outcome::Orphaned(reason)),
            Phase::Over => {}
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.phase = Phase::Over;
        self.due = None;
        self.actions.push_back(Action::End(outcome));
    }
}
