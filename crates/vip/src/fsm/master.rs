//! Master (RFC 9568 §6.4.3, where it is called Active): holds the addresses and says so.

use std::time::{Duration, Instant};

use super::permission::Challenges;
use super::timers::Timers;
use super::{Action, Advert, Event, Fsm, LAST_RESORT, Reason, State};
use crate::track::Cause;

/// Shortest time between two announcements that answer someone else's claim.
pub(super) const RECLAIM_PAUSE: Duration = Duration::from_secs(1);

impl Fsm {
    pub(super) fn step_in_master(&mut self, event: Event, now: Instant) {
        match event {
            Event::Fit { priority, cause } => self.change_rank_as_master(priority, cause, now),
            Event::Unfit { cause } => {
                self.hand_over(now);
                self.release_if_frozen(cause);
                self.enter_initialize(Reason::Health(cause));
            }
            Event::Shutdown => {
                self.hand_over(now);
                self.enter_initialize(Reason::Shutdown);
            }
            Event::Advert(advert) => self.hear_as_master(advert, now),
            Event::AdverTimer => self.advertise_on_time(now),
            Event::AnnounceTimer => self.claim(now),
            Event::Conflict => self.reclaim(now),
            // Beyond the RFC: another host may be master by now, and even if it ranks lower it was right to take over.
            // Nothing is sent before a whole master-down interval was listened to.
            Event::Paused { silent } => {
                self.actions.push_back(Action::RemoveAddress);
                self.enter_backup(Reason::Paused { silent }, now);
            }
            Event::AddressLost => {
                self.actions.push_back(Action::AddAddress);
                self.claim(now);
            }
            Event::Granted => self.be_permitted_as_master(),
            Event::Denied => self.be_refused_as_master(now),
            Event::PermissionTimer => self.leave_at_once(Reason::PermissionLost, now),
            Event::GroupLeaves { at_once: true } => self.leave_at_once(Reason::Group, now),
            Event::GroupLeaves { at_once: false } => {
                self.hand_over(now);
                self.enter_backup(Reason::Group, now);
            }
            Event::StartTimer | Event::MasterDownTimer | Event::ReleaseTimer | Event::GroupLeads => {}
        }
    }

    pub(super) fn enter_master(&mut self, reason: Reason, now: Instant) {
        let lingered = self.timers.release.is_some();
        let left = matches!(reason, Reason::MasterLeft { .. });
        let after = |delay: Duration| (!delay.is_zero()).then(|| now + delay);
        self.timers = Timers {
            adver: Some(now + self.settings.interval),
            overlap: left.then(|| now + self.linger_time()),
            garp: after(self.settings.garp_repeat_delay),
            refresh: after(self.settings.garp_refresh),
            ..Timers::default()
        };
        // A master keeps its own interval, and its master-down interval tells when its peers give it up.
        self.master_interval = self.settings.interval;
        self.heard = None;
        self.lower_since = None;
        self.asserted = false;
        self.challenges = Challenges::default();
        if !lingered {
            self.actions.push_back(Action::AddAddress);
        }
        self.claim(now);
        self.send_advert(self.priority);
        self.move_to(State::Master, reason);
    }

    fn hear_as_master(&mut self, advert: Advert, now: Instant) {
        let theirs = (advert.priority, advert.source);
        if advert.priority == 0 {
            // RFC 9568 §6.4.3: whoever leaves, this host stays.
            self.send_advert(self.priority);
            self.timers.adver = Some(now + self.settings.interval);
        } else if theirs > (self.priority, self.settings.address) {
            self.actions.push_back(Action::RemoveAddress);
            let reason = Reason::Outranked { master: advert.source, priority: advert.priority };
            self.enter_backup(reason, now);
            self.hear_as_backup(advert, now);
        } else {
            // RFC 9568 §6.4.3: assert the state at once; but once between two regular advertisements, or two routers that
            // both think themselves better would answer each other without end. Neighbours may have learned the other's
            // hardware address.
            if !std::mem::replace(&mut self.asserted, true) {
                self.send_advert(self.priority);
            }
            self.reclaim(now);
        }
    }

    fn change_rank_as_master(&mut self, priority: u8, cause: Cause, now: Instant) {
        if priority == self.priority {
            return;
        }
        let sinks = priority == LAST_RESORT;
        self.priority = priority;
        if sinks {
            self.hand_over(now);
            self.enter_backup(Reason::Health(cause), now);
        } else {
            self.send_advert(self.priority);
            self.timers.adver = Some(now + self.settings.interval);
        }
    }

    fn advertise_on_time(&mut self, now: Instant) {
        self.asserted = false;
        self.send_advert(self.priority);
        let interval = self.settings.interval;
        // From deadline to deadline, so that a late wake-up does not slow the beat down.
        let next = self.timers.adver.map(|due| due + interval).filter(|next| *next > now);
        self.timers.adver = Some(next.unwrap_or(now + interval));
    }

    /// What must not stay for a successor's sake: the address goes first, then the others are told.
    pub(super) fn leave_at_once(&mut self, reason: Reason, now: Instant) {
        self.actions.push_back(Action::RemoveAddress);
        self.send_advert(0);
        self.enter_backup(reason, now);
    }

    fn claim(&mut self, now: Instant) {
        self.claimed_at = Some(now);
        self.actions.push_back(Action::SendGarp);
    }

    /// One burst now and one later, never more often than [`RECLAIM_PAUSE`], whatever the other side sends.
    fn reclaim(&mut self, now: Instant) {
        let again = self.claimed_at.map_or(now, |claimed| claimed + RECLAIM_PAUSE);
        if again <= now {
            self.claim(now);
            let pending = self.timers.garp.filter(|due| *due > now);
            self.timers.garp = pending.or(Some(now + RECLAIM_PAUSE));
        } else {
            self.timers.garp.get_or_insert(again);
        }
    }

    /// Peers learn another interval from the next advertisement (VRRP 3), which is therefore sent at once.
    pub(super) fn change_beat_as_master(&mut self, now: Instant) {
        self.master_interval = self.settings.interval;
        self.send_advert(self.priority);
        self.timers.adver = Some(now + self.settings.interval);
    }
}
