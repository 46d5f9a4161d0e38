//! Wills that are due and not yet with all who get them, so that a checkpoint can write them down again.
//!
//! A record is appended and noted here under one lock: a checkpoint finds what was appended before it, and does not bring back
//! what has ended.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use evermq_store::{Position, Record, SegmentId, SessionId, Store};
use parking_lot::Mutex;

use crate::session::DueWill;

/// By number: where it was written down last, and its message.
#[derive(Debug, Default)]
pub(super) struct Wills(Mutex<BTreeMap<u64, (SegmentId, Bytes)>>);

impl Wills {
    /// Writes down that the will of `session` is due. One that cannot be written is not in the store with the session either.
    pub(super) fn begin(&self, store: &Store, session: SessionId, will: &DueWill) -> Position {
        let Some(publish) = encoded(will) else { return Position::default() };
        let number = store.new_session();
        let mut due = self.0.lock();
        let at = store.append(&Record::WillDue { will: number, session, publish: Cow::Borrowed(&publish) });
        due.insert(number.0, (at.segment(), publish));
        will.is_stored_as(number.0);
        at
    }

    /// One that an earlier process wrote down.
    pub(super) fn take_up(&self, will: &DueWill) {
        if let (Some(number), Some(publish)) = (will.number(), encoded(will)) {
            self.0.lock().insert(number, (SegmentId::default(), publish));
        }
    }

    /// Writes down that it has gone out.
    pub(super) fn end(&self, store: &Store, will: &DueWill) -> Position {
        let Some(number) = will.number() else { return Position::default() };
        let mut due = self.0.lock();
        due.remove(&number);
        store.append(&Record::WillSent { will: SessionId(number) })
    }

    /// Writes down again what lies in a segment before `before`.
    pub(super) fn refresh(&self, store: &Store, before: SegmentId) {
        let mut due = self.0.lock();
        for (number, (segment, publish)) in due.iter_mut().filter(|(_, (segment, _))| *segment < before) {
            let record =
                Record::WillDue { will: SessionId(*number), session: SessionId(0), publish: Cow::Borrowed(publish) };
            *segment = store.append(&record).segment();
        }
    }
}

fn encoded(will: &DueWill) -> Option<Bytes> {
    let mut publish = BytesMut::new();
    evermq_store::encode_publish(&will.publish, &mut publish).ok()?;
    Some(publish.freeze())
}
