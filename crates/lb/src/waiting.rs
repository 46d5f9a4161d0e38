//! Clients that have said what they want and wait for a backend: one room for each worker.
//!
//! ```text
//! lane (what they wait for) ─┬─ address A: 1st, 2nd, 3rd ...     addresses take turns,
//!                            ├─ address B: 1st                   each address's clients come in their order
//!                            └─ address C: 1st, 2nd
//! ```
//!
//! So an address with ten thousand waiting clients holds up no other. The room is bounded; when it is full, a newcomer of an
//! address with few takes the place of the last of the one with the most, and others are refused. Nobody waits for longer
//! than the timeout. All of it is cheap however many wait: who leaves in between leaves his ticket in the lines, where it is
//! passed over, and lines with more such tickets than others are cleaned.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::pool::Lane;
use crate::sources::Source;

/// Who waits; `T` is what the worker knows them by.
#[derive(Debug)]
pub struct WaitingRoom<T> {
    size: usize,
    timeout: Duration,
    waiters: Slab<Waiter<T>>,
    /// All of them, by the time they came.
    by_age: Line,
    queues: Slab<Queue>,
    by_source: HashMap<(Lane, Source), Ticket>,
    /// Queues by length, to find the longest.
    by_length: BTreeSet<(usize, u32)>,
    lanes: Vec<LaneTurns>,
    /// The lane that begins next time.
    first_lane: usize,
    serial: u32,
}

/// A place in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    key: u32,
    /// Tells it from earlier ones with the same key.
    serial: u32,
}

/// What happened to a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub enum Push<T> {
    /// It waits.
    Waits(Ticket),
    /// It waits; for want of room this one, of an address with more of them, has to go.
    WaitsInsteadOf(Ticket, T),
    /// There is no room.
    Refused(T),
}

/// What became of one whose turn it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not there any more.
    Gone,
    /// It has what it waited for, or need not wait any longer.
    Placed,
    /// There is still nothing to be had for it.
    StillFull,
}

#[derive(Debug)]
struct Waiter<T> {
    item: T,
    serial: u32,
    since: Instant,
    queue: u32,
}

/// The clients of one address in one lane.
#[derive(Debug)]
struct Queue {
    serial: u32,
    lane: Lane,
    source: Source,
    line: Line,
}

/// The addresses of one lane, in turn.
#[derive(Debug)]
struct LaneTurns {
    lane: Lane,
    queues: Line,
}

/// Tickets in order, of which some may have become void.
#[derive(Debug, Default)]
struct Line {
    tickets: VecDeque<Ticket>,
    valid: usize,
}

impl<T> WaitingRoom<T> {
    /// A room for `size`, each of whom waits for `timeout` at most.
    #[must_use]
    pub fn new(size: usize, timeout: Duration) -> Self {
        Self {
            size,
            timeout,
            waiters: Slab::new(),
            by_age: Line::default(),
            queues: Slab::new(),
            by_source: HashMap::new(),
            by_length: BTreeSet::new(),
            lanes: Vec::new(),
            first_lane: 0,
            serial: 0,
        }
    }

    /// Other bounds from now on; those who wait already stay, though not for longer than the new timeout.
    pub fn set_bounds(&mut self, size: usize, timeout: Duration) {
        self.size = size;
        self.timeout = timeout;
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether anybody waits in `lane`: a newcomer has to wait behind them.
    #[must_use]
    pub fn has_waiters(&self, lane: Lane) -> bool {
        self.lanes.iter().any(|turns| turns.lane == lane)
    }

    /// The lanes in which somebody waits.
    pub fn lanes(&self) -> impl Iterator<Item = Lane> + '_ {
        self.lanes.iter().map(|turns| turns.lane)
    }

    /// Somebody from `source` has to wait.
    pub fn push(&mut self, source: IpAddr, lane: Lane, item: T, now: Instant) -> Push<T> {
        let source = Source::of(source);
        let mut displaced = None;
        if self.waiters.len() >= self.size {
            let mine = self.by_source.get(&(lane, source)).map_or(0, |queue| self.queue(*queue).line.valid);
            match self.by_length.last() {
                Some(&(longest, key)) if longest > mine + 1 => displaced = self.remove_last_of(key),
                _ => return Push::Refused(item),
            }
        }
        let queue = self.queue_for(lane, source);
        let ticket = self.enter(item, queue, now);
        match displaced {
            None => Push::Waits(ticket),
            Some(other) => Push::WaitsInsteadOf(ticket, other),
        }
    }

