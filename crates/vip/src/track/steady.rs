//! A level that falls at once and rises on trial.
//!
//! It rises only after the better level was kept for the hold-down, and after it has been unsteady it rises by way of the
//! last resort: flapping costs this host its rank, not the network its VIP. The hold for full rank doubles with every fall
//! that comes within [`FLAP_MEMORY`] of the rise before it, up to [`LONGEST_HOLD`].

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::{FLAP_MEMORY, LONGEST_HOLD, Level};

/// A level with its trial and its memory of flaps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady {
    level: Level,
    rise: Option<Rise>,
    rose_at: Option<Instant>,
    flaps: u32,
}

/// A better level on trial.
#[derive(Debug, Clone, Copy)]
struct Rise {
    to: Level,
    at: Instant,
}

impl Steady {
    /// At `level`, and never unsteady so far.
    pub(super) fn new(level: Level) -> Self {
        Self { level, rise: None, rose_at: None, flaps: 0 }
    }

    /// The level that counts.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Whether a better level is on trial.
    pub(super) fn on_trial(&self) -> bool {
        self.rise.is_some()
    }

    /// When [`Steady::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.rise.map(|rise| rise.at)
    }

    /// Falls at once, starts to rise, or keeps rising.
    pub(super) fn hear(&mut self, heard: Level, hold_down: Duration, now: Instant) {
        match heard.cmp(&self.level) {
            Ordering::Less => {
                if self.level == Level::Full {
                    let flapping = self.rose_at.is_some_and(|rose| now.saturating_duration_since(rose) < FLAP_MEMORY);
                    self.flaps = if flapping { self.flaps.saturating_add(1) } else { 0 };
                }
                self.rise = None;
                self.level = heard;
            }
            Ordering::Equal => self.rise = None,
            Ordering::Greater => {
                if self.rise.is_none_or(|rise| rise.to != heard) {
                    self.rise = Some(Rise { to: heard, at: now + self.hold(heard, hold_down) });
                }
            }
        }
    }

    /// The trial may be over.
    pub(super) fn handle_timeout(&mut self, hold_down: Duration, now: Instant) {
        let Some(Rise { to, .. }) = self.rise.filter(|rise| rise.at <= now) else { return };
        if self.level == Level::Fault && to == Level::Full && self.flaps > 0 {
            self.level = Level::Degraded;
            self.rise = Some(Rise { to, at: now + self.hold(to, hold_down) });
            return;
        }
        self.level = to;
        self.rise = None;
        if to == Level::Full {
            self.rose_at = Some(now);
        }
    }

    fn hold(&self, to: Level, shortest: Duration) -> Duration {
        if self.level == Level::Fault || to == Level::Degraded {
            return shortest;
        }
        let doubled = shortest.saturating_mul(1_u32.checked_shl(self.flaps).unwrap_or(u32::MAX));
        doubled.min(LONGEST_HOLD).max(shortest)
    }
}
