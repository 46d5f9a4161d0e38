//! What the store has of the log.
//!
//! - `forward` for each entry that is more than QoS 0, in the log's order, so that what a power failure leaves is the log up to
//!   some entry.
//! - `origin_log` with the numbers that are set aside: only those are ever sent that were set aside *on the disk*, whatever
//!   `sync` says. A broker that comes back begins behind them, so no number that a peer may have seen is ever another
//!   message's.
//! - `peer_cursor` now and then. One that is behind costs memory at the next start, nothing else: a peer says itself how far it is.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use evermq_store::{Handle, OriginLog as Saved, Position, Record, SegmentId, SessionId, Store};

use crate::log::{Entry, OriginLog};
use crate::message::Keeper;
use crate::words;

/// Numbers that are set aside at one time: at 500,000 messages a second one small record every 100 ms, and what a crash
/// leaves unused of 2^64 is nothing.
const RESERVE: u64 = 1 << 16;

/// What the store has of the log.
pub(crate) struct Kept {
    keeper: Arc<dyn Keeper>,
    /// In the order of the log's readers; none in the place of one that has left.
    peers: Vec<Option<String>>,
    epoch: u64,
    /// Set aside, and on the disk, together with the epoch.
    reserved: u64,
    /// Set aside, and on its way to the disk.
    reserving: Option<(u64, Position)>,
    /// The segments in which entries were forwarded, each with the last number of these: in the order of numbers.
    ranges: VecDeque<(u64, SegmentId)>,
    noted: Mark,
}

/// What is written down now and then.
#[derive(Debug, Default)]
struct Mark {
    first: u64,
    cursors: Vec<Option<u64>>,
}

impl Kept {
    /// From now on, with what `log` has: whatever is there is written down as being in the oldest segment.
    pub(crate) fn begin(keeper: Arc<dyn Keeper>, peers: Vec<String>, epoch: u64, log: &OriginLog) -> Self {
        let mut kept = Self {
            keeper,
            peers: peers.into_iter().map(Some).collect(),
            epoch,
            reserved: 0,
            reserving: None,
            ranges: VecDeque::from([(log.last(), SegmentId::default())]),
            noted: Mark::default(),
        };
        kept.set_aside(log);
        kept.note(log);
        kept
    }

    /// One more reader: what comes from now on is kept for it, also if the process ends now.
    pub(crate) fn add_peer(&mut self, peer: &str, log: &OriginLog) {
        self.peers.push(Some(peer.to_owned()));
        self.note_cursors(log);
    }

    /// That one has left: if it comes back after a restart, it gets what comes from then on.
    pub(crate) fn remove_peer(&mut self, reader: usize) {
        if let Some(peer) = self.peers[reader].take() {
            self.store().append(&Record::PeerCursor { peer: peer.into(), seq: u64::MAX });
        }
    }

    /// The numbers up to which entries may be sent.
    pub(crate) fn reserved(&mut self) -> u64 {
        if let Some((upto, _)) = self.reserving.filter(|(_, at)| self.store().is_synced(*at)) {
            self.reserved = upto;
            self.reserving = None;
        }
        self.reserved
    }

    /// An entry was appended to `log`.
    /// `giver` is the session that had it until now.
    pub(crate) fn append(&mut self, seq: u64, entry: &Entry, giver: Option<SessionId>, log: &OriginLog) -> Position {
        if seq + RESERVE / 2 > self.reserving.map_or(self.reserved, |(upto, _)| upto) {
            self.set_aside(log);
        }
        let Some(handle) = entry.stored() else { return Position::default() };
        // It may lie in a segment that is about to go.
        self.keeper.refresh(entry.message(), handle);
        self.forward(seq, entry, giver)
    }

    fn forward(&mut self, seq: u64, entry: &Entry, giver: Option<SessionId>) -> Position {
        let Some(handle) = entry.stored() else { return Position::default() };
        let at = self.record(seq, entry, handle, giver);
        match self.ranges.back_mut() {
            Some((last, segment)) if *segment == at.segment() && *last < seq => *last = seq,
            Some((last, _)) if *last >= seq => {}
            Some(_) | None => self.ranges.push_back((seq, at.segment())),
        }
        at
    }

