//! What one voter has said to one claim, and when it is asked next.

use std::time::Instant;

use super::{Ask, Settings};

/// Times that a yield is said, until it is heard: with 30 % loss, one in a thousand is heard only by the lease's end.
const YIELDS: u8 = 6;
/// A voter that has not answered so many times is asked at the pace of one that has.
const HASTY_ASKS: u8 = 20;

/// One voter, as one claim sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ballot {
    /// Until when its grant counts.
    pub(super) until: Option<Instant>,
    /// Its last answer: another host holds the resource.
    pub(super) refused: bool,
    /// Then, whether it has granted that in the last half of a lease: its holder lives.
    pub(super) lately: bool,
    /// When it is asked next.
    pub(super) due: Option<Instant>,
    /// What has to be sent to it.
    pub(super) ask: Option<Ask>,
    /// The first ask that it has not answered.
    pub(super) silent_since: Option<Instant>,
    /// Asks since its last answer.
    asks: u8,
    /// Yields that are left to say.
    yields: u8,
}

impl Ballot {
    /// As if it had never been asked.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A new claim: it has to be asked. Its silence goes on.
    pub(super) fn open(&mut self, now: Instant) {
        self.until = None;
        self.refused = false;
        self.yields = 0;
        self.due = Some(now);
    }

    /// The claim has ended: what it granted, or may have, is given back from `at` on.
    pub(super) fn close(&mut self, at: Instant) {
        let owes = self.until.is_some() || self.silent_since.is_some();
        self.until = None;
        self.refused = false;
        self.ask = None;
        self.yields = if owes { YIELDS } else { 0 };
        self.due = owes.then_some(at);
    }

    pub(super) fn granted(&mut self, until: Instant, next: Instant) {
        self.until = self.until.max(Some(until));
        self.refused = false;
        self.answered(next);
    }

    /// A voter that only does not know what it granted leaves what it granted to this claim as it is.
    pub(super) fn refused(&mut self, held_by_another: bool, lately: bool, next: Instant) {
        if held_by_another {
            self.until = None;
        }
        self.refused = held_by_another;
        self.lately = lately;
        self.answered(next);
    }

    pub(super) fn yielded(&mut self) {
        self.yields = 0;
        self.silent_since = None;
        self.asks = 0;
        self.due = None;
    }

    /// Asks at once, if it is asked at all.
    pub(super) fn hasten(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }

    pub(super) fn request(&mut self, ask: Ask, settings: &Settings, now: Instant) {
        self.ask = Some(ask);
        self.silent_since.get_or_insert(now);
        self.asks = self.asks.saturating_add(1);
        let pause = if self.asks < HASTY_ASKS { settings.repetition() } else { settings.renewal() };
        self.due = Some(now + pause);
    }

    pub(super) fn give_back(&mut self, ask: Ask, settings: &Settings, now: Instant) {
        self.ask = (self.yields > 0).then_some(ask);
        self.yields = self.yields.saturating_sub(1);
        self.due = (self.yields > 0).then(|| now + settings.repetition());
    }

    fn answered(&mut self, next: Instant) {
        self.silent_since = None;
        self.asks = 0;
        self.due = Some(next);
    }
}
