//! What the guard decides. Pure: no socket, no clock.
//!
//! ```text
//!   address   daemon          what the guard does
//!   held      takes turns     nothing
//!   held      takes none      removes the address when the bound is over
//!   held      gone            priority 0; removes it when the successor is heard, or when the linger time is over
//!   free      any             nothing
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How to leave the addresses of one virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duty {
    /// After the hand-over of a daemon that is gone, how long the addresses stay at most.
    pub linger: Duration,
    /// How long the daemon may take no turn.
    pub bound: Duration,
    /// Whether another router could take over. Without one the addresses have nobody to wait for.
    pub peers: bool,
}

/// A daemon that lost its lease takes the addresses away itself, within this.
const GRACE: Duration = Duration::from_millis(2);

/// What the process has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell the peers of this virtual router that its master leaves.
    Farewell(usize),
    /// Take its addresses away.
    Remove {
        /// The virtual router.
        slot: usize,
        /// Why.
        why: Why,
    },
    /// Nothing is left to guard, and nobody to guard it for.
    End,
}

/// Why addresses are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The daemon was killed, and the successor is heard, or late, or there is none.
    Killed,
    /// The daemon has taken no turn for this long.
    Frozen {
        /// Since its last turn.
        silent: Duration,
    },
}

/// The guard of one daemon.
#[derive(Debug)]
pub struct Guard {
    slots: Vec<Slot>,
    /// The daemon's last turn.
    beat: Instant,
    /// The end of its lease, if it holds by the votes of a quorum.
    lease_end: Option<Instant>,
    gone: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    duty: Duty,
    hold: Hold,
}

#[derive(Debug, Clone, Copy)]
enum Hold {
    Free,
    /// The daemon put the addresses up; not before then does the bound count.
    Held {
        since: Instant,
    },
    /// The daemon is gone; the addresses stay until then.
    Lingers {
        until: Instant,
    },
}

impl Guard {
    /// A guard with nothing to guard.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { slots: Vec::new(), beat: now, lease_end: None, gone: false, actions: VecDeque::new() }
    }

    /// The daemon told how to leave a virtual router's addresses, or told it anew. Slots come in order.
    pub fn handle_duty(&mut self, slot: usize, duty: Duty) {
        match self.slots.get_mut(slot) {
            Some(known) => known.duty = duty,
            None => self.slots.push(Slot { duty, hold: Hold::Free }),
        }
    }

    /// The daemon has put the addresses up.
    pub fn handle_held(&mut self, slot: usize, now: Instant) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.hold = Hold::Held { since: now };
        }
    }

    /// The daemon has taken the addresses away.
    pub fn handle_released(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.hold = Hold::Free;
        }
    }

    /// The time of the daemon's last turn, and the end of its lease, as the shared page has them. Read it before
    /// [`Guard::handle_timeout`].
    pub fn handle_beat(&mut self, beat: Instant, lease_end: Option<Instant>) {
        self.beat = self.beat.max(beat);
        self.lease_end = lease_end;
    }

    /// The socket pair has ended: there is no daemon.
    pub fn handle_gone(&mut self, now: Instant) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        for index in 0..self.slots.len() {
            let duty = self.slots[index].duty;
            match self.slots[index].hold {
                Hold::Held { .. } => {
                    self.actions.push_back(Action::Farewell(index));
                    if duty.peers {
                        // Nobody yields the votes; when the lease is over they may be a successor's that is not heard.
                        let linger = now + duty.linger;
                        let until = self.lease_end.map_or(linger, |end| linger.min(end));
                        self.slots[index].hold = Hold::Lingers { until };
                    } else {
                        self.remove(index, Why::Killed);
                    }
                }
                Hold::Free | Hold::Lingers { .. } => {}
            }
        }
        self.end_if_done();
    }

    /// A router is heard as master of this virtual router.
    pub fn handle_successor(&mut self, slot: usize) {
        match self.slots.get(slot).map(|slot| slot.hold) {
            Some(Hold::Lingers { .. }) => {
                self.remove(slot, Why::Killed);
                self.end_if_done();
            }
            // The daemon reads the same advertisement.
            Some(Hold::Held { .. } | Hold::Free) | None => {}
        }
    }

    /// A deadline of [`Guard::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let Slot { duty, hold } = self.slots[index];
            match hold {
                Hold::Held { since } => {
                    if self.due(since, duty) <= now {
                        let silent = now.saturating_duration_since(self.beat.max(since));
                        self.remove(index, Why::Frozen { silent });
                    }
                }
                Hold::Lingers { until } if until <= now => {
                    self.remove(index, Why::Killed);
                    self.end_if_done();
                }
                Hold::Lingers { .. } | Hold::Free => {}
            }
        }
    }

    /// When [`Guard::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |slot: &Slot| match slot.hold {
            Hold::Held { since } => Some(self.due(since, slot.duty)),
            Hold::Lingers { until } => Some(until),
            Hold::Free => None,
        };
        self.slots.iter().filter_map(due).min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether a successor of this virtual router is waited for.
    #[must_use]
    pub fn lingers(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| matches!(slot.hold, Hold::Lingers { .. }))
    }

    /// When a daemon that takes no turn must not hold an address any more. One that does takes another one before.
    fn due(&self, since: Instant, duty: Duty) -> Instant {
        let bound = self.beat.max(since) + duty.bound;
        self.lease_end.map_or(bound, |end| bound.min(end + GRACE))
    }

    fn remove(&mut self, slot: usize, why: Why) {
        self.slots[slot].hold = Hold::Free;
        self.actions.push_back(Action::Remove { slot, why });
    }

    fn end_if_done(&mut self) {
        if self.gone && self.slots.iter().all(|slot| matches!(slot.hold, Hold::Free)) {
            self.actions.push_back(Action::End);
        }
    }
}

#[cfg(test)]
mod tests;
