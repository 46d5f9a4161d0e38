//! One deadline for each of a worker's connections: a hierarchical timer wheel.
//!
//! Setting, moving and clearing a deadline costs a few stores and no system call. Time is counted in ticks of [`TICK`] since
//! the wheel was made; a slot of level `n` spans 64^n ticks, and what is in it moves down as its time comes near. A deadline
//! is never early, and late by less than a tick.
//!
//! Pure.

use std::time::{Duration, Instant};

/// The wheel's resolution.
pub(crate) const TICK: Duration = Duration::from_millis(4);
/// Slots of a level, as a power of two.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Six levels span 2^36 ticks, which is nearly nine years.
const LEVELS: usize = 6;
const FURTHEST: u64 = (1 << (BITS * LEVELS as u32)) - 1;
/// The list of those that are due and not yet taken.
const DUE: u16 = (LEVELS * SLOTS) as u16;
/// In [`Node::list`]: no deadline.
const UNSET: u16 = u16::MAX;
/// End of a list.
const NIL: u32 = u32::MAX;

/// The deadlines of connections, by their small, densely given keys.
#[derive(Debug)]
pub(crate) struct Timers {
    origin: Instant,
    /// Ticks that have been worked off.
    now: u64,
    nodes: Vec<Node>,
    heads: Box<[u32]>,
    /// Which slots of a level are not empty.
    occupied: [u64; LEVELS],
}

#[derive(Debug, Clone, Copy)]
struct Node {
    at: u64,
    next: u32,
    previous: u32,
    list: u16,
}

impl Node {
    const UNSET: Self = Self { at: 0, next: NIL, previous: NIL, list: UNSET };
}

