//! A message that lies in the log, as long as somebody needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::position::SegmentId;
use crate::record::MessageId;

/// A message in the log. When the last clone is dropped, the message is dead: no checkpoint keeps it, and after a restart
/// nobody refers to it.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Stored>);

#[derive(Debug)]
struct Stored {
    id: MessageId,
    /// The segment with its latest record.
    segment: AtomicU64,
    bytes: u64,
    retained: AtomicBool,
    ledger: Arc<Ledger>,
}

/// How much is alive.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    bytes: AtomicU64,
    messages: AtomicU64,
}

impl Handle {
    pub(crate) fn new(id: MessageId, segment: SegmentId, bytes: u64, retained: bool, ledger: &Arc<Ledger>) -> Self {
        ledger.bytes.fetch_add(bytes, Ordering::Relaxed);
        ledger.messages.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Stored {
            id,
            segment: AtomicU64::new(segment.0),
            bytes,
            retained: AtomicBool::new(retained),
            ledger: Arc::clone(ledger),
        }))
    }

    /// The message's number.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.0.id
    }

    /// The segment with its latest record.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        SegmentId(self.0.segment.load(Ordering::Acquire))
    }

    /// It is no longer its topic's retained message: a newer one has taken its place, or it has expired. To be said then,
    /// because a session may still wait for it, and a checkpoint that moves it must not make it a retained message again.
    pub fn not_retained(&self) {
        self.0.retained.store(false, Ordering::Release);
    }

    /// Whether it is its topic's retained message.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.0.retained.load(Ordering::Acquire)
    }

    pub(crate) fn moved(&self, segment: SegmentId) {
        self.0.segment.fetch_max(segment.0, Ordering::AcqRel);
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.ledger.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.ledger.messages.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ledger {
    /// Bytes of the messages that are alive.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Messages that are alive.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}
