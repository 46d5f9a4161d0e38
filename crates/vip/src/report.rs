//! What the real-time thread has to say, handed to the control thread: it never waits for a log, a lock or a client.
//!
//! Events go through a bounded queue; when it is full they are counted and lost. A byte on a socket pair wakes the reader.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use crate::counters::Counters;
use crate::fsm::Transition;
use crate::packet::DecodeError;
use crate::track::Effective;

/// A hundred changes of state, far more than a control thread can be behind.
const QUEUE: usize = 256;
/// A trouble that lasts is reported again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// Something worth telling.
#[derive(Debug)]
pub struct Event {
    /// When, for people.
    pub time: SystemTime,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// The state changed.
    Moved(Transition),
    /// The effective priority changed, or its cause.
    Effective(Effective),
    /// Another master is heard.
    Follows(Ipv4Addr),
    /// Someone removed the VIP; it is back.
    AddressRestored,
    /// Something that may come again and again, and is told once a minute.
    Trouble(Trouble),
}

/// What an operator may have to mend.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The kernel would not send an advertisement (errno).
    AdvertNotSent(i32),
    /// The kernel would not send a gratuitous ARP (errno).
    GarpNotSent(i32),
    /// The VRRP socket reports an error (errno).
    Socket(i32),
    /// An advertisement was discarded.
    Discarded {
        /// Whose, if it can be told.
        source: Option<Ipv4Addr>,
        /// Why.
        error: DecodeError,
    },
    /// The master's interval is not this host's.
    Interval {
        /// The master.
        source: Ipv4Addr,
        /// Its interval.
        interval: Duration,
    },
}

/// The real-time thread's end.
#[derive(Debug)]
pub struct Reporter {
    events: SyncSender<Event>,
    wake: UnixStream,
    counters: Arc<Counters>,
    /// When each kind of trouble was told last.
    told: [Option<Instant>; Trouble::KINDS],
}

/// The control thread's end.
#[derive(Debug)]
pub struct Reports {
    /// What was reported; ends with the reporter.
    pub events: Receiver<Event>,
    /// Readable when there is something; end-of-file when the reporter is gone.
    pub wake: UnixStream,
}

/// Both ends.
///
/// # Errors
/// No file descriptor is left.
pub fn channel(counters: Arc<Counters>) -> io::Result<(Reporter, Reports)> {
    let (events, receiver) = sync_channel(QUEUE);
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    Ok((Reporter { events, wake, counters, told: [None; Trouble::KINDS] }, Reports { events: receiver, wake: woken }))
}

impl Reporter {
    /// Reports; never waits.
    pub fn report(&mut self, what: What) {
        #[expect(clippy::disallowed_methods, reason = "people read wall time in logs and states")]
        let time = SystemTime::now();
        if self.events.try_send(Event { time, what }).is_err() {
            self.counters.events_dropped.count();
        }
        // A full socket has enough bytes to wake the reader; a closed one has no reader.
        let _ = self.wake.write(&[0]);
    }

    /// Reports trouble, each kind at most once a minute.
    pub fn trouble(&mut self, trouble: Trouble, now: Instant) {
        let told = &mut self.told[trouble.kind()];
        if told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN) {
            *told = Some(now);
            self.report(What::Trouble(trouble));
        }
    }
}

impl Trouble {
    const KINDS: usize = 12;

    fn kind(self) -> usize {
        match self {
            Self::AdvertNotSent(_) => 0,
            Self::GarpNotSent(_) => 1,
            Self::Socket(_) => 2,
            Self::Interval { .. } => 3,
            Self::Discarded { error, .. } => match error {
                DecodeError::Ttl(_) => 4,
                DecodeError::Version(_) => 5,
                DecodeError::Type(_) => 6,
                DecodeError::Length => 7,
                DecodeError::Checksum => 8,
                DecodeError::Vrid(_) => 9,
                DecodeError::AddressList => 10,
                DecodeError::Interval => 11,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

    use super::*;

    #[test]
    fn a_reader_that_sleeps_costs_events_and_nothing_else() {
        let counters = Arc::new(Counters::default());
        let (mut reporter, reports) = channel(counters.clone()).unwrap();
        for _ in 0..QUEUE + 7 {
            reporter.report(What::AddressRestored);
        }
        assert_eq!(counters.events_dropped.get(), 7);
        assert_eq!(reports.events.try_iter().count(), QUEUE);
        drop(reports);
        reporter.report(What::AddressRestored);
        assert_eq!(counters.events_dropped.get(), 8);
    }

    #[test]
    fn lasting_trouble_is_told_once_a_minute_and_kind() {
        let (mut reporter, reports) = channel(Arc::default()).unwrap();
        let start = Instant::now();
        for second in 0..=60 {
            let now = start + Duration::from_secs(second);
            reporter.trouble(Trouble::AdvertNotSent(1), now);
            reporter.trouble(Trouble::Discarded { source: None, error: DecodeError::Checksum }, now);
            reporter.trouble(Trouble::Discarded { source: None, error: DecodeError::Version(2) }, now);
        }
        assert_eq!(reports.events.try_iter().count(), 6);
    }
}