    fn record(&self, seq: u64, entry: &Entry, handle: &Handle, giver: Option<SessionId>) -> Position {
        let mut room = words::Room::default();
        let directions = words::write(entry.directions(), entry.message().publisher, &mut room);
        self.store().append(&Record::Forward { seq, message: handle.id(), giver, directions })
    }

    /// Writes down again the entries of `slice` that are in segments before `before`.
    pub(crate) fn forward_again(&mut self, slice: &[(u64, Arc<Entry>)], before: SegmentId) {
        for (seq, entry) in slice {
            let range = self.ranges.partition_point(|(last, _)| last < seq);
            if let (Some((_, segment)), Some(handle)) = (self.ranges.get(range), entry.stored())
                && *segment < before
            {
                self.record(*seq, entry, handle, None);
            }
        }
    }

    /// Everything that was in segments before `before` was written down again: not before that one.
    pub(crate) fn moved(&mut self, before: SegmentId) {
        for (_, segment) in &mut self.ranges {
            *segment = (*segment).max(before);
        }
        let mut merged: VecDeque<(u64, SegmentId)> = VecDeque::new();
        for (last, segment) in self.ranges.drain(..) {
            match merged.back_mut() {
                Some((upto, same)) if *same == segment => *upto = last,
                Some(_) | None => merged.push_back((last, segment)),
            }
        }
        self.ranges = merged;
    }

    /// Writes down what has changed since the last time.
    pub(crate) fn note(&mut self, log: &OriginLog) {
        if log.first() == self.noted.first {
            self.note_cursors(log);
        } else {
            self.record_log(log);
        }
        while self.ranges.len() > 1 && self.ranges.front().is_some_and(|(last, _)| *last < log.first()) {
            self.ranges.pop_front();
        }
    }

    /// Writes all of it down, whether it has changed or not.
    pub(crate) fn mark(&mut self, log: &OriginLog) {
        self.noted = Mark::default();
        self.note(log);
    }

    /// No entry is sent any more.
    pub(crate) fn close(&mut self, log: &OriginLog) {
        self.reserved = log.last();
        self.reserving = None;
        self.mark(log);
    }

    /// It is another log from now on.
    pub(crate) fn begin_epoch(&mut self, epoch: u64, log: &OriginLog) {
        self.epoch = epoch;
        self.reserved = 0;
        self.set_aside(log);
    }

    /// The store, and who knows what the messages in it are.
    pub(crate) fn keeper(&self) -> &Arc<dyn Keeper> {
        &self.keeper
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        self.keeper.store()
    }

    fn set_aside(&mut self, log: &OriginLog) {
        let upto = log.last() + RESERVE;
        self.reserving = Some((upto, Position::default()));
        let at = self.record_log(log);
        self.store().sync(at);
        self.reserving = Some((upto, at));
    }

    fn note_cursors(&mut self, log: &OriginLog) {
        self.noted.cursors.resize(self.peers.len(), None);
        for (index, (noted, peer)) in self.noted.cursors.iter_mut().zip(&self.peers).enumerate() {
            let Some(peer) = peer else { continue };
            let seq = log.settled(index);
            if noted.replace(seq) != Some(seq) {
                self.keeper.store().append(&Record::PeerCursor { peer: peer.as_str().into(), seq });
            }
        }
    }

    /// Behind the cursors: who has had what is before the first is known whenever that is.
    fn record_log(&mut self, log: &OriginLog) -> Position {
        self.note_cursors(log);
        self.noted.first = log.first();

        let reserved = self.reserving.map_or(self.reserved, |(upto, _)| upto);
        self.store().append(&Record::OriginLog(Saved {
            epoch: self.epoch,
            reserved,
            first: log.first(),
            kept: log.kept_left(),
        }))
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("epoch", &self.epoch).field("reserved", &self.reserved).finish_non_exhaustive()
    }
}
