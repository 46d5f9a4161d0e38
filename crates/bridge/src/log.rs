//! The origin log: every message that this broker's own clients published, in one order, until all peers have it.
//!
//! ```text
//!   1 ... | first ......... last |      reader A: acknowledged ──┐     reader B: acknowledged ──┐
//!   gone  |     in the log       |   first ............................................................ last
//! ```
//!
//! Entry `seq` of `epoch` of this origin is one message for ever. A peer's *reader* says up to where that peer acknowledged.
//! An entry leaves when every reader has it, or, oldest first, when the log's bounds are reached: the bounds hold whatever a
//! peer does. Who still needed it has a gap, see [`Read::Gone`].
//!
//! The log outlives the process but for what nobody was promised: messages of QoS 0. Their numbers, and those that were set
//! aside and not used, are *holes* after a restart; nobody misses them.
//!
//! [`OriginLog`] is pure; [`crate::spool`] puts it behind a lock and keeps the store up with it.

mod entry;
mod exchange;
mod readers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::entry::Entry;
pub use self::entry::is_kept;
pub(crate) use self::exchange::{Appended, Bounds, Item, Read, Saved};
use crate::cursor::Room;

/// What a message in the log costs besides its own bytes, roughly: the structs and their places in queues.
const ENTRY_OVERHEAD: usize = 256;
/// Most messages that one read gives: enough for a large write, little enough to hold the lock briefly.
const READ_MESSAGES: usize = 1024;

/// The log.
#[derive(Debug)]
pub(crate) struct OriginLog {
    bounds: Bounds,
    /// Sequence number of the front of `slots`.
    first: u64,
    last: u64,
    slots: VecDeque<Slot>,
    /// All entries that ever were in the log.
    appended: Sum,
    /// Those that have left it.
    left: Sum,
    /// The newest of those that is more than QoS 0.
    kept_left: u64,
    readers: Vec<Reader>,
    waiting: bool,
    high: bool,
}

/// One entry, or the hole between the slot before and the next one.
#[derive(Debug)]
struct Slot {
    last: u64,
    entry: Option<Arc<Entry>>,
    /// All entries up to and including this one.
    end: Sum,
}

/// Entries and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    messages: u64,
    bytes: u64,
}

/// One peer.
#[derive(Debug, Clone, Default)]
struct Reader {
    acknowledged: u64,
    /// All entries up to and including `acknowledged`.
    sum: Sum,
    /// The most that it ever acknowledged: after a crash it may not know of its latest messages of QoS 0 any more.
    highest: u64,
    connected: bool,
    waiting: bool,
    /// It is no peer any more: nothing is kept for it.
    has_left: bool,
}

impl OriginLog {
    /// An empty log with that many readers.
    pub(crate) fn new(bounds: Bounds, readers: usize) -> Self {
        Self {
            bounds,
            first: 1,
            last: 0,
            slots: VecDeque::new(),
            appended: Sum::default(),
            left: Sum::default(),
            kept_left: 0,
            readers: vec![Reader::default(); readers],
            waiting: false,
            high: false,
        }
    }

    /// The log goes on where it was. What goes beyond the bounds, or what everybody has, goes into `left`.
    pub(crate) fn recovered(bounds: Bounds, saved: Saved, left: &mut Vec<Arc<Entry>>) -> Self {
        let mut log = Self::new(bounds, saved.acknowledged.len());
        log.first = saved.first.max(1);
        log.last = log.first - 1;
        log.kept_left = saved.kept.min(log.last);
        for (seq, entry) in saved.entries {
            if seq <= log.last {
                continue;
            }
            log.push_hole(seq - 1);
            log.push(entry);
        }
        log.push_hole(saved.last);
        for (reader, acknowledged) in saved.acknowledged.into_iter().enumerate() {
            log.set_acknowledged(reader, acknowledged);
        }
        log.trim(left);
        log.release(left);
        log
    }

