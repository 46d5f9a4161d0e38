//! How fast a client may send: the generic cell rate algorithm (ITU-T I.371), for messages and for bytes.
//!
//! Each message puts off the time at which the client has paid for all it has sent. Who is ahead of that by up to a second is
//! let go on, so that what comes in bursts is not slowed down; beyond, it is not read from until it is within again. Nothing is
//! dropped: TCP passes the delay on to the client.
//!
//! Pure.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evermq_config::broker::Admission;

/// How far ahead a client may be.
const BURST: Duration = Duration::from_secs(1);

/// What a client may send in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Messages.
    pub messages: Option<u32>,
    /// Bytes of their packets.
    pub bytes: Option<u64>,
}

/// The same for all connections, which look here as they go on. Zero for no bound.
#[derive(Debug, Default)]
pub struct SharedRates {
    messages: AtomicU32,
    bytes: AtomicU64,
}

/// What one client has sent, as far as it counts. By default it has sent nothing.
#[derive(Debug, Default)]
pub struct Meter {
    messages_paid: Option<Instant>,
    bytes_paid: Option<Instant>,
}

impl Rates {
    /// As the cluster file says; none where it says nothing, so that nothing is counted.
    #[must_use]
    pub fn new(admission: &Admission) -> Option<Self> {
        let rates = Self { messages: admission.publish_rate, bytes: admission.publish_bytes };
        (rates.messages.is_some() || rates.bytes.is_some()).then_some(rates)
    }
}

impl SharedRates {
    /// Other ones, for who is connected too.
    pub fn set(&self, rates: Option<Rates>) {
        let (messages, bytes) = rates.map_or((None, None), |rates| (rates.messages, rates.bytes));
        self.messages.store(messages.unwrap_or(0), Ordering::Relaxed);
        self.bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// Those of now; none where nothing is to be counted.
    #[must_use]
    pub fn get(&self) -> Option<Rates> {
        let (messages, bytes) = (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let rates = Rates { messages: (messages > 0).then_some(messages), bytes: (bytes > 0).then_some(bytes) };
        (messages > 0 || bytes > 0).then_some(rates)
    }
}

impl Meter {
    /// So much has come. Gives when the client may be read from again, if not now.
    pub fn handle_messages(&mut self, rates: Rates, messages: u64, bytes: u64, now: Instant) -> Option<Instant> {
        let messages = charge(&mut self.messages_paid, messages, rates.messages.map(u64::from), now);
        let bytes = charge(&mut self.bytes_paid, bytes, rates.bytes, now);
        messages.max(bytes)
    }
}

fn charge(paid: &mut Option<Instant>, count: u64, rate: Option<u64>, now: Instant) -> Option<Instant> {
    let rate = rate?.max(1);
    // In nanoseconds: exact for any rate that a network has.
    let cost = u128::from(count) * 1_000_000_000 / u128::from(rate);
    let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
    let until = paid.map_or(now, |paid| paid.max(now)).checked_add(cost)?;
    *paid = Some(until);
    until.checked_sub(BURST).filter(|&at| at > now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connection::clock;

    #[test]
    fn a_burst_of_a_second_goes_through_and_the_rest_at_the_rate() {
        let start = clock();
        let (rates, mut meter) = (Rates { messages: Some(10), bytes: None }, Meter::default());
        assert_eq!(meter.handle_messages(rates, 10, 1 << 40, start), None);
        assert_eq!(meter.handle_messages(rates, 1, 0, start), Some(start + Duration::from_millis(100)));
        let later = start + Duration::from_millis(1100);
        assert_eq!(meter.handle_messages(rates, 10, 0, later), None, "all of it is paid for");
        assert_eq!(meter.handle_messages(rates, 10, 0, later), Some(later + Duration::from_secs(1)));
        let rested = later + Duration::from_secs(60);
        assert_eq!(meter.handle_messages(rates, 10, 0, rested), None, "who was silent has a burst again, and no more");
        assert!(meter.handle_messages(rates, 1, 0, rested).is_some());
    }

    #[test]
    fn whichever_is_worse_counts() {
        let start = clock();
        let (rates, mut meter) = (Rates { messages: Some(1000), bytes: Some(1000) }, Meter::default());
        assert_eq!(meter.handle_messages(rates, 1, 3000, start), Some(start + Duration::from_secs(2)));
        assert_eq!(Rates::new(&evermq_config::broker::Broker::default().admission), None);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_through_than_the_rate_and_a_burst(
            rate in 1_u32..10_000,
            batches in proptest::collection::vec((1_u64..500, 0_u64..50), 1..200),
        ) {
            let start = clock();
            let (rates, mut meter) = (Rates { messages: Some(rate), bytes: None }, Meter::default());
            let (mut now, mut sent, mut last) = (start, 0, 0);
            for (count, pause) in batches {
                now += Duration::from_millis(pause);
                let until = meter.handle_messages(rates, count, 0, now);
                sent += count;
                last = last.max(count);
                now = until.unwrap_or(now);
                let allowed = (now - start).as_secs_f64() * f64::from(rate) + f64::from(rate) + last as f64 + 1.0;
                prop_assert!(sent as f64 <= allowed, "{sent} of {allowed}");
            }
        }
    }
}
