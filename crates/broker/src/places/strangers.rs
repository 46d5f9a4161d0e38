//! Those of one worker who have not got in: how many at once, and who has to make room.
//!
//! A stranger has a place from the moment it is accepted until its CONNECT has been answered. Where all are taken, nobody more
//! is accepted: whoever comes waits in the kernel's backlog, and costs no memory here. Then those who say nothing have to go,
//! the oldest of the address that has most of them first; who waits for this broker's own work does not count as silent.
//!
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evermq_daemon::eviction::{Silent, victims};

/// A stranger's place. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot(u64);

/// The places.
#[derive(Debug)]
pub struct Strangers {
    limit: usize,
    timeout: Duration,
    present: BTreeMap<Spot, Stranger>,
    last: u64,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    came: Instant,
    /// It has done its part, the broker has not.
    waits_for_us: bool,
    /// It is going.
    told: bool,
}

impl Spot {
    /// Unique in its worker.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl Strangers {
    /// At most `limit` at once, who have `timeout` to get in.
    #[must_use]
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self { limit: limit.max(1), timeout, present: BTreeMap::new(), last: 0 }
    }

    /// Other bounds: those who are here beyond them stay, and nobody enters until there is room.
    pub fn set_bounds(&mut self, limit: usize, timeout: Duration) {
        self.limit = limit.max(1);
        self.timeout = timeout;
    }

    /// A place for who has come from `source`, if there is one. [`Strangers::leave`] is owed.
    pub fn enter(&mut self, source: IpAddr, now: Instant) -> Option<Spot> {
        if self.present.len() >= self.limit {
            return None;
        }
        self.last += 1;
        let spot = Spot(self.last);
        self.present.insert(spot, Stranger { source, came: now, waits_for_us: false, told: false });
        Some(spot)
    }

    /// It is in, or gone.
    pub fn leave(&mut self, spot: Spot) {
        self.present.remove(&spot);
    }

    /// A load balancer has said where it comes from.
    pub fn set_source(&mut self, spot: Spot, source: IpAddr) {
        if let Some(stranger) = self.present.get_mut(&spot) {
            stranger.source = source;
        }
    }

    /// Whether it is the broker that has to do something for it now.
    pub fn set_waits_for_us(&mut self, spot: Spot, waits_for_us: bool) {
        if let Some(stranger) = self.present.get_mut(&spot) {
            stranger.waits_for_us = waits_for_us;
        }
    }

    /// Who has to go, now that somebody waits for a place. Each is named once.
    pub fn victims(&mut self, now: Instant) -> Vec<Spot> {
        let silent: Vec<_> = self
            .present
            .iter()
            .filter(|(_, stranger)| !stranger.waits_for_us && !stranger.told)
            .map(|(&name, stranger)| Silent { name, source: stranger.source, accepted: stranger.came })
            .collect();
        let victims = victims(&silent, self.present.len(), self.timeout, now);
        for victim in &victims {
            if let Some(stranger) = self.present.get_mut(victim) {
                stranger.told = true;
            }
        }
        victims
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::clock;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn a_place_is_taken_until_it_is_left() {
        let (mut strangers, now) = (Strangers::new(2, TIMEOUT), clock());
        let one = strangers.enter(host(1), now).unwrap();
        let two = strangers.enter(host(2), now).unwrap();
        assert_eq!(strangers.enter(host(3), now), None);
        strangers.leave(one);
        strangers.leave(one);
        assert!(strangers.enter(host(3), now).is_some());
        strangers.leave(two);
        assert_eq!(strangers.len(), 1);
        assert_eq!(Strangers::new(0, TIMEOUT).limit, 1, "somebody must be able to come");
    }

    #[test]
    fn a_flood_of_silence_makes_room_after_a_second_and_only_the_flood_does() {
        let (mut strangers, start) = (Strangers::new(10, TIMEOUT), clock());
        let honest = strangers.enter(host(1), start).unwrap();
        let flood: Vec<_> = (0..9).map(|_| strangers.enter(host(6), start).unwrap()).collect();
        assert_eq!(strangers.victims(start + Duration::from_millis(999)), []);
        let victims = strangers.victims(start + Duration::from_secs(1));
        assert_eq!(victims, flood[..5]);
        let more = strangers.victims(start + Duration::from_secs(1));
        assert!(more.iter().all(|spot| flood[5..].contains(spot)), "nobody is told twice, {honest:?} is not told");
    }

    #[test]
    fn who_waits_for_the_broker_is_not_silent() {
        let (mut strangers, start) = (Strangers::new(2, TIMEOUT), clock());
        let one = strangers.enter(host(1), start).unwrap();
        let two = strangers.enter(host(1), start).unwrap();
        strangers.set_waits_for_us(one, true);
        let late = start + TIMEOUT;
        assert_eq!(strangers.victims(late), [two]);
        strangers.set_waits_for_us(one, false);
        assert_eq!(strangers.victims(late), [one]);
    }
}
