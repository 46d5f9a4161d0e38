//! Where in the log a record is.
//!
//! ```text
//!   63                                36 35                                 0
//!  +------------------------------------+-----------------------------------+
//!  |        number of the segment       |   bytes of the segment before it  |
//!  +------------------------------------+-----------------------------------+
//! ```
//!
//! So positions are in the log's order, across restarts too, and say which file they are in.

use std::fmt;

/// 64 GiB: a segment ends before, see [`crate::batch`].
const OFFSET_BITS: u32 = 36;

/// Most bytes of one segment.
pub(crate) const MAX_SEGMENT_LEN: u64 = (1 << OFFSET_BITS) - 1;

/// The number of a segment: from 1 on, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentId(pub u64);

/// The end of a record in the log. The default is before every record, and durable from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl SegmentId {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Position {
    /// Byte `offset` of `segment`.
    #[must_use]
    pub fn new(segment: SegmentId, offset: u64) -> Self {
        debug_assert!(offset <= MAX_SEGMENT_LEN, "segments are shorter than 64 GiB");
        Self(segment.0 << OFFSET_BITS | offset)
    }

    /// The segment.
    #[must_use]
    pub fn segment(self) -> SegmentId {
        SegmentId(self.0 >> OFFSET_BITS)
    }

    /// Bytes of the segment before it.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.0 & MAX_SEGMENT_LEN
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_the_order_of_the_log() {
        let end_of_first = Position::new(SegmentId(1), MAX_SEGMENT_LEN);
        let start_of_second = Position::new(SegmentId(2), 0);
        assert!(Position::default() < Position::new(SegmentId(1), 0));
        assert!(end_of_first < start_of_second);
        assert_eq!((end_of_first.segment(), end_of_first.offset()), (SegmentId(1), MAX_SEGMENT_LEN));
        assert_eq!((start_of_second.segment(), start_of_second.offset()), (SegmentId(2), 0));
    }
}
