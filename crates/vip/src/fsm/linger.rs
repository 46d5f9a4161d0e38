//! Leaving the VIP to a successor: the address lingers until the successor is heard.
//!
//! The successor takes over a skew time after the advertisement of priority 0. Were the address gone meanwhile, nobody would
//! answer a client's SYN, and its kernel repeats that only after a second; a dead lb ends every connection at this very
//! moment, so whoever reconnects at once would lose that second. While the address lingers the kernel answers: with a reset
//! where the lb is dead, so that the client tries again at once, and with a connection where the lb still serves.
//!
//! ```text
//!   leaving host   priority 0 ................................. advert heard: address removed
//!   successor            |----- skew -----| address, GARP, advert
//! ```
//!
//! - The address goes with the first advertisement of priority above 0 from any router, or with the successor's own
//!   announcement of it, and [`Fsm::linger_time`] after the hand-over at the latest.
//! - Meanwhile this host says nothing: no advertisement, no gratuitous ARP.
//! - A frozen lb keeps nothing: the kernel would go on completing handshakes that no program ever answers.
//! - A host that becomes master again first simply keeps the address.
//!
//! Two hosts hold the address from the successor's takeover until its advertisement arrives, and in that time the leaving
//! host's kernel may still answer an ARP request, or send one with the VIP as its sender, after the successor's gratuitous
//! ARP. A neighbour that believes the later word would go on sending to a host that drops its packets. So a master that
//! took over from one that left repeats its burst a linger time later: by then that host has let the address go even if
//! every advertisement to it was lost. That burst does not depend on `garp_repeat_delay`, which is for switches that
//! missed the first one.

use std::time::{Duration, Instant};

use super::{Action, Advert, Fsm};
use crate::track::Cause;

/// For both adverts' way through the network, and for both programs to wake up on busy machines. A takeover that needs
/// more than this leaves the old hole; a longer wait would keep an address up that a master holds whom this host cannot hear.
pub(super) const MARGIN: Duration = Duration::from_millis(10);

impl Fsm {
    /// Whether this host still has the address though it is master no more. A program that stops waits for the end of it.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.timers.release.is_some()
    }

    /// How long an address lingers at most: until the slowest peer has taken over, whose skew is just below the interval of
    /// the master that left (RFC 9568 §6.1), or a second (RFC 3768 §6.1).
    pub(super) fn linger_time(&self) -> Duration {
        self.longest_skew(self.master_interval) + MARGIN
    }

    /// Tells peers that this master leaves. The state changes next, and every state but Master keeps the release timer.
    pub(super) fn hand_over(&mut self, now: Instant) {
        self.send_advert(0);
        self.timers.release = Some(now + self.linger_time());
        if !self.settings.peers {
            self.release();
        }
    }

    /// Some router is master: the address is its own from here on.
    pub(super) fn release_to(&mut self, advert: Advert) {
        if advert.priority > 0 {
            self.release();
        }
    }

    /// Ends the lingering if this host cannot even refuse a client properly.
    pub(super) fn release_if_frozen(&mut self, cause: Cause) {
        if cause == Cause::LbSilent {
            self.release();
        }
    }

    /// Takes the address away if it lingers.
    pub(super) fn release(&mut self) {
        if self.timers.release.take().is_some() {
            self.actions.push_back(Action::RemoveAddress);
        }
    }
}