    /// Takes somebody out, if he is still there.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        if !is_valid(&self.waiters, ticket) {
            return None;
        }
        let waiter = self.waiters.remove(ticket.key as usize);
        self.by_age.one_is_void(|ticket| is_valid(&self.waiters, ticket));
        let queue = &mut self.queues[waiter.queue as usize];
        let length = queue.line.valid;
        queue.line.one_is_void(|ticket| is_valid(&self.waiters, ticket));
        self.by_length.remove(&(length, waiter.queue));
        if length > 1 {
            self.by_length.insert((length - 1, waiter.queue));
        } else {
            self.remove_queue(waiter.queue);
        }
        Some(waiter.item)
    }

    /// Asks for one after the other, addresses in turn, until `budget` are placed, nobody is left, or each lane is full;
    /// returns how many were placed.
    pub fn serve(&mut self, budget: usize, mut try_one: impl FnMut(&T) -> Verdict) -> usize {
        let mut lanes: Vec<Lane> = self.lanes().collect();
        if lanes.is_empty() {
            return 0;
        }
        let first = self.first_lane % lanes.len();
        lanes.rotate_left(first);
        self.first_lane = self.first_lane.wrapping_add(1);
        let mut placed = 0;
        for lane in lanes {
            while placed < budget {
                let Some(ticket) = self.next_in(lane) else { break };
                match try_one(&self.waiters[ticket.key as usize].item) {
                    Verdict::Gone => {
                        self.remove(ticket);
                    }
                    Verdict::Placed => {
                        placed += 1;
                        self.end_turn(lane);
                        self.remove(ticket);
                    }
                    Verdict::StillFull => break,
                }
            }
        }
        placed
    }

    /// Takes out whoever has waited for too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(ticket) = self.by_age.first() {
            if self.waiters[ticket.key as usize].since + self.timeout > now {
                break;
            }
            expired.extend(self.remove(ticket));
        }
        expired
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.by_age.first().map(|ticket| self.waiters[ticket.key as usize].since + self.timeout)
    }

    /// Takes everybody out, in the order in which they came.
    pub fn drain(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.waiters.len());
        while let Some(ticket) = self.by_age.first() {
            all.extend(self.remove(ticket));
        }
        all
    }

    fn enter(&mut self, item: T, queue: u32, now: Instant) -> Ticket {
        let serial = self.next_serial();
        let ticket = ticket(self.waiters.insert(Waiter { item, serial, since: now, queue }), serial);
        self.by_age.push(ticket);
        let line = &mut self.queues[queue as usize].line;
        self.by_length.remove(&(line.valid, queue));
        line.push(ticket);
        self.by_length.insert((line.valid, queue));
        ticket
    }

    fn queue(&self, ticket: Ticket) -> &Queue {
        &self.queues[ticket.key as usize]
    }

    fn queue_for(&mut self, lane: Lane, source: Source) -> u32 {
        if let Some(queue) = self.by_source.get(&(lane, source)) {
            return queue.key;
        }
        let serial = self.next_serial();
        let queue = ticket(self.queues.insert(Queue { serial, lane, source, line: Line::default() }), serial);
        self.by_source.insert((lane, source), queue);
        match self.lanes.iter_mut().find(|turns| turns.lane == lane) {
            Some(turns) => turns.queues.push(queue),
            None => {
                let mut queues = Line::default();
                queues.push(queue);
                self.lanes.push(LaneTurns { lane, queues });
            }
        }
        queue.key
    }

    fn remove_queue(&mut self, key: u32) {
        let queue = self.queues.remove(key as usize);
        self.by_source.remove(&(queue.lane, queue.source));
        let Some(index) = self.lanes.iter().position(|turns| turns.lane == queue.lane) else { return };
        self.lanes[index].queues.one_is_void(|ticket| is_valid_queue(&self.queues, ticket));
        if self.lanes[index].queues.valid == 0 {
            self.lanes.remove(index);
        }
    }

    fn remove_last_of(&mut self, queue: u32) -> Option<T> {
        let tickets = self.queues[queue as usize].line.tickets.iter().rev();
        let last = tickets.copied().find(|&ticket| is_valid(&self.waiters, ticket))?;
        self.remove(last)
    }

    /// Whose turn it is.
    fn next_in(&self, lane: Lane) -> Option<Ticket> {
        let turns = self.lanes.iter().find(|turns| turns.lane == lane)?;
        self.queue(turns.queues.first()?).line.first()
    }

    /// The address whose turn it was comes last.
    fn end_turn(&mut self, lane: Lane) {
        if let Some(turns) = self.lanes.iter_mut().find(|turns| turns.lane == lane) {
            turns.queues.first_to_last(|ticket| is_valid_queue(&self.queues, ticket));
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

impl Line {
    fn push(&mut self, ticket: Ticket) {
        self.tickets.push_back(ticket);
        self.valid += 1;
    }

    /// The first one, which is never void.
    fn first(&self) -> Option<Ticket> {
        self.tickets.front().copied()
    }

    fn first_to_last(&mut self, is_valid: impl Fn(Ticket) -> bool) {
        if let Some(first) = self.tickets.pop_front() {
            self.tickets.push_back(first);
            self.trim(is_valid);
        }
    }

    /// One of the tickets has become void.
    fn one_is_void(&mut self, is_valid: impl Fn(Ticket) -> bool) {
        self.valid -= 1;
        if self.tickets.len() > 2 * self.valid + 8 {
            self.tickets.retain(|&ticket| is_valid(ticket));
            self.tickets.shrink_to(4 * self.valid);
        }
        self.trim(is_valid);
    }

    fn trim(&mut self, is_valid: impl Fn(Ticket) -> bool) {
        while self.tickets.front().is_some_and(|&ticket| !is_valid(ticket)) {
            self.tickets.pop_front();
        }
    }
}

fn ticket(key: usize, serial: u32) -> Ticket {
    Ticket { key: u32::try_from(key).expect("fewer than 2^32 connections"), serial }
}

fn is_valid<T>(waiters: &Slab<Waiter<T>>, ticket: Ticket) -> bool {
    waiters.get(ticket.key as usize).is_some_and(|waiter| waiter.serial == ticket.serial)
}

fn is_valid_queue(queues: &Slab<Queue>, ticket: Ticket) -> bool {
    queues.get(ticket.key as usize).is_some_and(|queue| queue.serial == ticket.serial)
}

#[cfg(test)]
mod tests;
