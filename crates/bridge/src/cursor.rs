//! Where one peer stands in the origin log, and how much may be on its way to it.
//!
//! ```text
//!   1 ....... acknowledged | sent, unacknowledged (the window) | next ....... newest
//! ```
//!
//! Pure. Sequence numbers begin at 1; 0 is "none yet".

use std::collections::VecDeque;

/// Most messages that are on their way without an acknowledgement.
///
/// With the byte limit it bounds what a reset makes us send again, and what a slow peer's sockets hold of the log: at
/// 500,000 messages a second it is 8 ms, far more than the round trip between two hosts of one site.
pub(crate) const WINDOW_MESSAGES: u64 = 4096;
/// Most bytes that are on their way without an acknowledgement, beyond which no further batch begins.
pub(crate) const WINDOW_BYTES: u64 = 1024 * 1024;

/// Where one peer stands.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    acknowledged: u64,
    next: u64,
    /// The newest sequence number that was sent, on whatever connection, since the process began.
    highest_sent: u64,
    /// The peer may have anything up to here from before.
    highest_before: u64,
    batches: VecDeque<Batch>,
    bytes: u64,
}

/// What was sent at one time; released when its last message is acknowledged.
#[derive(Debug)]
struct Batch {
    last: u64,
    bytes: u64,
}

/// How much more may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The first message to send.
    pub(crate) from: u64,
    /// At most so many.
    pub(crate) messages: u64,
    /// Not more bytes than this, but for the first message.
    pub(crate) bytes: u64,
}

impl Cursor {
    /// Of a log that goes on: the peer has everything up to `acknowledged`, and nothing beyond `highest`.
    pub(crate) fn recovered(acknowledged: u64, highest: u64) -> Self {
        Self {
            acknowledged,
            next: acknowledged + 1,
            highest_sent: acknowledged,
            highest_before: highest,
            ..Self::default()
        }
    }

    /// The newest message that the peer is known to have, or will never get.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The next message to send.
    pub(crate) fn next(&self) -> u64 {
        self.next.max(self.acknowledged + 1)
    }

    /// The newest message that was ever sent to the peer, as far as is known: it has none beyond.
    pub(crate) fn highest_sent(&self) -> u64 {
        self.highest_sent.max(self.highest_before)
    }

    /// Begins a new connection: the peer has everything up to `applied`.
    pub(crate) fn resume(&mut self, applied: u64) {
        self.acknowledged = applied;
        self.next = applied + 1;
        self.batches.clear();
        self.bytes = 0;
    }

    /// What the window has room for, if anything.
    pub(crate) fn room(&self) -> Option<Room> {
        let sent = self.next() - 1 - self.acknowledged;
        (sent < WINDOW_MESSAGES && self.bytes < WINDOW_BYTES).then(|| Room {
            from: self.next(),
            messages: WINDOW_MESSAGES - sent,
            bytes: WINDOW_BYTES - self.bytes,
        })
    }

    /// Takes note that everything from the next message up to `last` was sent, in `bytes`. Gives how many of these
    /// messages had been sent before.
    pub(crate) fn sent(&mut self, last: u64, bytes: u64) -> u64 {
        let again = self.highest_sent.min(last).saturating_sub(self.next() - 1);
        self.highest_sent = self.highest_sent.max(last);
        self.next = last + 1;
        self.bytes += bytes;
        self.batches.push_back(Batch { last, bytes });
        again
    }

    /// The peer has everything up to `seq`. Gives how many messages that is more than before, or `None` if it was never sent.
    /// It may have more than was sent on this connection: from an earlier one, and its disk has it only now.
    pub(crate) fn acknowledge(&mut self, seq: u64) -> Option<u64> {
        if seq >= self.next() && seq > self.highest_sent() {
            return None;
        }
        self.next = self.next.max(seq + 1);
        while let Some(batch) = self.batches.front().filter(|batch| batch.last <= seq) {
            self.bytes -= batch.bytes;
            self.batches.pop_front();
        }
        let more = seq.saturating_sub(self.acknowledged);
        self.acknowledged += more;
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn begins_with_the_first_message() {
        let cursor = Cursor::default();
        assert_eq!(cursor.next(), 1);
        assert_eq!(cursor.room(), Some(Room { from: 1, messages: WINDOW_MESSAGES, bytes: WINDOW_BYTES }));
    }

    #[test]
    fn a_full_window_of_messages_stops_until_acknowledged() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.sent(WINDOW_MESSAGES, 10), 0);
        assert_eq!(cursor.room(), None);
        assert_eq!(cursor.acknowledge(1), Some(1));
        assert_eq!(
            cursor.room(),
            Some(Room { from: WINDOW_MESSAGES + 1, messages: 1, bytes: WINDOW_BYTES - 10 }),
            "bytes are released with the batch, messages one by one"
        );
    }

    #[test]
    fn a_message_larger_than_the_window_goes_alone() {
        let mut cursor = Cursor::default();
        cursor.sent(1, 50 * WINDOW_BYTES);
        assert_eq!(cursor.room(), None);
        assert_eq!(cursor.acknowledge(1), Some(1));
        assert!(cursor.room().is_some());
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut cursor = Cursor::default();
        cursor.sent(3, 30);
        assert_eq!(cursor.acknowledge(4), None);
        assert_eq!(cursor.acknowledge(3), Some(3));
        assert_eq!(cursor.acknowledge(2), Some(0), "an old acknowledgement changes nothing");
        assert_eq!(cursor.acknowledged(), 3);
    }

    #[test]
    fn what_an_earlier_connection_sent_may_be_acknowledged_on_this_one() {
        let mut cursor = Cursor::default();
        cursor.sent(10, 100);
        cursor.resume(4);
        cursor.sent(6, 20);
        assert_eq!(cursor.acknowledge(9), Some(5));
        assert_eq!((cursor.next(), cursor.bytes), (10, 0));
        assert_eq!(cursor.sent(8, 20), 0, "a read that was under way");
        assert_eq!(cursor.next(), 10);
        assert_eq!(cursor.acknowledge(11), None);
        assert_eq!(Cursor::recovered(3, 20).acknowledge(20), Some(17), "from before the process began");
    }

    #[test]
    fn resends_are_counted() {
        let mut cursor = Cursor::default();
        cursor.sent(10, 100);
        cursor.resume(4);
        assert_eq!(cursor.next(), 5);
        assert_eq!(cursor.sent(12, 80), 6, "5 to 10 go a second time");
        assert_eq!(cursor.sent(13, 10), 0);
    }

    proptest! {
        #[test]
        fn window_never_leaks(steps in prop::collection::vec((0u8..4, 1u64..200, 1u64..100_000), 1..200)) {
            let mut cursor = Cursor::default();
            for (step, count, bytes) in steps {
                match step {
                    0 | 1 => if let Some(room) = cursor.room() {
                        prop_assert_eq!(room.from, cursor.next());
                        cursor.sent(room.from + count.min(room.messages) - 1, bytes);
                    },
                    2 => {
                        let seq = (cursor.acknowledged() + count).min(cursor.next() - 1);
                        prop_assert!(cursor.acknowledge(seq).is_some());
                    }
                    _ => cursor.resume((cursor.acknowledged() + count).min(cursor.next() - 1)),
                }
                prop_assert!(cursor.next() > cursor.acknowledged());
                prop_assert!(cursor.next() - 1 - cursor.acknowledged() <= WINDOW_MESSAGES);
                if cursor.next() - 1 == cursor.acknowledged() {
                    prop_assert_eq!(cursor.bytes, 0);
                    prop_assert!(cursor.room().is_some());
                }
            }
        }
    }
}
