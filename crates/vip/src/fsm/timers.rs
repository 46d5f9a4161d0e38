//! Every timer of the machine: one slot each.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When a router that has just been built may take part. Runs in Initialize only.
    pub(super) start: Option<Instant>,
    /// Active_Down_Timer (RFC 9568 §6.2), of a backup. None in Backup: it has run out, and what else a takeover needs is
    /// waited for.
    pub(super) master_down: Option<Instant>,
    /// Adver_Timer, of a master.
    pub(super) adver: Option<Instant>,
    /// The next announcement, of a master.
    pub(super) garp: Option<Instant>,
    /// The announcement after the address surely has one holder, of a master; see [`super::linger`].
    pub(super) overlap: Option<Instant>,
    /// The announcement that comes again and again, of a master.
    pub(super) refresh: Option<Instant>,
    /// When a master must have the permission that it did not need when it became one.
    pub(super) permission: Option<Instant>,
    /// When a host that is master no more lets the address go. Runs exactly while the address lingers.
    pub(super) release: Option<Instant>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let Self { start, master_down, adver, garp, overlap, refresh, permission, release } = *self;
        [start, master_down, adver, garp, overlap, refresh, permission, release].into_iter().flatten().min()
    }

    /// Whether an announcement is due; several at once are one. The one that repeats is set again.
    pub(super) fn take_announcement(&mut self, every: Duration, now: Instant) -> bool {
        let due = [self.garp, self.overlap, self.refresh].into_iter().flatten().any(|due| due <= now);
        self.garp = self.garp.filter(|due| *due > now);
        self.overlap = self.overlap.filter(|due| *due > now);
        if self.refresh.is_some_and(|due| due <= now) {
            self.refresh = Some(now + every);
        }
        due
    }
}

/// Whether the timer of this slot has run out.
pub(super) fn ran_out(slot: Option<Instant>, now: Instant) -> bool {
    slot.is_some_and(|due| due <= now)
}
