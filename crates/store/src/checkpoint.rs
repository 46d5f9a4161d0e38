//! Moving what is alive out of the oldest segments, so that they can go.
//!
//! ```text
//!   1   2   3   4   5   6   7 <- records come here
//!   └──before──┘
//!   [`Live::checkpoint`]: what of 1, 2 and 3 is alive is appended again, to 7
//!   that is synced; then 1 goes, then 2, then 3
//! ```
//!
//! Segments go oldest first only, so what an old record said never comes back.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use tracing::{debug, warn};

use crate::log::Log;
use crate::position::{Position, SegmentId};
use crate::store::{Status, Store};

/// Garbage below this many segments' worth is left alone.
const SLACK: u64 = 4;
/// More files than this beside those that their bytes would fill: each start of the broker begins a new one.
const SPARE_FILES: u64 = 64;
/// A checkpoint takes this part of the segments: little enough to need little room, much enough that not every one has to
/// look at all sessions for nothing.
const PART: usize = 4;

/// Who knows what is alive: the broker.
pub trait Live: Debug + Send + Sync {
    /// Appends again, through `store`, everything that lies in segments before `before`: each session whose first record or
    /// last snapshot is there as a snapshot, under its lock; each message whose handle says so ([`Store::refresh`]). Called in
    /// a thread of the store, which may sleep: [`Store::pace`] between two slices. Whether all of it was done: if not, as
    /// where the broker is going away, nothing is deleted.
    #[must_use]
    fn checkpoint(&self, before: SegmentId, store: &Store) -> bool;
}

/// What a decision is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The segments and the bytes of each, oldest first, without the one that is written.
    pub(crate) segments: Vec<(SegmentId, u64)>,
    /// Bytes of the one that is written.
    pub(crate) active: u64,
    /// Bytes that are alive, as far as is known.
    pub(crate) live: u64,
    /// Size of a segment.
    pub(crate) segment_size: u64,
    /// There is no room.
    pub(crate) is_full: bool,
    /// Nothing can be written any more but for what a checkpoint needs.
    pub(crate) is_stuck: bool,
}

/// Before which segment everything should be moved now, if anything.
pub(crate) fn plan(situation: &Situation) -> Option<SegmentId> {
    let Situation { segments, active, live, segment_size, is_full, is_stuck } = situation;
    let (oldest, _) = segments.first()?;
    let used = segments.iter().map(|(_, len)| len).sum::<u64>() + active;
    let is_scattered = segments.len() as u64 > SPARE_FILES + 2 * used / segment_size;
    if *is_full {
        // What a segment's move frees is what is dead in it. If nothing is, moving would go on for ever. Where not even
        // acknowledgements can be written, by which more would be dead, it is the way on.
        let is_worth_it = used.saturating_sub(*live) > *segment_size;
        return (*is_stuck || is_scattered || is_worth_it).then(|| oldest.next());
    }
    let is_half_dead = used > 2 * live + SLACK * segment_size;
    if !is_half_dead && !is_scattered {
        return None;
    }
    let count = segments.len().div_ceil(PART);
    segments.get(count - 1).map(|(last, _)| last.next())
}

/// Starts checkpoints.
#[derive(Debug)]
pub(crate) struct Mover {
    log: Arc<Log>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<dyn Live>>,
    look: bool,
    is_closing: bool,
    /// Bytes of the sessions that checkpoints have written, and the segment in which they end: about what all sessions take,
    /// as long as that segment has not been moved in its turn.
    sessions: VecDeque<(SegmentId, u64)>,
}

