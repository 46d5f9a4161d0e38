//! Initialize (RFC 9568 §6.4.1): takes no part.

use std::time::Instant;

use super::timers::Timers;
use super::{Event, Fsm, Reason, State};

impl Fsm {
    pub(super) fn step_in_initialize(&mut self, event: Event, now: Instant) {
        match event {
            Event::Fit { priority, cause } => {
                self.fit = Some((priority, cause));
                if self.timers.start.is_none() {
                    self.start_up(now);
                }
            }
            Event::StartTimer => {
                self.timers.start = None;
                self.start_up(now);
            }
            Event::Unfit { cause } => {
                self.fit = None;
                self.release_if_frozen(cause);
            }
            Event::Shutdown => {
                self.fit = None;
                self.timers.start = None;
            }
            Event::Advert(advert) => self.release_to(advert),
            Event::ReleaseTimer | Event::AddressLost | Event::Conflict => self.release(),
            Event::MasterDownTimer
            | Event::AdverTimer
            | Event::AnnounceTimer
            | Event::PermissionTimer
            | Event::Paused { .. }
            | Event::Granted
            | Event::Denied
            | Event::GroupLeads
            | Event::GroupLeaves { .. } => {}
        }
    }

    fn start_up(&mut self, now: Instant) {
        let Some((priority, cause)) = self.fit.take() else { return };
        self.priority = priority;
        // RFC 9568 §6.4.1: the owner does not listen first.
        if self.is_owner() && self.is_permitted() && !self.grouped {
            self.enter_master(Reason::Health(cause), now);
            return;
        }
        self.enter_backup(Reason::Health(cause), now);
        if self.is_owner() {
            self.want(now);
        }
    }

    pub(super) fn enter_initialize(&mut self, reason: Reason) {
        self.timers = Timers { release: self.timers.release, ..Timers::default() };
        self.following = None;
        self.heard = None;
        self.lower_since = None;
        self.yield_permission();
        self.move_to(State::Initialize, reason);
    }
}
