//! What the real-time thread has to say, handed to the control thread: it never waits for a log, a lock or a client.
//!
//! Events go through a ring of a fixed size; when it is full they are counted and lost. A byte on a socket pair wakes the
//! reader.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::counters::Counter;
use crate::driver::{Change, Instance};
use crate::fsm::Transition;
use crate::packet::DecodeError;
use crate::track::{Effective, Part};

/// A hundred changes of state of several virtual routers, far more than a control thread can be behind.
const QUEUE: usize = 512;
/// A trouble that lasts is reported again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// Something worth telling.
#[derive(Debug)]
pub struct Event {
    /// When, for people.
    pub time: SystemTime,
    /// Of which virtual router, by its slot; 0 where it is of none.
    pub slot: usize,
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
    /// A part of what it is made of changed.
    Part(Part),
    /// Another master is heard.
    Follows(IpAddr),
    /// Someone removed an address; it is back.
    AddressRestored,
    /// Something happened to the interface.
    Link(LinkChange),
    /// SIGHUP: the cluster file is to be read again.
    ReloadAsked,
    /// Another configuration is in force; here is what it replaced.
    InForce(Box<Change>),
    /// A virtual router that had to go has gone.
    Retired(Box<Instance>),
    /// A configuration that came too late: the program stops.
    Superseded(Box<Change>),
    /// Sockets of before, or such that came too late.
    Freed(Box<Instance>),
    /// The guard is gone, or does not read.
    GuardLost,
    /// The guard before the present one.
    GuardReplaced(Box<crate::guard::keeper::Line>),
    /// Something that may come again and again, and is told once a minute.
    Trouble(Trouble),
}

/// What happened to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// It was set down, or has lost its carrier.
    Down,
    /// It is up again, and counts after a hold-down.
    Up,
    /// It was removed.
    Gone,
    /// An interface of this name is there again: sockets have to be opened.
    Back,
}

/// What an operator may have to mend.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The kernel would not send an advertisement (errno).
    AdvertNotSent(i32),
    /// The kernel would not send an announcement (errno).
    GarpNotSent(i32),
    /// The VRRP socket reports an error (errno).
    Socket(i32),
    /// The lb's control socket is there, and may not be used.
    LbForbidden,
    /// The kernel would not put an address up (errno, 0 where it gave none).
    AddressNotAdded(i32),
    /// The kernel would not take an address away (errno, 0 where it gave none).
    AddressNotRemoved(i32),
    /// Another host claims an address of this virtual router.
    Conflict {
        /// The address.
        address: IpAddr,
        /// The other's hardware address, where it is known.
        mac: Option<[u8; 6]>,
    },
    /// An advertisement was discarded.
    Discarded {
        /// Whose, if it can be told.
        source: Option<IpAddr>,
        /// Why.
        error: DecodeError,
    },
    /// The master's interval is not this host's.
    Interval {
        /// The master.
        source: IpAddr,
        /// Its interval.
        interval: Duration,
    },
}

/// The real-time thread's end.
#[derive(Debug)]
pub struct Reporter {
    events: Producer<Event>,
    wake: UnixStream,
    dropped: Arc<Counter>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Reports {
    /// What was reported.
    pub events: Consumer<Event>,
    /// Readable when there is something; end-of-file when the reporter is gone.
    pub wake: UnixStream,
}

/// When each kind of trouble of one virtual router was told last.
#[derive(Debug, Default)]
pub struct Told([Option<Instant>; Trouble::KINDS]);

/// Both ends; `dropped` counts what was lost.
///
/// # Errors
/// No file descriptor is left.
pub fn channel(dropped: Arc<Counter>) -> io::Result<(Reporter, Reports)> {
    let (events, receiver) = RingBuffer::new(QUEUE);
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    Ok((Reporter { events, wake, dropped }, Reports { events: receiver, wake: woken }))
}

impl Reporter {
    /// Reports; never waits.
    pub fn report(&mut self, slot: usize, what: What) {
        #[expect(clippy::disallowed_methods, reason = "people read wall time in logs and states")]
        let time = SystemTime::now();
        if self.events.push(Event { time, slot, what }).is_err() {
            self.dropped.count();
        }
        // A full socket has enough bytes to wake the reader; a closed one has no reader.
        let _ = self.wake.write(&[0]);
    }

    /// Reports trouble, each kind of each virtual router at most once a minute.
    pub fn trouble(&mut self, slot: usize, told: &mut Told, trouble: Trouble, now: Instant) {
        let told = &mut told.0[trouble.kind()];
        if told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN) {
            *told = Some(now);
            self.report(slot, What::Trouble(trouble));
        }
    }
}

impl Trouble {
    const KINDS: usize = 8 + DecodeError::KINDS;

    fn kind(self) -> usize {
        match self {
            Self::AdvertNotSent(_) => 0,
            Self::GarpNotSent(_) => 1,
            Self::Socket(_) => 2,
            Self::AddressNotAdded(_) => 3,
            Self::AddressNotRemoved(_) => 4,
            Self::Conflict { .. } => 5,
            Self::Interval { .. } => 6,
            Self::LbForbidden => 7,
            Self::Discarded { error, .. } => 8 + error.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

    use super::*;

    #[test]
    fn a_reader_that_sleeps_costs_events_and_nothing_else() {
        let dropped = Arc::new(Counter::default());
        let (mut reporter, mut reports) = channel(dropped.clone()).unwrap();
        for _ in 0..QUEUE + 7 {
            reporter.report(0, What::AddressRestored);
        }
        assert_eq!(dropped.get(), 7);
        assert_eq!(std::iter::from_fn(|| reports.events.pop().ok()).count(), QUEUE);
        drop(reports);
        reporter.report(0, What::AddressRestored);
    }

    #[test]
    fn lasting_trouble_is_told_once_a_minute_and_kind_and_router() {
        let (mut reporter, mut reports) = channel(Arc::default()).unwrap();
        let mut told = [Told::default(), Told::default()];
        let start = Instant::now();
        for second in 0..=60 {
            let now = start + Duration::from_secs(second);
            for (slot, told) in told.iter_mut().enumerate() {
                reporter.trouble(slot, told, Trouble::AdvertNotSent(1), now);
                reporter.trouble(slot, told, Trouble::Discarded { source: None, error: DecodeError::Checksum }, now);
                reporter.trouble(slot, told, Trouble::Discarded { source: None, error: DecodeError::Length }, now);
            }
        }
        assert_eq!(std::iter::from_fn(|| reports.events.pop().ok()).count(), 12);
    }
}
