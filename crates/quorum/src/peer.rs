//! What one host knows of another: whether it answers, and which of its messages are new. Pure.
//!
//! Every host counts the messages of its run (*epoch*), and every message says which epoch of the receiver its sender
//! knows. Only a message with the receiver's own epoch, and a counter above all before it, changes anything. So nothing
//! counts twice, nothing overtaken counts, and nothing recorded before a restart counts after it: a host that has just
//! started has an epoch that no recorded message names.

use std::time::{Duration, Instant};

use crate::message::{Discard, Header};

/// A host that answers is asked again after this.
const PROBE: Duration = Duration::from_secs(1);
/// Probes in a row without an answer at the faster pace.
const HASTY_PROBES: u8 = 10;

/// Another host.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its epoch; 0: not known.
    pub(crate) epoch: u64,
    /// The latest message that changed anything.
    seen: Option<(u64, u64)>,
    /// When it answered last.
    pub(crate) heard: Option<Instant>,
    /// How long its last answer took.
    pub(crate) round_trip: Duration,
    /// The first ask that it has not answered.
    asked: Option<Instant>,
    asks: u8,
    probe_due: Instant,
    /// A probe has to be sent.
    pub(crate) probe: bool,
}

/// What to make of an authentic message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// New. Whether the sender's epoch is another than was known.
    New {
        /// Then what it was asked has to be asked again.
        reacquainted: bool,
    },
    /// Its sender does not know this host's epoch.
    Unacquainted,
    /// Its sender's epoch is before this one, which is known: its clock went back between two starts.
    Outdated(u64),
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            epoch: 0,
            seen: None,
            heard: None,
            round_trip: Duration::ZERO,
            asked: None,
            asks: 0,
            probe_due: now,
            probe: false,
        }
    }

    /// Judges an authentic message and remembers it.
    pub(crate) fn handle_header(&mut self, header: &Header, own_epoch: u64) -> Result<Freshness, Discard> {
        if header.receiver_epoch != own_epoch {
            return Ok(Freshness::Unacquainted);
        }
        let this = (header.epoch, header.counter);
        if let Some(seen) = self.seen {
            if header.epoch < seen.0 {
                return Ok(Freshness::Outdated(seen.0));
            }
            if this <= seen {
                return Err(Discard::Old);
            }
        }
        self.seen = Some(this);
        Ok(Freshness::New { reacquainted: self.learn(header.epoch) })
    }

    /// The peer's epoch, from a message that is surely new. Whether it is another than was known.
    pub(crate) fn learn(&mut self, epoch: u64) -> bool {
        std::mem::replace(&mut self.epoch, epoch) != epoch
    }

    /// Something was sent that it has to answer.
    pub(crate) fn handle_asked(&mut self, lease: Duration, now: Instant) {
        self.asked.get_or_insert(now);
        self.asks = self.asks.saturating_add(1);
        let pause = if self.asks < HASTY_PROBES { (lease / 5).min(PROBE) } else { PROBE };
        self.probe_due = now + pause;
    }

    /// It has answered what was sent at `sent`.
    pub(crate) fn handle_answered(&mut self, sent: Instant, now: Instant) {
        self.heard = Some(now);
        self.round_trip = now.saturating_duration_since(sent);
        self.asked = None;
        self.asks = 0;
        self.probe_due = now + PROBE;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.probe_due <= now {
            self.probe = true;
            // Until it is sent, and then by `handle_asked`.
            self.probe_due = now + PROBE;
        }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.probe_due
    }

    /// Whether it has answered, and has left nothing unanswered for a whole lease.
    pub(crate) fn is_reachable(&self, lease: Duration, now: Instant) -> bool {
        self.heard.is_some() && self.asked.is_none_or(|asked| now < asked + lease)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

    use super::*;
    use crate::membership::{ClusterId, HostId, Members};

    const OWN: u64 = 77;

    fn header(epoch: u64, counter: u64, receiver_epoch: u64) -> Header {
        Header {
            cluster: ClusterId(1),
            sender: HostId(2),
            receiver: HostId(3),
            epoch,
            counter,
            receiver_epoch,
            members: Members { count: 2, digest: 1 },
            echo: 0,
            stamp: 0,
        }
    }

    #[test]
    fn counters_only_grow_and_a_new_epoch_starts_again() {
        let mut peer = Peer::new(Instant::now());
        let mut judge = |epoch, counter, receiver| peer.handle_header(&header(epoch, counter, receiver), OWN);
        assert_eq!(judge(5, 10, 0), Ok(Freshness::Unacquainted));
        assert_eq!(judge(5, 10, OWN - 1), Ok(Freshness::Unacquainted));
        assert_eq!(judge(5, 10, OWN), Ok(Freshness::New { reacquainted: true }));
        assert_eq!(judge(5, 10, OWN), Err(Discard::Old));
        assert_eq!(judge(5, 9, OWN), Err(Discard::Old));
        assert_eq!(judge(5, 12, OWN), Ok(Freshness::New { reacquainted: false }));
        assert_eq!(judge(6, 1, OWN), Ok(Freshness::New { reacquainted: true }));
        assert_eq!(judge(5, 13, OWN), Ok(Freshness::Outdated(6)));
        assert_eq!(judge(6, 2, OWN), Ok(Freshness::New { reacquainted: false }));
    }

    #[test]
    fn reachable_while_it_answers_within_a_lease() {
        let (start, lease, ms) = (Instant::now(), Duration::from_millis(200), Duration::from_millis);
        let mut peer = Peer::new(start);
        peer.handle_timeout(start);
        assert!(std::mem::take(&mut peer.probe));
        peer.handle_asked(lease, start);
        assert!(!peer.is_reachable(lease, start));
        peer.handle_answered(start, start + ms(1));
        assert!(peer.is_reachable(lease, start + ms(999)));
        assert_eq!(peer.poll_timeout(), start + ms(1001));
        peer.handle_asked(lease, start + ms(1001));
        assert!(peer.is_reachable(lease, start + ms(1200)));
        assert!(!peer.is_reachable(lease, start + ms(1201)));
        assert_eq!(peer.poll_timeout(), start + ms(1041), "asked again soon");
        assert_eq!(peer.round_trip, ms(1));
        let last = (0..20).fold(start + ms(1041), |now, _| {
            peer.handle_asked(lease, now);
            peer.poll_timeout()
        });
        peer.handle_asked(lease, last);
        assert_eq!(peer.poll_timeout(), last + PROBE, "in the end at leisure");
        assert_eq!(peer.heard.unwrap(), start + ms(1));
    }
}
