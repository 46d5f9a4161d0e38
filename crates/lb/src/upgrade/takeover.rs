//! The new process's side of an upgrade, step by step.
//!
//! ```text
//!           offer             prepared           begin            settled
//! Greeting ───────▶ Preparing ────────▶ Waiting ───────▶ Moving ──────────▶ Alone ─── the old process ends ──▶ Over
//! ```
//!
//! An old process that gives up on this one kills it. So when the old one ends without that, this one is all that there is, and
//! it serves with the sockets that it was offered, whatever step it was at.
//!
//! Pure.

use std::collections::VecDeque;

/// The steps.
#[derive(Debug)]
pub struct Takeover {
    phase: Phase,
    /// The old process has ended.
    alone: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Greeting,
    Preparing,
    Waiting,
    Moving,
    Alone,
    Over,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The old process has sent its sockets.
    Offer,
    /// After [`Action::Prepare`].
    Prepared(Result<(), String>),
    /// This process is in charge.
    Begin,
    /// Connections have come.
    Batch(u64),
    /// All that could be moved has been.
    Settled,
    /// The old process says what makes no sense.
    Strange(String),
    /// It has ended; everything that it said before has been handled.
    Lost,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say hello.
    Greet,
    /// Do everything that can be done before connections are accepted; then [`Event::Prepared`].
    Prepare,
    /// Say that it is done.
    Ready,
    /// Say why it cannot be done.
    Refuse(String),
    /// Write the deed of the sockets.
    Began,
    /// Accept, and answer on the control socket.
    TakeCharge,
    /// Write the deed of a batch.
    Took(u64),
    /// Serve the batch.
    Import(u64),
    /// This process is the program now.
    Settle,
    /// The old process has ended.
    Farewell,
    /// This process is not needed.
    Exit(String),
}

impl Takeover {
    /// Before the first word.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: Phase::Greeting, alone: false, actions: VecDeque::from([Action::Greet]) }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether this process is in charge.
    #[must_use]
    pub const fn in_charge(&self) -> bool {
        matches!(self.phase, Phase::Moving | Phase::Alone)
    }

    /// Something happened.
    pub fn handle_event(&mut self, event: Event) {
        match (self.phase, event) {
            (Phase::Over, _) => {}
            (Phase::Greeting, Event::Offer) => {
                self.phase = Phase::Preparing;
                self.actions.push_back(Action::Prepare);
            }
            (Phase::Preparing, Event::Prepared(Ok(()))) if self.alone => self.take_charge_alone(),
            (Phase::Preparing, Event::Prepared(Ok(()))) => {
                self.phase = Phase::Waiting;
                self.actions.push_back(Action::Ready);
            }
            (Phase::Preparing, Event::Prepared(Err(reason))) => {
                self.actions.push_back(Action::Refuse(reason.clone()));
                self.exit(reason);
            }
            (Phase::Waiting, Event::Begin) => {
                self.phase = Phase::Moving;
                self.actions.extend([Action::Began, Action::TakeCharge]);
            }
            (Phase::Moving | Phase::Alone, Event::Batch(batch)) => {
                self.actions.extend([Action::Took(batch), Action::Import(batch)]);
            }
            (Phase::Moving, Event::Settled) => {
                self.phase = Phase::Alone;
                self.actions.push_back(Action::Settle);
            }
            (Phase::Greeting, Event::Lost) => {
                self.exit("the old process has ended before it offered anything".to_owned());
            }
            (Phase::Preparing, Event::Lost) => self.alone = true,
            (Phase::Waiting, Event::Lost) => self.take_charge_alone(),
            (Phase::Moving, Event::Lost) => self.end([Action::Settle, Action::Farewell]),
            (Phase::Alone, Event::Lost) => self.end([Action::Farewell]),
            // What it has already is served whatever the old process does from here on.
            (Phase::Moving | Phase::Alone, Event::Strange(_)) => {}
            (
                Phase::Greeting | Phase::Preparing | Phase::Waiting | Phase::Moving | Phase::Alone,
                event @ (Event::Offer
                | Event::Prepared(_)
                | Event::Begin
                | Event::Batch(_)
                | Event::Settled
                | Event::Strange(_)),
            ) => self.step_out(event),
        }
    }

    fn step_out(&mut self, event: Event) {
        if self.in_charge() {
            return;
        }
        let reason = match event {
            Event::Strange(what) => what,
            event => format!("the old process is out of step: {event:?}"),
        };
        self.actions.push_back(Action::Refuse(reason.clone()));
        self.exit(reason);
    }

    fn take_charge_alone(&mut self) {
        self.end([Action::TakeCharge, Action::Settle, Action::Farewell]);
    }

    fn exit(&mut self, reason: String) {
        self.end([Action::Exit(reason)]);
    }

    fn end(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.phase = Phase::Over;
        self.actions.extend(actions);
    }
}

impl Default for Takeover {
    fn default() -> Self {
        Self::new()
    }
}
