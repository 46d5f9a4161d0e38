//! TLS handshakes of a worker with its clients: how many at once, and how much of that work in one turn.
//!
//! A handshake costs as much as a hundred messages. So that those who are connected do not wait for those who are not yet,
//! a turn does a few steps of handshakes only; the others have theirs in the next turns. And a client that stops in the
//! midst of its handshake keeps its place only as long as nobody wants it.
//!
//! Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Steps of handshakes in one turn: some 2 ms at a quarter of a millisecond each.
const STEPS: u32 = 8;
/// A handshake takes three flights and three round trips at most; a client that has not got through by then has to give
/// way to those who wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The places, and who wants one. `T` names a connection.
#[derive(Debug)]
pub(crate) struct Handshakes<T> {
    limit: usize,
    under_way: BTreeMap<Spot, (T, Instant)>,
    waiting: BTreeMap<Spot, T>,
    last: Spot,
    steps: u32,
}

/// What a connection asks for its place with: later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot(u64);

impl<T: Copy> Handshakes<T> {
    /// At most `limit` at once.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, under_way: BTreeMap::new(), waiting: BTreeMap::new(), last: Spot(0), steps: STEPS }
    }

    /// Another limit; those who are above it stay.
    pub(crate) const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A client has begun to speak. [`Handshakes::leave`] is owed.
    pub(crate) fn enter(&mut self, name: T, now: Instant) -> Spot {
        self.last.0 += 1;
        if self.has_room() && self.waiting.is_empty() {
            self.under_way.insert(self.last, (name, now));
        } else {
            self.waiting.insert(self.last, name);
        }
        self.last
    }

    /// Whether it has to wait; [`Handshakes::next`] names it when it has not any more.
    pub(crate) fn waits(&self, spot: Spot) -> bool {
        self.waiting.contains_key(&spot)
    }

    /// Its handshake is over, or it is.
    pub(crate) fn leave(&mut self, spot: Spot) {
        if self.under_way.remove(&spot).is_none() {
            self.waiting.remove(&spot);
        }
    }

    /// Gives a free place to who has waited longest.
    pub(crate) fn next(&mut self, now: Instant) -> Option<T> {
        if !self.has_room() {
            return None;
        }
        let (spot, name) = self.waiting.pop_first()?;
        self.under_way.insert(spot, (name, now));
        Some(name)
    }

    /// Who has to give way: the one that came first, if it has had time enough and others wait.
    pub(crate) fn overdue(&self, now: Instant) -> Option<T> {
        let (_, (name, began)) = self.under_way.first_key_value()?;
        let overdue = !self.waiting.is_empty() && now.saturating_duration_since(*began) >= PATIENCE;
        overdue.then_some(*name)
    }

    /// A turn of the worker begins.
    pub(crate) const fn begin_turn(&mut self) {
        self.steps = STEPS;
    }

    /// Whether another step may be taken in this turn; it counts.
    pub(crate) const fn step(&mut self) -> bool {
        if self.steps == 0 {
            return false;
        }
        self.steps -= 1;
        true
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn places_are_given_in_order() {
        let now = start();
        let mut handshakes = Handshakes::new(2);
        let spots = ["a", "b", "c", "d", "e"].map(|name| handshakes.enter(name, now));
        assert_eq!(spots.map(|spot| handshakes.waits(spot)), [false, false, true, true, true]);
        assert_eq!(handshakes.next(now), None);
        handshakes.leave(spots[3]);
        handshakes.leave(spots[0]);
        assert!(handshakes.waits(handshakes.last), "who comes now comes after those who wait");
        assert_eq!(handshakes.next(now), Some("c"));
        assert!(!handshakes.waits(spots[2]));
        assert_eq!(handshakes.next(now), None);
        for spot in spots {
            handshakes.leave(spot);
        }
        assert_eq!(handshakes.next(now), None, "those who left are not asked");
        assert!(handshakes.under_way.is_empty() && handshakes.waiting.is_empty());
    }

    #[test]
    fn who_stops_in_the_midst_gives_way_to_those_who_wait() {
        let now = start();
        let mut handshakes = Handshakes::new(2);
        let first = handshakes.enter("a", now);
        handshakes.enter("b", now + Duration::from_secs(1));
        assert_eq!(handshakes.overdue(now + PATIENCE), None, "nobody waits");
        handshakes.enter("c", now);
        assert_eq!(handshakes.overdue(now + PATIENCE - Duration::from_millis(1)), None);
        assert_eq!(handshakes.overdue(now + PATIENCE), Some("a"));
        handshakes.leave(first);
        assert_eq!(handshakes.overdue(now + PATIENCE), None);
    }

    #[test]
    fn a_turn_has_so_many_steps() {
        let mut handshakes = Handshakes::<u8>::new(1);
        for _ in 0..2 {
            assert_eq!((0..100).filter(|_| handshakes.step()).count(), STEPS as usize);
            handshakes.begin_turn();
        }
    }

    #[test]
    fn a_lower_limit_throws_nobody_out() {
        let now = start();
        let mut handshakes = Handshakes::new(2);
        let [first, second] = ["a", "b"].map(|name| handshakes.enter(name, now));
        handshakes.set_limit(1);
        handshakes.leave(first);
        assert!(handshakes.waits(handshakes.last) || handshakes.next(now).is_none());
        let third = handshakes.enter("c", now);
        assert!(handshakes.waits(third));
        handshakes.leave(second);
        assert_eq!(handshakes.next(now), Some("c"));
    }
}