impl Timers {
    /// No deadlines yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            now: 0,
            nodes: Vec::new(),
            heads: vec![NIL; LEVELS * SLOTS + 1].into_boxed_slice(),
            occupied: [0; LEVELS],
        }
    }

    /// Sets the one deadline of `key`, whatever it was before.
    pub(crate) fn set(&mut self, key: u32, at: Instant) {
        self.clear(key);
        let index = key as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node::UNSET);
        }
        let ticks = at.saturating_duration_since(self.origin).as_nanos().div_ceil(TICK.as_nanos());
        self.nodes[index].at = u64::try_from(ticks).unwrap_or(u64::MAX).clamp(self.now + 1, FURTHEST);
        self.place(key);
    }

    /// `key` has no deadline any more.
    pub(crate) fn clear(&mut self, key: u32) {
        let Some(&Node { next, previous, list, .. }) = self.nodes.get(key as usize) else { return };
        if list == UNSET {
            return;
        }
        if previous == NIL {
            self.heads[usize::from(list)] = next;
            if next == NIL {
                self.mark_empty(list);
            }
        } else {
            self.nodes[previous as usize].next = next;
        }
        if next != NIL {
            self.nodes[next as usize].previous = previous;
        }
        self.nodes[key as usize].list = UNSET;
    }

    /// Lets time pass.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let now = self.ticks_passed(now);
        while let Some((tick, list)) = self.first().filter(|&(tick, _)| tick <= now) {
            self.now = self.now.max(tick);
            self.empty(list);
        }
        self.now = self.now.max(now);
    }

    /// One whose deadline has passed; it has none any more.
    pub(crate) fn poll_due(&mut self) -> Option<u32> {
        let key = self.heads[usize::from(DUE)];
        if key == NIL {
            return None;
        }
        self.clear(key);
        Some(key)
    }

    /// When [`Timers::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.heads[usize::from(DUE)] != NIL {
            return Some(self.origin);
        }
        let (tick, _) = self.first()?;
        Some(self.origin + TICK * u32::try_from(tick).unwrap_or(u32::MAX))
    }

    /// The tick that `now` is in.
    pub(crate) fn ticks_passed(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.origin).as_nanos() / TICK.as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    /// Enters `key` where its deadline belongs, seen from the present tick.
    fn place(&mut self, key: u32) {
        let at = self.nodes[key as usize].at;
        let list = if at <= self.now {
            DUE
        } else {
            // The highest group of bits in which the two differ.
            let level = (63 - (at ^ self.now).leading_zeros()) / BITS;
            let slot = (at >> (level * BITS)) as usize % SLOTS;
            self.occupied[level as usize] |= 1 << slot;
            u16::try_from(level as usize * SLOTS + slot).expect("six levels of 64")
        };
        let head = self.heads[usize::from(list)];
        if head != NIL {
            self.nodes[head as usize].previous = key;
        }
        self.heads[usize::from(list)] = key;
        let node = &mut self.nodes[key as usize];
        (node.next, node.previous, node.list) = (head, NIL, list);
    }

    /// Moves all of a slot down, or to those that are due.
    fn empty(&mut self, list: u16) {
        let mut key = std::mem::replace(&mut self.heads[usize::from(list)], NIL);
        self.mark_empty(list);
        while key != NIL {
            let next = self.nodes[key as usize].next;
            self.place(key);
            key = next;
        }
    }

    fn mark_empty(&mut self, list: u16) {
        let (level, slot) = (usize::from(list) / SLOTS, usize::from(list) % SLOTS);
        if let Some(occupied) = self.occupied.get_mut(level) {
            *occupied &= !(1 << slot);
        }
    }

    /// The first slot that is not empty, and the tick at which it is to be emptied. All of a level comes before anything of
    /// the next one, and within a level nothing lies before the present tick's slot.
    fn first(&self) -> Option<(u64, u16)> {
        let level = self.occupied.iter().position(|&occupied| occupied != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = u32::try_from(level).expect("six levels") * BITS;
        let above = self.now >> (shift + BITS) << (shift + BITS);
        let tick = above + (u64::from(slot) << shift);
        Some((tick, u16::try_from(level * SLOTS).expect("six levels of 64") + u16::try_from(slot).expect("64 slots")))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn due(timers: &mut Timers) -> Vec<u32> {
        let mut due: Vec<_> = std::iter::from_fn(|| timers.poll_due()).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_deadline_is_never_early_and_late_by_less_than_a_tick() {
        let start = Instant::now();
        for after in [1_u64, 3, 4, 5, 255, 256, 257, 10_000, 1_000_000, 100_000_000, 10_000_000_000] {
            let mut timers = Timers::new(start);
            let at = start + Duration::from_millis(after);
            timers.set(7, at);
            let mut wakes = 0;
            loop {
                let wake = timers.poll_timeout().unwrap();
                timers.handle_timeout(wake);
                wakes += 1;
                if timers.poll_due() == Some(7) {
                    assert!(wake >= at && wake < at + TICK, "{after}: {:?}", wake - start);
                    break;
                }
                assert!(wake < at && wakes < 10);
            }
            assert_eq!(timers.poll_timeout(), None);
        }
    }

    #[test]
    fn what_was_cleared_or_moved_does_not_come_due() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        for key in 0..4 {
            timers.set(key, start + TICK * 2);
        }
        timers.clear(1);
        timers.clear(1);
        timers.set(2, start + TICK * 1000);
        timers.handle_timeout(start + TICK * 2);
        timers.clear(3);
        assert_eq!(due(&mut timers), [0]);
        timers.handle_timeout(start + TICK * 999);
        assert!(due(&mut timers).is_empty());
        timers.handle_timeout(start + TICK * 1000);
        assert_eq!(due(&mut timers), [2]);
        assert_eq!(timers.poll_timeout(), None);
    }

    proptest! {
        #[test]
        fn does_as_a_sorted_list_does(steps in proptest::collection::vec((0_u32..20, 0_u64..40_000_000, 0_u64..3), 1..200)) {
            let start = Instant::now();
            let mut timers = Timers::new(start);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (key, span, what) in steps {
                match what {
                    0 => {
                        timers.set(key, start + TICK * u32::try_from(now + span).unwrap());
                        model.insert(key, (now + span).max(now + 1));
                    }
                    1 => {
                        timers.clear(key);
                        model.remove(&key);
                    }
                    _ => {
                        // Short and long steps alike.
                        now += if span % 3 == 0 { span % 100 } else { span };
                        timers.handle_timeout(start + TICK * u32::try_from(now).unwrap());
                        let expected: Vec<u32> = model.iter().filter(|&(_, &at)| at <= now).map(|(&key, _)| key).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(due(&mut timers), expected);
                    }
                }
                let next = timers.poll_timeout().map(|at| timers.ticks_passed(at));
                prop_assert_eq!(next.is_none(), model.is_empty());
                if let (Some(next), Some(&first)) = (next, model.values().min()) {
                    prop_assert!(now < next && next <= first, "{} {} {}", now, next, first);
                }
            }
        }
    }
}
