//! Every timer of the machine: one slot each.

use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Active_Down_Timer (RFC 9568 §6.2), of a backup.
    pub(super) master_down: Option<Instant>,
    /// Adver_Timer, of a master.
    pub(super) adver: Option<Instant>,
    /// The next burst of gratuitous ARP, of a master.
    pub(super) garp: Option<Instant>,
    /// The burst after the address surely has one holder, of a master; see [`super::linger`].
    pub(super) overlap: Option<Instant>,
    /// When a host that is master no more lets the address go. Runs exactly while the address lingers.
    pub(super) release: Option<Instant>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.master_down, self.adver, self.garp, self.overlap, self.release].into_iter().flatten().min()
    }
}
