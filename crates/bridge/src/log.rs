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
//! [`OriginLog`] is pure; [`crate::spool`] puts it behind a lock.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use evermq_mqtt::Publish;
use evermq_mqtt::codec::PublishFrame;

use crate::cursor::Room;
use crate::message::Message;
use crate::wire_message;

/// What a message in the log costs besides its own bytes, roughly: the structs and their places in queues.
const ENTRY_OVERHEAD: usize = 256;
/// Most messages that one read gives: enough for a large write, little enough to hold the lock briefly.
const READ_MESSAGES: usize = 1024;

/// How much the log holds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes, as [`Entry::bytes`] counts them.
    pub(crate) bytes: usize,
}

/// A message in the log.
#[derive(Debug)]
pub(crate) struct Entry {
    message: Arc<Message>,
    bytes: usize,
    packet: OnceLock<Option<PublishFrame>>,
}

impl Entry {
    /// Puts a message into the form in which the log holds it.
    pub(crate) fn new(message: Arc<Message>) -> Arc<Self> {
        let bytes = message_bytes(&message.publish);
        Arc::new(Self { message, bytes, packet: OnceLock::new() })
    }

    /// The message.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// The message's PUBLISH packet, encoded once for all peers by the first that sends it; `None` if it has none (which
    /// no client can bring about).
    pub(crate) fn packet(&self) -> Option<&PublishFrame> {
        self.packet.get_or_init(|| wire_message::encode(&self.message.publish)).as_ref()
    }
}

fn message_bytes(publish: &Publish) -> usize {
    let properties = publish.properties.as_ref().map_or(0, |properties| {
        let text = |text: &Option<evermq_mqtt::Text>| text.as_ref().map_or(0, |text| text.len());
        text(&properties.response_topic)
            + text(&properties.content_type)
            + properties.correlation_data.as_ref().map_or(0, Bytes::len)
            + properties.user_properties.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    });
    publish.topic.as_str().len() + publish.payload.len() + properties
}

/// The log.
#[derive(Debug)]
pub(crate) struct OriginLog {
    bounds: Bounds,
    /// Sequence number of the front of `slots`.
    first: u64,
    slots: VecDeque<Slot>,
    /// Bytes of all entries that ever were in the log.
    appended_bytes: u64,
    /// Bytes of those that have left it.
    left_bytes: u64,
    readers: Vec<Reader>,
    waiting: bool,
    high: bool,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    /// Bytes of all entries up to and including this one.
    end: u64,
}

/// One peer.
#[derive(Debug, Clone, Default)]
struct Reader {
    acknowledged: u64,
    /// Bytes of all entries up to and including `acknowledged`.
    acknowledged_bytes: u64,
    connected: bool,
    waiting: bool,
}

/// What an append brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Whether readers wait for an entry: wake those of [`OriginLog::take_waiting`].
    pub(crate) wake: bool,
    /// Whether a connected reader is too far behind.
    pub(crate) high: bool,
}

/// What a read gave.
#[derive(Debug)]
pub(crate) enum Read {
    /// Entries from the asked one on, at least one.
    Entries(Vec<Arc<Entry>>),
    /// The asked entry has left the log; `first` is the oldest that can be had.
    Gone {
        /// The oldest entry, or the next one if the log is empty.
        first: u64,
    },
    /// There is none yet. The reader is woken when there is.
    End,
}

impl OriginLog {
    /// An empty log with that many readers.
    pub(crate) fn new(bounds: Bounds, readers: usize) -> Self {
        Self {
            bounds,
            first: 1,
            slots: VecDeque::new(),
            appended_bytes: 0,
            left_bytes: 0,
            readers: vec![Reader::default(); readers],
            waiting: false,
            high: false,
        }
    }

    /// The newest entry's number, 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.slots.len() as u64 - 1
    }

    /// The oldest entry's number, or the next one's if the log is empty.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.appended_bytes - self.left_bytes).expect("what is held fits into memory")
    }

    /// Whether a connected reader is too far behind.
    pub(crate) fn is_high(&self) -> bool {
        self.high
    }

    /// What a reader has acknowledged.
    pub(crate) fn acknowledged(&self, reader: usize) -> u64 {
        self.readers[reader].acknowledged
    }

    /// Appends an entry: this is the one point that puts all publishers' messages into an order. Entries that leave go into
    /// `left`, for the caller to free without the lock.
    pub(crate) fn append(&mut self, entry: Arc<Entry>, left: &mut Vec<Arc<Entry>>) -> Appended {
        self.appended_bytes += (entry.bytes + ENTRY_OVERHEAD) as u64;
        self.slots.push_back(Slot { entry, end: self.appended_bytes });
        // A message larger than the whole bound still goes to those that are connected.
        while self.slots.len() > 1 && (self.slots.len() > self.bounds.messages || self.bytes() > self.bounds.bytes) {
            self.pop(left);
        }
        if !self.high {
            self.high = (0..self.readers.len()).any(|reader| self.lags_behind(reader, 2));
        }
        Appended { wake: self.waiting, high: self.high }
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

    /// Entries from `room.from` on, as many as there is room for, but at least one, and no more than one read's worth.
    pub(crate) fn read(&mut self, reader: usize, room: Room) -> Read {
        if room.from < self.first {
            return Read::Gone { first: self.first };
        }
        let Some(from) = usize::try_from(room.from - self.first).ok().filter(|from| *from < self.slots.len()) else {
            self.readers[reader].waiting = true;
            self.waiting = true;
            return Read::End;
        };
        let most = usize::try_from(room.messages).unwrap_or(usize::MAX).min(READ_MESSAGES);
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(most.min(self.slots.len() - from));
        for slot in self.slots.range(from..).take(most) {
            bytes += slot.entry.bytes as u64;
            if bytes > room.bytes && !entries.is_empty() {
                break;
            }
            entries.push(Arc::clone(&slot.entry));
        }
        Read::Entries(entries)
    }

    /// A peer has everything up to `acknowledged` and its lag counts from now on. Gives whether the pressure was relieved.
    pub(crate) fn attach(&mut self, reader: usize, acknowledged: u64, left: &mut Vec<Arc<Entry>>) -> bool {
        self.readers[reader].connected = true;
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

    fn set_acknowledged(&mut self, reader: usize, seq: u64) {
        let seq = seq.min(self.last());
        self.readers[reader].acknowledged = seq;
        self.readers[reader].acknowledged_bytes = match seq.checked_sub(self.first) {
            Some(index) => self.slots[usize::try_from(index).expect("an index into memory")].end,
            None => self.left_bytes,
        };
    }

    /// Drops what every reader has.
    fn release(&mut self, left: &mut Vec<Arc<Entry>>) -> bool {
        let everyone = self.readers.iter().map(|reader| reader.acknowledged).min().unwrap_or(u64::MAX);
        while self.first <= everyone && !self.slots.is_empty() {
            self.pop(left);
        }
        self.relieve()
    }

    fn pop(&mut self, left: &mut Vec<Arc<Entry>>) {
        if let Some(slot) = self.slots.pop_front() {
            self.first += 1;
            self.left_bytes = slot.end;
            left.push(slot.entry);
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
        let reader = &self.readers[reader];
        reader.connected
            && (self.last() - reader.acknowledged > (self.bounds.messages / fraction) as u64
                || self.appended_bytes - reader.acknowledged_bytes > (self.bounds.bytes / fraction) as u64)
    }
}

#[cfg(test)]
mod tests;
