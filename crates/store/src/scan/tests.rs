use bytes::BytesMut;

use super::*;
use crate::record::encode_commit;

const FRAMING_OF: [u8; 16] = [9; 16];
const START: usize = segment::HEADER as usize;

/// A segment with these frames: a mark of what is synced, or a record of a few bytes.
fn segment_of(frames: &[Option<u64>]) -> (Vec<u8>, Vec<u64>) {
    let framing = Framing::new(FRAMING_OF);
    let mut bytes = BytesMut::zeroed(START);
    let mut ends = vec![segment::HEADER];
    for mark in frames {
        let start = Framing::begin(&mut bytes);
        let kind = match mark {
            Some(synced) => {
                encode_commit(*synced, &mut bytes);
                Kind::Commit
            }
            None => {
                bytes.extend_from_slice(&[1]);
                Kind::SessionEnd
            }
        };
        framing.finish(&mut bytes, start, kind);
        ends.push(bytes.len() as u64);
    }
    (bytes.to_vec(), ends)
}

fn layout_of(bytes: &[u8], known_end: Option<u64>) -> Layout {
    layout(bytes, &Framing::new(FRAMING_OF), known_end)
}

fn hole(from: u64, to: u64) -> Hole {
    Hole { offset: from, len: to - from }
}

#[test]
fn a_whole_segment_and_the_room_behind_it() {
    let (mut bytes, ends) = segment_of(&[None, None]);
    assert_eq!(layout_of(&bytes, None), Layout { holes: vec![], end: ends[2], torn: 0 });
    bytes.resize(bytes.len() + 500, 0);
    assert_eq!(layout_of(&bytes, None), Layout { holes: vec![], end: ends[2], torn: 0 });
    // The next segment says where it ends.
    assert_eq!(layout_of(&bytes, Some(ends[1])), Layout { holes: vec![], end: ends[1], torn: 0 });
}

#[test]
fn before_the_mark_it_is_damage_behind_it_the_log_ends() {
    let (bytes, ends) = segment_of(&[None, None, None]);
    let marked = ends[3];
    let (bytes, ends) = {
        drop((bytes, ends));
        segment_of(&[None, None, None, Some(marked), None, None])
    };
    let flipped = |at: u64| {
        let mut bytes = bytes.clone();
        bytes[at as usize + 5] ^= 1;
        layout_of(&bytes, None)
    };
    assert_eq!(flipped(ends[1]), Layout { holes: vec![hole(ends[1], ends[2])], end: ends[6], torn: 0 });
    // The mark itself, and what came after it: a power failure.
    let torn = |from: usize| ends[6] - ends[from];
    assert_eq!(flipped(ends[4]), Layout { holes: vec![], end: ends[4], torn: torn(4) });
    assert_eq!(flipped(ends[3]), Layout { holes: vec![], end: ends[3], torn: torn(3) });
    // Both in one hole: the part before the mark is damage.
    let mut both = bytes.clone();
    both[ends[2] as usize..ends[3] as usize].fill(0);
    both[ends[4] as usize..ends[5] as usize].fill(0);
    let layout = layout_of(&both, None);
    assert_eq!((layout.holes, layout.end), (vec![hole(ends[2], ends[3])], ends[4]));
}

#[test]
fn in_a_segment_that_is_complete_everything_unreadable_is_damage() {
    let (mut bytes, ends) = segment_of(&[None, None, None, None]);
    bytes[ends[1] as usize..ends[2] as usize].fill(0);
    let end = ends[4];
    assert_eq!(layout_of(&bytes, Some(end)).holes, [hole(ends[1], ends[2])]);
    bytes.truncate(ends[3] as usize + 2);
    let layout = layout_of(&bytes, Some(end));
    assert_eq!((layout.holes, layout.end), (vec![hole(ends[1], ends[2]), hole(ends[3], end)], end));
    // Nothing but the name is left of it.
    assert_eq!(layout_of(&[], Some(end)).holes, [hole(0, end)]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, end in 0..400_u64, known: bool, at: usize) {
        let mut bytes = bytes;
        let (frames, _) = segment_of(&[None, Some(100), None]);
        let at = at % (bytes.len() + 1);
        bytes.splice(at..at, frames);
        let layout = layout_of(&bytes, known.then_some(end));
        let framing = Framing::new(FRAMING_OF);
        let _ = frame_at(&bytes, &framing, at);
        for found in frames_in(&bytes, &framing, layout.end) {
            proptest::prop_assert!(found.offset < layout.end);
        }
    }
}

use super::frames as frames_in;
