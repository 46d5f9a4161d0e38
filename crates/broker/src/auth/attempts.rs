//! How often an address may try out passwords, for each try costs the broker some ten milliseconds on purpose.
//!
//! An address has so many tries that wait or are under way, and so many wrong ones in a row and in a second; beyond, it is
//! refused before anything is hashed. Passwords that are known to be right never come here.
//!
//! Pure.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::places::Source;

/// Tries of one address that wait or are under way: a second or two of a processor.
const PENDING: u32 = 64;
/// Wrong passwords of one address at once.
const BURST: u32 = 20;
/// Then, one in this time.
const PAUSE: Duration = Duration::from_millis(200);
/// Addresses that are remembered: some hundreds of kilobytes. Beyond, only the processors bound what is tried.
const ADDRESSES: usize = 8192;

/// Who has tried lately.
#[derive(Debug, Default)]
pub struct Attempts {
    by_source: HashMap<Source, Attempt>,
}

#[derive(Debug, Default)]
struct Attempt {
    pending: u32,
    /// Until then its wrong passwords have been paid for.
    paid: Option<Instant>,
}

/// The address has tried too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften;

impl Attempts {
    /// A try begins to wait for its turn. [`Attempts::leave`] is owed.
    ///
    /// # Errors
    /// Too many wait already, or too many were wrong.
    pub fn enter(&mut self, source: Source, now: Instant) -> Result<(), TooOften> {
        if self.by_source.len() >= ADDRESSES && !self.by_source.contains_key(&source) {
            self.by_source.retain(|_, attempt| attempt.pending > 0 || attempt.is_over(now));
            if self.by_source.len() >= ADDRESSES {
                return Ok(());
            }
        }
        self.may_try(source, now)?;
        let attempt = self.by_source.entry(source).or_default();
        if attempt.pending >= PENDING {
            return Err(TooOften);
        }
        attempt.pending += 1;
        Ok(())
    }

    /// Its turn has come; others of its address may have been wrong meanwhile.
    ///
    /// # Errors
    /// Too many were.
    pub fn may_try(&self, source: Source, now: Instant) -> Result<(), TooOften> {
        let paid = self.by_source.get(&source).and_then(|attempt| attempt.paid);
        let ahead = paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now));
        if ahead > PAUSE * (BURST - 1) { Err(TooOften) } else { Ok(()) }
    }

    /// The password was wrong.
    pub fn was_wrong(&mut self, source: Source, now: Instant) {
        if let Some(attempt) = self.by_source.get_mut(&source) {
            attempt.paid = attempt.paid.map_or(now, |paid| paid.max(now)).checked_add(PAUSE);
        }
    }

    /// The try is over, or its client has left.
    pub fn leave(&mut self, source: Source, now: Instant) {
        let Some(attempt) = self.by_source.get_mut(&source) else { return };
        attempt.pending = attempt.pending.saturating_sub(1);
        if attempt.pending == 0 && !attempt.is_over(now) {
            self.by_source.remove(&source);
        }
    }
}

impl Attempt {
    /// Whether it still has wrong passwords to pay for.
    fn is_over(&self, now: Instant) -> bool {
        self.paid.is_some_and(|paid| paid > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::clock;

    fn host(number: u16) -> Source {
        Source::of(std::net::Ipv4Addr::from(0x0A00_0000 + u32::from(number)).into())
    }

    /// A wrong password, if it may be tried.
    fn wrong(attempts: &mut Attempts, source: Source, now: Instant) -> bool {
        if attempts.enter(source, now).is_err() {
            return false;
        }
        attempts.was_wrong(source, now);
        attempts.leave(source, now);
        true
    }

    #[test]
    fn wrong_passwords_of_one_address_are_few_in_a_second() {
        let (mut attempts, start) = (Attempts::default(), clock());
        assert_eq!((0..100).filter(|_| wrong(&mut attempts, host(1), start)).count(), 20);
        assert!(wrong(&mut attempts, host(2), start), "another address is another matter");
        let tried = (0..10_000)
            .map(|step| start + Duration::from_millis(step))
            .filter(|&now| wrong(&mut attempts, host(1), now))
            .count();
        assert_eq!(tried, 49, "five in a second");
        let rested = start + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| wrong(&mut attempts, host(1), rested)).count(), 20);
    }

    #[test]
    fn right_ones_cost_nothing_and_leave_nothing() {
        let (mut attempts, now) = (Attempts::default(), clock());
        for _ in 0..1000 {
            attempts.enter(host(1), now).unwrap();
            attempts.leave(host(1), now);
        }
        assert!(attempts.by_source.is_empty());
    }

    #[test]
    fn so_many_wait_and_are_asked_again_when_their_turn_comes() {
        let (mut attempts, now) = (Attempts::default(), clock());
        assert_eq!((0..100).filter(|_| attempts.enter(host(1), now).is_ok()).count(), 64);
        for _ in 0..20 {
            assert_eq!(attempts.may_try(host(1), now), Ok(()));
            attempts.was_wrong(host(1), now);
            attempts.leave(host(1), now);
        }
        assert_eq!(attempts.may_try(host(1), now), Err(TooOften));
        (0..44).for_each(|_| attempts.leave(host(1), now));
        assert_eq!(attempts.by_source.len(), 1, "remembered until it has paid");
    }

    #[test]
    fn addresses_without_end_are_not_remembered_without_end() {
        let (mut attempts, now) = (Attempts::default(), clock());
        for number in 0..10_000 {
            assert!(wrong(&mut attempts, host(number), now));
        }
        assert_eq!(attempts.by_source.len(), ADDRESSES);
        assert!(wrong(&mut attempts, host(10_001), now + Duration::from_secs(1)));
        assert_eq!(attempts.by_source.len(), 1, "who has paid is forgotten when there is no room");
    }
}