impl Mover {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self { log, state: Mutex::default(), work: Condvar::new() }
    }

    /// Says who knows what is alive.
    pub(crate) fn set_live(&self, live: Arc<dyn Live>) {
        self.state.lock().live = Some(live);
        self.look();
    }

    /// Something has changed that may call for a checkpoint.
    pub(crate) fn look(&self) {
        self.state.lock().look = true;
        self.work.notify_one();
    }

    /// Ends the thread, after the present slice.
    pub(crate) fn close(&self) {
        let live = {
            let mut state = self.state.lock();
            state.is_closing = true;
            state.live.take()
        };
        drop(live);
        self.work.notify_all();
    }

    fn next(&self) -> Option<(Arc<dyn Live>, SegmentId)> {
        let mut state = self.state.lock();
        loop {
            if state.is_closing {
                return None;
            }
            if std::mem::take(&mut state.look)
                && let Some(live) = state.live.clone()
                && let Some(before) = plan(&self.situation(&mut state))
            {
                return Some((live, before));
            }
            self.work.wait(&mut state);
        }
    }

    fn situation(&self, state: &mut State) -> Situation {
        let active = self.log.open.lock().batch.end();
        let space = self.log.space.lock();
        let oldest = space.segments().next().map_or(active.segment(), |(segment, _)| segment);
        while state.sessions.front().is_some_and(|(segment, _)| *segment < oldest) {
            state.sessions.pop_front();
        }
        Situation {
            segments: space.segments().filter(|(segment, _)| *segment < active.segment()).collect(),
            active: active.offset(),
            live: self.log.live_bytes() + state.sessions.iter().map(|(_, bytes)| bytes).sum::<u64>(),
            segment_size: self.log.settings.segment_size,
            is_full: self.log.status() == Status::Full,
            is_stuck: space.is_stuck(),
        }
    }

    fn checkpoint(&self, live: &dyn Live, before: SegmentId, store: &Store) {
        let log = &self.log;
        let snapshots = log.counters.snapshot_bytes.load(Ordering::Relaxed);
        // From now on a message of those segments that gets another holder is appended again, see `Store::refresh`.
        log.moving.fetch_max(before.0, Ordering::AcqRel);
        log.is_moving.store(true, Ordering::Release);
        // It may have given up for a while.
        log.work.notify_one();
        let is_whole = live.checkpoint(before, store);
        let end = log.open.lock().batch.end();
        let is_moved = is_whole && self.synced(end);
        log.is_moving.store(false, Ordering::Release);
        if !is_moved {
            return;
        }
        let sessions = log.counters.snapshot_bytes.load(Ordering::Relaxed) - snapshots;
        self.state.lock().sessions.push_back((end.segment(), sessions));
        let mut deleted = 0_u64;
        loop {
            // Not under the lock of the state, and that of the space for one file at a time only.
            let removed = {
                let mut space = log.space.lock();
                let removed = space.remove_oldest(before);
                log.note(&space);
                removed
            };
            match removed {
                Ok(true) => deleted += 1,
                Ok(false) => break,
                Err(error) => {
                    warn!(%error, "store: cannot delete an old segment; it is tried again with the next checkpoint");
                    break;
                }
            }
        }
        log.counters.deleted_segments.fetch_add(deleted, Ordering::Relaxed);
        log.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        debug!(before = before.0, deleted, sessions_bytes = sessions, "store: checkpoint");
        if deleted > 0 {
            self.look();
            log.work.notify_one();
        }
    }

    /// Waits until everything up to `end` is on the disk; false if it will not be.
    fn synced(&self, end: Position) -> bool {
        let log = &self.log;
        log.ask_for(end);
        while log.synced() < end {
            if log.status() == Status::Failed || self.state.lock().is_closing {
                return false;
            }
            crate::writer::doze();
        }
        true
    }
}

/// The thread.
pub(crate) fn run(mover: &Mover, store: &Weak<Store>) {
    while let Some((live, before)) = mover.next() {
        let Some(store) = store.upgrade() else { return };
        mover.checkpoint(&*live, before, &store);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(sealed: u64, live: u64, is_full: bool) -> Situation {
        let segments = (10..10 + sealed).map(|segment| (SegmentId(segment), 100)).collect();
        Situation { segments, active: 50, live, segment_size: 100, is_full, is_stuck: false }
    }

    #[test]
    fn many_small_files_become_fewer() {
        let segments = |count: u64| (1..=count).map(|segment| (SegmentId(segment), 1)).collect();
        let situation = |count| Situation {
            segments: segments(count),
            active: 1,
            live: 50,
            segment_size: 100,
            is_full: false,
            is_stuck: false,
        };
        assert_eq!(plan(&situation(64)), None);
        assert_eq!(plan(&situation(68)), Some(SegmentId(18)));
        // Without room one at a time, which needs as little of it as can be.
        assert_eq!(plan(&Situation { is_full: true, ..situation(64) }), None);
        assert_eq!(plan(&Situation { is_full: true, ..situation(68) }), Some(SegmentId(2)));
    }

    #[test]
    fn a_checkpoint_comes_when_more_than_half_is_dead() {
        let cases = [
            // Nothing is dead, or too little to be worth it.
            (situation(0, 0, false), None),
            (situation(3, 0, false), None),
            (situation(20, 2000, false), None),
            (situation(20, 825, false), None),
            // A quarter at a time, rounded up.
            (situation(4, 0, false), Some(SegmentId(11))),
            (situation(5, 0, false), Some(SegmentId(12))),
            (situation(20, 824, false), Some(SegmentId(15))),
            // Without room: one at a time, and only if that gives room.
            (situation(20, 824, true), Some(SegmentId(11))),
            (situation(20, 1949, true), Some(SegmentId(11))),
            (situation(20, 1950, true), None),
            (situation(0, 0, true), None),
            (Situation { is_stuck: true, ..situation(20, 1950, true) }, Some(SegmentId(11))),
        ];
        for (situation, expected) in cases {
            assert_eq!(plan(&situation), expected, "{situation:?}");
        }
    }
}
