//! What was appended and is not written yet, and where each byte of it goes.

use bytes::BytesMut;

use crate::position::{MAX_SEGMENT_LEN, Position, SegmentId};
use crate::segment;

/// Longest frame that may come behind the one with which a segment reaches its size.
const MAX_FRAME: u64 = u32::MAX as u64 + crate::frame::HEADER as u64;

/// Buffers beyond this go back to the system after a burst.
const KEEP_CAPACITY: usize = 8 << 20;

/// Bytes in the order in which they were appended. The space that they take in files is decided here, with each append.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: BytesMut,
    /// Where in `bytes` a segment begins; the first stands at 0.
    cuts: Vec<(usize, Position)>,
    end: Position,
    segment_size: u64,
    records: u64,
}

/// Bytes for one place of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Where they begin.
    pub(crate) at: Position,
    /// The bytes.
    pub(crate) bytes: &'a [u8],
}

impl Batch {
    /// Nothing, behind `end`. A segment that has `segment_size` bytes gets no more.
    pub(crate) fn new(end: Position, segment_size: u64) -> Self {
        let segment_size = segment_size.clamp(segment::HEADER + 1, MAX_SEGMENT_LEN - MAX_FRAME);
        Self { bytes: BytesMut::new(), cuts: Vec::new(), end, segment_size, records: 0 }
    }

    /// Whether a frame of `len` bytes comes to the present segment.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.end.offset() + len as u64 <= self.segment_size || self.end.offset() == segment::HEADER
    }

    /// Appends a frame; where it ends.
    pub(crate) fn push(&mut self, frame: &[u8]) -> Position {
        let len = frame.len() as u64;
        if !self.fits(frame.len()) {
            self.end = Position::new(self.end.segment().next(), segment::HEADER);
            self.cuts.push((self.bytes.len(), self.end));
        } else if self.bytes.is_empty() {
            self.cuts.push((0, self.end));
        }
        self.bytes.extend_from_slice(frame);
        self.end = Position::new(self.end.segment(), self.end.offset() + len);
        self.records += 1;
        self.end
    }

    /// Where the last frame ends.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Records that wait.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The segment in which the next small record comes.
    pub(crate) fn segment(&self) -> SegmentId {
        self.end.segment()
    }

    /// Moves everything into `taken`, whose buffer is used again.
    pub(crate) fn take(&mut self, taken: &mut Self) {
        taken.clear();
        taken.end = self.end;
        std::mem::swap(self, taken);
        self.end = taken.end;
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = BytesMut::new();
        }
        self.cuts.clear();
        self.records = 0;
    }

    /// The bytes by the files that they belong to, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let ends = self.cuts.iter().skip(1).map(|(from, _)| *from).chain([self.bytes.len()]);
        self.cuts
            .iter()
            .zip(ends)
            .map(|((from, at), to)| Piece { at: *at, bytes: &self.bytes[*from..to] })
            .filter(|piece| !piece.bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(batch: &Batch) -> Vec<(u64, u64, Vec<u8>)> {
        batch.pieces().map(|piece| (piece.at.segment().0, piece.at.offset(), piece.bytes.to_vec())).collect()
    }

    #[test]
    fn a_frame_that_does_not_fit_begins_the_next_segment() {
        let mut batch = Batch::new(Position::new(SegmentId(4), segment::HEADER), segment::HEADER + 4);
        assert_eq!(batch.push(b"abc"), Position::new(SegmentId(4), segment::HEADER + 3));
        assert_eq!(batch.push(b"d"), Position::new(SegmentId(4), segment::HEADER + 4));
        assert_eq!(batch.push(b"e"), Position::new(SegmentId(5), segment::HEADER + 1));
        // Larger than any segment: it has one for itself.
        assert_eq!(batch.push(b"0123456789"), Position::new(SegmentId(6), segment::HEADER + 10));
        assert_eq!(batch.push(b"f"), Position::new(SegmentId(7), segment::HEADER + 1));
        let header = segment::HEADER;
        let expected = [(4, "abcd"), (5, "e"), (6, "0123456789"), (7, "f")];
        assert_eq!(pieces(&batch), expected.map(|(segment, text)| (segment, header, text.as_bytes().to_vec())));
    }

    proptest! {
        #[test]
        fn what_is_taken_in_turns_is_what_was_pushed(lens in prop::collection::vec((1..40_usize, any::<bool>()), 0..60)) {
            let mut batch = Batch::new(Position::new(SegmentId(1), segment::HEADER), segment::HEADER + 50);
            let mut taken = Batch::new(Position::default(), segment::HEADER + 50);
            let mut files = std::collections::BTreeMap::<u64, Vec<u8>>::new();
            let mut pushed = Vec::new();
            let mut write = |batch: &mut Batch| {
                batch.take(&mut taken);
                for piece in taken.pieces() {
                    let file = files.entry(piece.at.segment().0).or_default();
                    assert_eq!(piece.at.offset(), segment::HEADER + file.len() as u64, "no gap, no overlap");
                    file.extend_from_slice(piece.bytes);
                }
                assert!(batch.is_empty() && batch.end() == taken.end());
            };
            for (index, (len, take)) in lens.into_iter().enumerate() {
                let frame = vec![index as u8; len];
                let before = batch.end();
                prop_assert!(batch.push(&frame) > before);
                pushed.extend_from_slice(&frame);
                if take {
                    write(&mut batch);
                }
            }
            write(&mut batch);
            prop_assert!(files.values().all(|file| file.len() <= 50));
            prop_assert_eq!(files.into_values().flatten().collect::<Vec<_>>(), pushed);
        }
    }
}
