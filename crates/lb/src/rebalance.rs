//! How many connections to close where, and when, so that they come back to brokers with too few.
//!
//! ```text
//!             as they are for `delay`,                    none above its share,
//!             one above share + `threshold`               or as many closed as may be
//!   Resting ─────────────────────────────────▶ Moving ─────────────────────────────▶ Resting
//!      ▲                                          │
//!      └──────────────────────────────────────────┘
//!        a backend came, went, or has another weight
//! ```
//!
//! MQTT connections last: after a broker's restart its clients stay where they fled to, and without this they would for ever.
//! Of each group, the backends that take clients should have connections in proportion to their weights. Moving begins only
//! well above that share and ends at the share (hysteresis), so a cluster that is nearly even is left alone. Clients are
//! closed one by one at `rate`, always at the backend that is furthest above its share, never below the share. Where that does
//! not help, because clients come back to where they were, it ends after twice as many as were too many, and begins again
//! after `delay` at the earliest.
//!
//! An operator who asks for it waits neither for the delay nor for the threshold.
//!
//! A backend that drains has a share of nothing, and its own rate; it waits for no delay. It keeps its clients for as long
//! as nobody else would take them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Connections that a drain moves in a second where neither the operator nor the file says how many.
pub const DRAIN_RATE: u32 = 10;
/// The shortest time between two looks: higher rates close several at once.
pub const TICK: Duration = Duration::from_millis(20);
/// A backend with fewer above its share is left alone, whatever the percentage: one or two are no burden.
const NEGLIGIBLE: usize = 2;
/// Beyond twice what was too many at the beginning, so many more may be closed before it is given up.
const SLACK: usize = 8;

/// Of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections closed in a second to even out; none: not at all.
    pub rate: Option<u32>,
    /// Percent above its share that a backend must have before that begins.
    pub threshold: u8,
    /// The backends must have been as they are for this long.
    pub delay: Duration,
}

/// What a backend does for new clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes them, by weight.
    Takes,
    /// It takes them where none takes them that is no backup.
    Backup,
    /// It takes none, and those that it has are to leave, so many in a second.
    Drains(u32),
    /// It takes none: down, or not in use.
    Away,
}

/// A backend at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Whose it is; the same for the life of the backend.
    pub key: u64,
    /// Those of one group take each other's clients.
    pub group: usize,
    /// Its share beside the others'; 0: none.
    pub weight: u16,
    /// What it does for new clients.
    pub role: Role,
    /// Connections, without those that are being closed already.
    pub connections: usize,
}

/// Why connections are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Their backend drains.
    Drain,
    /// Their backend has more than its share.
    Rebalance,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Close so many connections of that backend now.
    Close {
        /// The backend.
        key: u64,
        /// How many.
        count: usize,
        /// Why.
        cause: Cause,
    },
    /// Evening out begins or ends in a group; for the log.
    Moving {
        /// The group.
        group: usize,
        /// How many are too many where they are; 0: it has ended.
        excess: usize,
    },
}

/// The machine, for all groups.
#[derive(Debug)]
pub struct Rebalance {
    settings: Settings,
    seats: Vec<Seat>,
    groups: BTreeMap<usize, Group>,
    drains: BTreeMap<u64, Pace>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Group {
    /// Since when its backends are as they are, or since the last attempt.
    calm_since: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Resting,
    Moving {
        pace: Pace,
        budget: usize,
        /// The most connections that they had together since it began: some are on their way back all the time.
        total: usize,
        /// So many in a second, where an operator has asked for it.
        by_hand: Option<u32>,
    },
}

/// So many in a second, evenly.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// When the next one is.
    due: Instant,
    /// Not before this.
    look: Instant,
}

