//! The frames of one segment, and what is damaged or torn in it.
//!
//! ```text
//!   header | frame | frame | ######## | frame | Commit(synced) | frame | #### 0000
//!                            damage     used                     used   torn: the end
//!          |<---- synced: was on the disk ---->|
//! ```
//!
//! What was on the disk once and cannot be read is *damage*: it is stepped over, and the rest is used. What was being written
//! when the power failed is *torn*: there the log ends, even if later parts of it reached the disk before the earlier ones.

use crate::frame::{Framing, Kind, Parsed};
use crate::record::{Entry, decode};
use crate::segment;
use crate::wire::DecodeError;

/// A part of a segment that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// Damage.
    pub(crate) holes: Vec<Hole>,
    /// Where the segment ends: frames behind it are not used.
    pub(crate) end: u64,
    /// Bytes behind the end that are not zero: a torn tail.
    pub(crate) torn: u64,
}

/// A frame that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its record.
    pub(crate) record: &'a [u8],
}

impl<'a> Found<'a> {
    /// What it says.
    ///
    /// # Errors
    /// A record that this version does not know, though its checksum is right.
    pub(crate) fn entry(&self) -> Result<Entry<'a>, DecodeError> {
        decode(self.kind, self.record)
    }
}

/// Finds out what `bytes`, a whole segment, hold. `known_end` is what the next segment says of it, if there is one.
pub(crate) fn layout(bytes: &[u8], framing: &Framing, known_end: Option<u64>) -> Layout {
    match known_end {
        Some(end) => sealed(bytes, framing, end),
        None => last(bytes, framing),
    }
}

/// The frames that can be read, up to `end`.
pub(crate) fn frames<'a>(bytes: &'a [u8], framing: &Framing, end: u64) -> impl Iterator<Item = Found<'a>> {
    walk(bytes, framing, end).filter_map(|step| match step {
        Step::Frame(found, _) => Some(found),
        Step::Hole(_) => None,
    })
}

/// The frame at byte `at`.
pub(crate) fn frame_at<'a>(bytes: &'a [u8], framing: &Framing, at: usize) -> Option<Found<'a>> {
    match framing.parse(bytes.get(at..)?) {
        Parsed::Frame { kind, record, .. } => Some(Found { offset: at as u64, kind, record }),
        Parsed::Unreadable => None,
    }
}

fn sealed(bytes: &[u8], framing: &Framing, end: u64) -> Layout {
    let mut holes = Vec::new();
    for step in walk(bytes, framing, end) {
        if let Step::Hole(hole) = step {
            holes.push(hole);
        }
    }
    let len = bytes.len() as u64;
    if len < end {
        // What the file has lost is one hole with what cannot be read before it.
        let from = holes.last().filter(|hole| hole.offset + hole.len == len).map_or(len, |hole| hole.offset);
        holes.retain(|hole| hole.offset < from);
        holes.push(Hole { offset: from, len: end - from });
    }
    Layout { holes, end, torn: 0 }
}

fn last(bytes: &[u8], framing: &Framing) -> Layout {
    let len = bytes.len() as u64;
    let mut holes = Vec::new();
    let mut synced = 0;
    let mut end = segment::HEADER;
    for step in walk(bytes, framing, len) {
        match step {
            Step::Hole(hole) => holes.push(hole),
            Step::Frame(found, frame_end) => {
                end = frame_end;
                if let Ok(Entry::Commit { synced: mark }) = found.entry() {
                    synced = mark.max(synced);
                }
            }
        }
    }
    // The first hole that reaches beyond what was synced is where the power failed. Its part before that is damage.
    let tear = holes.iter().position(|hole| hole.offset + hole.len > synced);
    if let Some(index) = tear {
        let hole = holes[index];
        end = hole.offset.max(synced.min(len));
        holes.truncate(index);
        if hole.offset < synced {
            holes.push(Hole { offset: hole.offset, len: synced - hole.offset });
        }
    }
    let behind = bytes.get(end as usize..).unwrap_or_default();
    let torn = behind.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    Layout { holes, end, torn }
}

enum Step<'a> {
    /// A frame, and where it ends.
    Frame(Found<'a>, u64),
    Hole(Hole),
}

/// Frames and what lies between them, up to `end`. Memory behind the last frame that was never written is a hole too.
fn walk<'a>(bytes: &'a [u8], framing: &Framing, end: u64) -> impl Iterator<Item = Step<'a>> {
    let framing = *framing;
    let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
    let bytes = &bytes[..end];
    let mut at = segment::HEADER as usize;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let offset = at as u64;
        if let Parsed::Frame { kind, record, len } = framing.parse(rest) {
            at += len;
            return Some(Step::Frame(Found { offset, kind, record }, at as u64));
        }
        let mut next = at + 1;
        loop {
            next = framing.find(bytes, next).unwrap_or(bytes.len());
            if next == bytes.len() || framing.parse(&bytes[next..]) != Parsed::Unreadable {
                break;
            }
            next += 1;
        }
        at = next;
        Some(Step::Hole(Hole { offset, len: next as u64 - offset }))
    })
}

#[cfg(test)]
mod tests;
