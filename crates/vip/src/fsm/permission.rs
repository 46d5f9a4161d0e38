//! The permission of the quorum, where one is needed: without it nobody is master, whatever the adverts say.
//!
//! ```text
//!   backup   master-down timer runs out     SeekPermission ..... handle_permission(true)   master
//!   backup   hears a master it obeys        YieldPermission, whether it was given or not
//!   master   handle_permission(false)       RemoveAddress, priority 0, YieldPermission     backup
//!   master   leaves in any other way        YieldPermission with the hand-over
//! ```
//!
//! The permission is one of this router and held or not; who counts the votes, and for how long they last, is not its
//! business. It is sought only after the master-down timer ran out, so that the ranks decide who asks first.
//!
//! A lower master has the permission that a better backup would need to preempt it. So the backup *challenges* it by an
//! advertisement of its own, to which it gives way as to any better router. Should the backup then not get the permission,
//! the other one takes the address again, and the next challenge comes later from time to time: a router that reaches
//! its peer but not the quorum must not take the address down again and again.

use std::time::{Duration, Instant};

use super::{Action, Event, Fsm, Reason};

/// From the first challenge to the second one, in advertisement intervals. Each later one takes twice as long as the one before.
const CHALLENGE_PAUSE: u32 = 64;
const LONGEST_CHALLENGE_PAUSE: Duration = Duration::from_secs(3600);

/// The challenges of lower masters that did not bring the permission.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Challenges {
    count: u32,
    next: Option<Instant>,
}

/// Where this router stands with the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Neither had nor wanted.
    None,
    /// Asked for.
    Sought,
    /// Given.
    Held,
}

impl Fsm {
    /// The quorum gives its permission, or takes it back.
    pub fn handle_permission(&mut self, granted: bool, now: Instant) {
        self.feed(if granted { Event::Granted } else { Event::Denied }, now);
    }

    /// Becomes master, or asks whether it may.
    pub(super) fn take_over(&mut self, now: Instant) {
        if self.is_permitted() {
            self.enter_master(self.reason_to_take_over(now), now);
        } else {
            self.seek_permission();
            self.challenge(now);
        }
    }

    /// Tells a lower master to make room, if it is time for that.
    pub(super) fn challenge(&mut self, now: Instant) {
        let preempts = matches!(self.waiting, Reason::Preempted { .. });
        let Challenges { count, next } = self.challenges;
        if preempts && self.permission == Permission::Sought && next.is_none_or(|next| next <= now) {
            self.send_advert(self.priority);
            let pause = self.settings.interval * CHALLENGE_PAUSE * 2_u32.pow(count.min(12));
            self.challenges =
                Challenges { count: count.saturating_add(1), next: Some(now + pause.min(LONGEST_CHALLENGE_PAUSE)) };
        }
    }

    /// Whether nothing of the quorum's is missing.
    pub(super) fn is_permitted(&self) -> bool {
        !self.settings.permission || self.permission == Permission::Held
    }

    pub(super) fn seek_permission(&mut self) {
        if self.settings.permission && self.permission == Permission::None {
            self.permission = Permission::Sought;
            self.actions.push_back(Action::SeekPermission);
        }
    }

    pub(super) fn yield_permission(&mut self) {
        if std::mem::replace(&mut self.permission, Permission::None) != Permission::None {
            self.actions.push_back(Action::YieldPermission);
        }
    }

    pub(super) fn be_permitted_as_backup(&mut self, now: Instant) {
        // One that has been given back meanwhile may still arrive.
        if self.permission == Permission::Sought {
            self.permission = Permission::Held;
            if self.wants() && !self.grouped {
                self.take_over(now);
            }
        }
    }

    /// Not yet, or not any more, before the rest of a sync group had it.
    pub(super) fn be_refused_as_backup(&mut self) {
        if self.permission == Permission::Held {
            self.permission = Permission::None;
            self.seek_permission();
        }
    }

    pub(super) fn be_permitted_as_master(&mut self) {
        if self.permission == Permission::Sought {
            self.permission = Permission::Held;
            self.timers.permission = None;
        }
    }

    /// A host that the quorum does not see must not hold the address for a moment longer: who would be its successor has
    /// the permission already.
    pub(super) fn be_refused_as_master(&mut self, now: Instant) {
        if self.permission == Permission::Held {
            self.leave_at_once(Reason::PermissionLost, now);
        }
    }

    /// The quorum was switched on or off.
    pub(super) fn change_need_of_permission(&mut self, now: Instant) {
        if self.settings.permission {
            // A master goes on while it asks, for as long as its peers would wait for it.
            if self.timers.adver.is_some() {
                self.timers.permission = Some(now + self.master_down_interval());
                self.seek_permission();
            } else if self.wants() && !self.grouped {
                self.seek_permission();
            }
        } else {
            self.timers.permission = None;
            self.yield_permission();
            if self.wants() && !self.grouped {
                self.take_over(now);
            }
        }
    }
}