impl Rebalance {
    /// Knows of no backends yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, seats: Vec::new(), groups: BTreeMap::new(), drains: BTreeMap::new(), actions: VecDeque::new() }
    }

    /// The file was read again.
    pub fn handle_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The backends as they are now; whoever is missing has gone.
    pub fn handle_backends(&mut self, seats: &[Seat], now: Instant) {
        let known: Vec<usize> = seats.iter().map(|seat| seat.group).collect();
        self.groups.retain(|group, _| known.contains(group));
        for group in known {
            let same = shape(&self.seats, group).eq(shape(seats, group));
            let entry = self.groups.entry(group).or_insert(Group { calm_since: now, phase: Phase::Resting });
            if !same {
                entry.calm_since = now;
                if let Phase::Moving { .. } = entry.phase {
                    entry.phase = Phase::Resting;
                    self.actions.push_back(Action::Moving { group, excess: 0 });
                }
            }
        }
        self.seats.clear();
        self.seats.extend_from_slice(seats);
        let groups: Vec<usize> = self.groups.keys().copied().collect();
        for group in groups {
            let (now, _) = self.sums(group);
            if let Some(Group { phase: Phase::Moving { total, .. }, .. }) = self.groups.get_mut(&group) {
                *total = now.max(*total);
            }
        }
        self.drains.retain(|key, _| seats.iter().any(|seat| seat.key == *key && matches!(seat.role, Role::Drains(_))));
        self.handle_timeout(now);
    }

    /// An operator wants all groups evened out now, whatever the delay and the threshold, so many connections in a second.
    /// Gives how many are too many where they are, by group.
    pub fn handle_request(&mut self, rate: u32, now: Instant) -> Vec<(usize, usize)> {
        let groups: Vec<usize> = self.groups.keys().copied().collect();
        let mut excesses = Vec::new();
        for group in groups {
            let is_moving = self.groups.get(&group).is_some_and(|state| matches!(state.phase, Phase::Moving { .. }));
            let mut excess = self.excess(group).map(|(_, excess)| excess).sum();
            if excess > 0 && !is_moving {
                excess = self.begin(group, Some(rate), now);
            }
            excesses.push((group, excess));
        }
        self.handle_timeout(now);
        excesses
    }

    /// Closes what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.drain(now);
        let groups: Vec<usize> = self.groups.keys().copied().collect();
        for group in groups {
            self.even_out(group, now);
        }
    }

    /// When something will be due, if nothing changes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let moves = self.groups.iter().filter_map(|(group, state)| match &state.phase {
            Phase::Moving { pace, .. } => Some(pace.next()),
            Phase::Resting if self.settings.rate.is_some() && self.is_lopsided(*group) => {
                Some(state.calm_since + self.settings.delay)
            }
            Phase::Resting => None,
        });
        let drains = self.seats.iter().filter(|seat| seat.connections > 0 && self.has_refuge(seat.group));
        moves.chain(drains.filter_map(|seat| self.drains.get(&seat.key)).map(Pace::next)).min()
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether the clients of a backend of that group that drains would find another one.
    #[must_use]
    pub fn has_refuge(&self, group: usize) -> bool {
        self.takers(group).next().is_some()
    }

    fn drain(&mut self, now: Instant) {
        for index in 0..self.seats.len() {
            let Seat { key, group, role, connections, .. } = self.seats[index];
            let Role::Drains(rate) = role else { continue };
            let refuge = self.has_refuge(group);
            let pace = self.drains.entry(key).or_insert(Pace::new(now));
            if connections == 0 || !refuge {
                continue;
            }
            let count = pace.take(rate.max(1), connections, now);
            if count > 0 {
                self.seats[index].connections -= count;
                self.actions.push_back(Action::Close { key, count, cause: Cause::Drain });
            }
        }
    }

    fn even_out(&mut self, group: usize, now: Instant) {
        let Some(state) = self.groups.get(&group) else { return };
        let by_hand = match state.phase {
            Phase::Moving { by_hand, .. } => by_hand,
            Phase::Resting => None,
        };
        let Some(rate) = by_hand.or(self.settings.rate) else { return self.rest(group, now) };
        if matches!(state.phase, Phase::Resting) {
            if now < state.calm_since + self.settings.delay || !self.is_lopsided(group) {
                return;
            }
            self.begin(group, None, now);
        }
        let excess: usize = self.excess(group).map(|(_, excess)| excess).sum();
        let Some(Group { phase: Phase::Moving { pace, budget, .. }, .. }) = self.groups.get_mut(&group) else { return };
        if excess == 0 || *budget == 0 {
            return self.rest(group, now);
        }
        let count = pace.take(rate, excess.min(*budget), now);
        *budget -= count;
        self.close_worst_first(group, count);
    }

    /// How many were too many.
    fn begin(&mut self, group: usize, by_hand: Option<u32>, now: Instant) -> usize {
        let excess = self.excess(group).map(|(_, excess)| excess).sum();
        self.actions.push_back(Action::Moving { group, excess });
        let (total, _) = self.sums(group);
        let phase = Phase::Moving { pace: Pace::new(now), budget: excess * 2 + SLACK, total, by_hand };
        self.groups.insert(group, Group { calm_since: now, phase });
        excess
    }

    /// Takes `count` away from the backends of a group, each time from the one that is then furthest above its share.
    fn close_worst_first(&mut self, group: usize, count: usize) {
        let mut closed: BTreeMap<u64, usize> = BTreeMap::new();
        for _ in 0..count {
            // By what it has for its weight, so that one of weight 1 with two too many is worse than one of weight 100.
            let worse = |one: &(usize, usize), other: &(usize, usize)| {
                let (one, other) = (&self.seats[one.0], &self.seats[other.0]);
                (one.connections * usize::from(other.weight)).cmp(&(other.connections * usize::from(one.weight)))
            };
            let Some((index, _)) = self.excess(group).max_by(worse) else { break };
            self.seats[index].connections -= 1;
            *closed.entry(self.seats[index].key).or_default() += 1;
        }
        let close = |(key, count)| Action::Close { key, count, cause: Cause::Rebalance };
        self.actions.extend(closed.into_iter().map(close));
    }

    /// Ends moving; the next attempt is `delay` away.
    fn rest(&mut self, group: usize, now: Instant) {
        if let Some(state) = self.groups.get_mut(&group)
            && matches!(state.phase, Phase::Moving { .. })
        {
            *state = Group { calm_since: now, phase: Phase::Resting };
            self.actions.push_back(Action::Moving { group, excess: 0 });
        }
    }

    /// Who gets new clients of that group, by index.
    fn takers(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let of = move |role: Role| {
            let fits = move |seat: &Seat| seat.group == group && seat.weight > 0 && seat.role == role;
            self.seats.iter().enumerate().filter(move |(_, seat)| fits(seat)).map(|(index, _)| index)
        };
        let backups = of(Role::Takes).next().is_none();
        of(if backups { Role::Backup } else { Role::Takes })
    }

    /// What they all have, and all their weights.
    fn sums(&self, group: usize) -> (usize, usize) {
        self.takers(group).fold((0, 0), |(connections, weight), index| {
            (connections + self.seats[index].connections, weight + usize::from(self.seats[index].weight))
        })
    }

    /// Who of them has more than its share, rounded up, and how many more.
    fn excess(&self, group: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (now, weights) = self.sums(group);
        let total = match self.groups.get(&group).map(|state| &state.phase) {
            Some(Phase::Moving { total, .. }) => now.max(*total),
            Some(Phase::Resting) | None => now,
        };
        self.takers(group).filter_map(move |index| {
            let share = (total * usize::from(self.seats[index].weight)).div_ceil(weights.max(1));
            self.seats[index].connections.checked_sub(share).filter(|excess| *excess > 0).map(|excess| (index, excess))
        })
    }

    /// Whether one has so many too many that moving should begin.
    fn is_lopsided(&self, group: usize) -> bool {
        let threshold = usize::from(self.settings.threshold);
        self.excess(group).any(|(index, excess)| {
            let share = self.seats[index].connections - excess;
            excess >= NEGLIGIBLE && excess * 100 > share * threshold
        })
    }
}

/// What must stay the same for a group to be calm: everything but how many connections there are.
fn shape(seats: &[Seat], group: usize) -> impl Iterator<Item = (u64, u16, Role)> + '_ {
    seats.iter().filter(move |seat| seat.group == group).map(|seat| (seat.key, seat.weight, seat.role))
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { due: now, look: now }
    }

    /// When to look again.
    fn next(&self) -> Instant {
        self.due.max(self.look)
    }

    /// How many are due, at most `wanted`. What was missed for more than a tenth of a second is not made up for.
    fn take(&mut self, rate: u32, wanted: usize, now: Instant) -> usize {
        if now < self.next() {
            return 0;
        }
        let each = Duration::from_secs(1) / rate.max(1);
        let late = now.saturating_duration_since(self.due);
        let due = usize::try_from(late.as_nanos() / each.as_nanos().max(1)).unwrap_or(usize::MAX).saturating_add(1);
        let most = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
        let count = due.min(most).min(wanted);
        let paid = each * u32::try_from(count).unwrap_or(u32::MAX);
        self.due = if due > most { now + each } else { self.due + paid };
        self.look = now + TICK;
        count
    }
}

#[cfg(test)]
mod tests;