    /// The newest entry's number, 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The oldest entry's number, or the next one's if the log is empty.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The newest entry that has left and was more than QoS 0.
    pub(crate) fn kept_left(&self) -> u64 {
        self.kept_left
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.appended.messages - self.left.messages).expect("what is held fits into memory")
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.appended.bytes - self.left.bytes).expect("what is held fits into memory")
    }

    /// When the oldest was published.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.slots.iter().take(2).find_map(|slot| slot.entry.as_ref()).map(|entry| entry.message().received)
    }

    /// Whether a connected reader is too far behind.
    pub(crate) fn is_high(&self) -> bool {
        self.high
    }

    /// What a reader has acknowledged.
    pub(crate) fn acknowledged(&self, reader: usize) -> u64 {
        self.readers[reader].acknowledged
    }

    /// What is to be written down of a reader: all that it has, and all that it has had and is not promised any more. After a
    /// crash nothing else tells that it has had these.
    pub(crate) fn settled(&self, reader: usize) -> u64 {
        let acknowledged = self.acknowledged(reader);
        if self.has_had(reader, acknowledged + 1) { acknowledged.max(self.first - 1) } else { acknowledged }
    }

    /// How far a reader is behind: messages that are lost for it and that it does not know of yet included; their bytes
    /// without those; and when the oldest of these was published.
    pub(crate) fn lag(&self, reader: usize) -> (u64, u64, Option<Instant>) {
        let Reader { acknowledged, sum, .. } = &self.readers[reader];
        let lost = (self.first - 1).saturating_sub(*acknowledged);
        let messages = self.appended.messages - sum.messages.max(self.left.messages);
        let bytes = self.appended.bytes - sum.bytes.max(self.left.bytes);
        let next = self.index_of((acknowledged + 1).max(self.first));
        let oldest = self.slots.range(next.min(self.slots.len())..).take(2).find_map(|slot| slot.entry.as_ref());
        (lost + messages, bytes, oldest.map(|entry| entry.message().received))
    }

    /// Appends an entry: this is the one point that puts all publishers' messages into an order. Entries that leave go into
    /// `left`, for the caller to free without the lock.
    pub(crate) fn append(&mut self, entry: Arc<Entry>, left: &mut Vec<Arc<Entry>>) -> Appended {
        let now = entry.message().received;
        self.push(entry);
        self.trim(left);
        self.expire(now, left);
        if self.readers.iter().all(|reader| reader.has_left) {
            self.release(left);
        }
        if !self.high {
            self.high = (0..self.readers.len()).any(|reader| self.lags_behind(reader, 2));
        }
        Appended { seq: self.last, wake: self.waiting, high: self.high }
    }

    /// Drops what is older than it may be.
    pub(crate) fn expire(&mut self, now: Instant, left: &mut Vec<Arc<Entry>>) {
        let age = self.bounds.age;
        let is_old = |at: Instant| now.saturating_duration_since(at) > age;
        // The newest one stays, as it does with the other bounds.
        while self.len() > 1 && self.oldest().is_some_and(is_old) {
            self.pop(left);
        }
    }

    /// Gives each reader that waits for an entry, and forgets that it waits.
    pub(crate) fn take_waiting(&mut self, mut wake: impl FnMut(usize)) {
        if std::mem::take(&mut self.waiting) {
            for (index, reader) in self.readers.iter_mut().enumerate() {
                if std::mem::take(&mut reader.waiting) {
                    wake(index);
                }
            }
        }
    }

    /// What stands from `room.from` on, as much as there is room for, but at least one item, and no more than one read's
    /// worth, up to the first entry that may not go.
    pub(crate) fn read(&mut self, reader: usize, room: Room, may_go: impl Fn(u64, &Entry) -> bool) -> Read {
        if room.from < self.first {
            let first = self.first;
            if self.has_had(reader, room.from) {
                return Read::Items(vec![Item { last: first - 1, entry: None }]);
            }
            return Read::Gone { first };
        }
        if room.from > self.last {
            self.readers[reader].waiting = true;
            self.waiting = true;
            return Read::End;
        }
        let from = self.index_of(room.from);
        let most = usize::try_from(room.messages).unwrap_or(usize::MAX).min(READ_MESSAGES);
        let mut bytes = 0;
        let mut items = Vec::with_capacity(most.min(self.slots.len() - from));
        for slot in self.slots.range(from..).take(most) {
            if let Some(entry) = &slot.entry {
                if !may_go(slot.last, entry) {
                    if items.is_empty() {
                        return Read::Held { seq: slot.last, entry: Arc::clone(entry) };
                    }
                    break;
                }
                bytes += entry.bytes() as u64;
                if bytes > room.bytes && !items.is_empty() {
                    break;
                }
            }
            items.push(Item { last: slot.last, entry: slot.entry.clone() });
        }
        Read::Items(items)
    }

    /// Entries from `from` on, at most `most`, with their numbers, whoever may have them.
    pub(crate) fn entries(&self, from: u64, most: usize) -> Vec<(u64, Arc<Entry>)> {
        let slots = self.slots.range(self.index_of(from.max(self.first)).min(self.slots.len())..);
        slots.filter_map(|slot| Some((slot.last, Arc::clone(slot.entry.as_ref()?)))).take(most).collect()
    }

    /// A peer has everything up to `acknowledged` and its lag counts from now on. Gives whether the pressure was relieved.
    pub(crate) fn attach(&mut self, reader: usize, acknowledged: u64, left: &mut Vec<Arc<Entry>>) -> bool {
        self.readers[reader].connected = !self.readers[reader].has_left;
        self.set_acknowledged(reader, acknowledged);
        self.release(left)
    }

    /// A peer is away: it holds up nobody. Gives whether the pressure was relieved.
    pub(crate) fn detach(&mut self, reader: usize) -> bool {
        self.readers[reader].connected = false;
        self.relieve()
    }

    /// A peer has everything up to `seq`. Gives whether the pressure was relieved.
    pub(crate) fn acknowledge(&mut self, reader: usize, seq: u64, left: &mut Vec<Arc<Entry>>) -> bool {
        if seq > self.readers[reader].acknowledged {
            self.set_acknowledged(reader, seq);
        }
        self.release(left)
    }

    /// Whether all that has left from `from` on was QoS 0, and the reader has had it.
    fn has_had(&self, reader: usize, from: u64) -> bool {
        self.readers[reader].highest >= self.first - 1 && self.kept_left < from
    }

    fn set_acknowledged(&mut self, reader: usize, seq: u64) {
        let seq = seq.min(self.last);
        let sum = if seq < self.first { self.left } else { self.slots[self.index_of(seq)].end };
        let reader = &mut self.readers[reader];
        reader.acknowledged = seq;
        reader.highest = reader.highest.max(seq);
        reader.sum = sum;
    }

    /// The slot that has `seq`, which is not before the first; behind the last one if there is none.
    fn index_of(&self, seq: u64) -> usize {
        // Without holes it is where it would be in an array.
        let guess = usize::try_from(seq - self.first).unwrap_or(usize::MAX);
        match self.slots.get(guess) {
            Some(slot) if slot.last == seq => guess,
            _ => self.slots.partition_point(|slot| slot.last < seq),
        }
    }

    fn push(&mut self, entry: Arc<Entry>) {
        self.last += 1;
        self.appended.messages += 1;
        self.appended.bytes += (entry.bytes() + ENTRY_OVERHEAD) as u64;
        self.slots.push_back(Slot { last: self.last, entry: Some(entry), end: self.appended });
    }

    fn push_hole(&mut self, last: u64) {
        if last > self.last {
            self.last = last;
            self.slots.push_back(Slot { last, entry: None, end: self.appended });
        }
    }

    /// Keeps to the bounds. A message larger than the whole bound still goes to those that are connected.
    fn trim(&mut self, left: &mut Vec<Arc<Entry>>) {
        while self.len() > 1 && (self.len() > self.bounds.messages || self.bytes() > self.bounds.bytes) {
            self.pop(left);
        }
    }

    /// Drops what every reader has.
    fn release(&mut self, left: &mut Vec<Arc<Entry>>) -> bool {
        let present = self.readers.iter().filter(|reader| !reader.has_left);
        let everyone = present.map(|reader| reader.acknowledged).min().unwrap_or(u64::MAX);
        while self.slots.front().is_some_and(|slot| slot.last <= everyone) {
            self.pop(left);
        }
        self.relieve()
    }

    fn pop(&mut self, left: &mut Vec<Arc<Entry>>) {
        if let Some(slot) = self.slots.pop_front() {
            self.first = slot.last + 1;
            self.left = slot.end;
            if let Some(entry) = slot.entry {
                if entry.is_kept() {
                    self.kept_left = slot.last;
                }
                left.push(entry);
            }
        }
    }

    /// High above a half, clear again below a quarter: in between nothing changes, so publishers do not stop and go with
    /// every message.
    fn relieve(&mut self) -> bool {
        let relieved = self.high && !(0..self.readers.len()).any(|reader| self.lags_behind(reader, 4));
        if relieved {
            self.high = false;
        }
        relieved
    }

    fn lags_behind(&self, reader: usize, fraction: usize) -> bool {
        let Reader { connected, sum, .. } = &self.readers[reader];
        *connected
            && (self.appended.messages - sum.messages > (self.bounds.messages / fraction) as u64
                || self.appended.bytes - sum.bytes > (self.bounds.bytes / fraction) as u64)
    }
}

#[cfg(test)]
mod tests;
