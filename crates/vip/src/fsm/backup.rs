//! Backup (RFC 9568 §6.4.2): watches the master, and takes over when it is silent, gone, or of lower rank.
//!
//! With a preempt delay a better router obeys a lower one until that one was heard for so long. Two are not waited for: a
//! master of last resort, whose brokers are out of reach, and one that an address owner meets (RFC 9568 §6.1).

use std::time::{Duration, Instant};

use super::timers::Timers;
use super::{Advert, Event, Fsm, LAST_RESORT, Reason, State};
use evermq_config::vip::VrrpVersion;

/// What a backup last heard of a master.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    advert: Advert,
    at: Instant,
    /// It has put the takeover off.
    pub(super) obeyed: bool,
}

impl Fsm {
    pub(super) fn step_in_backup(&mut self, event: Event, now: Instant) {
        match event {
            Event::Fit { priority, .. } => self.change_rank_as_backup(priority),
            Event::Unfit { cause } => {
                self.release_if_frozen(cause);
                self.enter_initialize(Reason::Health(cause));
            }
            Event::Shutdown => self.enter_initialize(Reason::Shutdown),
            Event::Advert(advert) => {
                self.release_to(advert);
                self.hear_as_backup(advert, now);
            }
            Event::MasterDownTimer => self.want(now),
            Event::Granted => self.be_permitted_as_backup(now),
            Event::Denied => self.be_refused_as_backup(),
            Event::GroupLeads => self.lead_with_group(now),
            Event::ReleaseTimer | Event::AddressLost | Event::Conflict => self.release(),
            Event::StartTimer
            | Event::AdverTimer
            | Event::AnnounceTimer
            | Event::PermissionTimer
            | Event::Paused { .. }
            | Event::GroupLeaves { .. } => {}
        }
    }

    pub(super) fn enter_backup(&mut self, reason: Reason, now: Instant) {
        self.master_interval = self.settings.interval;
        self.waiting = Reason::NoMaster;
        self.following = None;
        self.heard = None;
        self.lower_since = None;
        let master_down = Some(now + self.master_down_interval());
        self.timers = Timers { master_down, release: self.timers.release, ..Timers::default() };
        self.yield_permission();
        self.move_to(State::Backup, reason);
    }

    /// The master-down timer has run out. What remains is the permission, and the consent of the sync group.
    pub(super) fn want(&mut self, now: Instant) {
        self.timers.master_down = None;
        if !self.grouped {
            self.take_over(now);
        }
    }

    pub(super) fn hear_as_backup(&mut self, advert: Advert, now: Instant) {
        if advert.priority == 0 {
            // RFC 9568 §6.4.2: the master leaves; the next one is found within a skew time.
            self.waiting = Reason::MasterLeft { master: advert.source };
            self.heard = None;
            self.lower_since = None;
            // One that waits for nothing but permission has waited its skew time.
            self.timers.master_down = self.timers.master_down.map(|_| now + self.skew());
            return;
        }
        self.follow(advert.source);
        self.judge(advert, now);
        if self.wants() {
            self.challenge(now);
        }
    }

    /// The rank of `advert`, heard at `at`, against this host's.
    fn judge(&mut self, advert: Advert, at: Instant) {
        let silent = at + self.patience(self.interval_of(advert));
        // RFC 9568 §6.4.2. Without preemption any master is obeyed, but not one of last resort: its lb reaches no broker.
        let may_preempt = self.settings.preempt || self.is_owner() || advert.priority <= LAST_RESORT;
        if advert.priority >= self.priority || !may_preempt {
            self.lower_since = None;
            self.obey(advert, at, silent);
            self.waiting = Reason::MasterSilent { master: advert.source, silent: Duration::ZERO };
            return;
        }
        let since = *self.lower_since.get_or_insert(at);
        let hurries = self.is_owner() || advert.priority <= LAST_RESORT;
        let allowed = since + if hurries { Duration::ZERO } else { self.settings.preempt_delay };
        if allowed > at {
            // Whoever still listens after a change of its own state does so to the end.
            let listened = self.timers.master_down.map_or(allowed, |listening| listening.max(allowed));
            self.obey(advert, at, listened.min(silent));
        } else {
            self.heard = Some(Heard { advert, at, obeyed: false });
        }
        let (master, priority) = (advert.source, advert.priority);
        self.waiting = if allowed <= silent {
            Reason::Preempted { master, priority }
        } else {
            Reason::MasterSilent { master, silent: Duration::ZERO }
        };
    }

    /// Why this host takes over now.
    pub(super) fn reason_to_take_over(&self, now: Instant) -> Reason {
        match (self.waiting, self.heard) {
            (Reason::MasterSilent { master, .. }, Some(heard)) => {
                Reason::MasterSilent { master, silent: now.saturating_duration_since(heard.at) }
            }
            (reason, _) => reason,
        }
    }

    /// Puts the takeover off.
    fn obey(&mut self, advert: Advert, at: Instant, master_down: Instant) {
        // RFC 9568 §6.4.2 learns the master's interval; in RFC 3768 all routers have the same.
        self.master_interval = self.interval_of(advert);
        self.heard = Some(Heard { advert, at, obeyed: true });
        self.timers.master_down = Some(master_down);
        self.yield_permission();
    }

    fn interval_of(&self, advert: Advert) -> Duration {
        match self.settings.version {
            VrrpVersion::V2 => self.settings.interval,
            VrrpVersion::V3 => advert.interval,
        }
    }

    /// The deadline keeps what had passed of it: a rank moves it by the change of skew alone.
    fn change_rank_as_backup(&mut self, priority: u8) {
        let before = self.skew();
        let falls = priority < self.priority;
        self.priority = priority;
        self.timers.master_down = self.timers.master_down.map(|due| due - before + self.skew());
        // Whom it would have taken the VIP from may be the better one by now.
        if falls && let Some(Heard { advert, at, .. }) = self.heard {
            self.judge(advert, at);
        }
    }

    /// Moves a running master-down timer to other settings: as if they had been in force when it was started.
    pub(super) fn change_beat_as_backup(&mut self, before: Duration) {
        if !self.heard.is_some_and(|heard| heard.obeyed) || self.settings.version == VrrpVersion::V2 {
            self.master_interval = self.settings.interval;
        }
        self.timers.master_down = self.timers.master_down.map(|due| due + self.master_down_interval() - before);
    }
}
