//! What the records say of the brokers' mesh: this broker's log for the others, and what it has of theirs.
//!
//! Pure.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{Origins, Place};
use crate::record::{MessageId, OriginLog};

/// The mesh as far as the log has told.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    log: Option<(OriginLog, Place)>,
    /// With where they are to go.
    forwards: BTreeMap<u64, (MessageId, Box<[u8]>)>,
    cursors: BTreeMap<Box<str>, u64>,
    applied: Vec<Applied>,
    /// Messages of other brokers, by their log, until [`crate::Record::Applied`] covers them.
    incomplete: Vec<Incomplete>,
}

/// How far this broker is with one log of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The other broker.
    pub origin: Arc<str>,
    /// Which log of it.
    pub epoch: u64,
    /// The last place.
    pub seq: u64,
}

#[derive(Debug)]
struct Incomplete {
    origin: Arc<str>,
    epoch: u64,
    messages: VecDeque<(u64, MessageId)>,
}

/// What is needed after the restart.
#[derive(Debug, Default)]
pub(crate) struct MeshOutcome {
    /// With its latest record's place.
    pub(crate) log: Option<(OriginLog, Place)>,
    /// In order, with where they are to go.
    pub(crate) forwards: Vec<(u64, MessageId, Box<[u8]>)>,
    pub(crate) cursors: Vec<(Box<str>, u64)>,
    /// Those of one origin in the order in which they were written last.
    pub(crate) applied: Vec<Applied>,
}

impl Mesh {
    pub(super) fn origin_log(&mut self, log: OriginLog, place: Place) {
        self.forwards = self.forwards.split_off(&log.first);
        self.log = Some((log, place));
    }

    pub(super) fn forward(&mut self, seq: u64, message: MessageId, directions: Box<[u8]>) {
        if self.log.is_some_and(|(log, _)| seq >= log.first) {
            self.forwards.insert(seq, (message, directions));
        }
    }

    pub(super) fn cursor(&mut self, peer: &str, seq: u64) {
        match self.cursors.get_mut(peer) {
            Some(held) => *held = seq,
            None => drop(self.cursors.insert(peer.into(), seq)),
        }
    }

    pub(super) fn came(&mut self, origin: &str, (epoch, seq): (u64, u64), message: MessageId, names: &mut Origins) {
        let found = self.incomplete.iter_mut().find(|log| log.epoch == epoch && *log.origin == *origin);
        if let Some(log) = found {
            log.messages.push_back((seq, message));
        } else {
            let messages = VecDeque::from([(seq, message)]);
            self.incomplete.push(Incomplete { origin: names.shared(origin), epoch, messages });
        }
    }

    pub(super) fn applied(&mut self, origin: &str, epoch: u64, seq: u64, names: &mut Origins) {
        if let Some(log) = self.incomplete.iter_mut().find(|log| log.epoch == epoch && *log.origin == *origin) {
            // In their order, but for those that came again after a restart: they stand behind with lower places.
            log.messages.retain(|(of, _)| *of > seq);
        }
        let known = self.applied.iter().position(|applied| applied.epoch == epoch && *applied.origin == *origin);
        let mut applied = match known {
            Some(last) if last + 1 == self.applied.len() => {
                self.applied[last].seq = seq;
                return;
            }
            Some(index) => self.applied.remove(index),
            None => Applied { origin: names.shared(origin), epoch, seq },
        };
        applied.seq = seq;
        self.applied.push(applied);
    }

    /// Messages of other brokers that come again. One of a log of which nothing was ever applied is old: how far this broker
    /// was with it is forgotten together with that broker's earlier logs.
    pub(super) fn incomplete(&self) -> HashSet<MessageId> {
        let is_known = |log: &&Incomplete| {
            self.applied.iter().any(|applied| applied.epoch == log.epoch && applied.origin == log.origin)
        };
        let logs = self.incomplete.iter().filter(is_known);
        logs.flat_map(|log| log.messages.iter().map(|(_, message)| *message)).collect()
    }

    pub(super) fn finish(self, is_needed: impl Fn(&MessageId) -> bool) -> MeshOutcome {
        MeshOutcome {
            log: self.log,
            forwards: self
                .forwards
                .into_iter()
                .filter(|(_, (message, _))| is_needed(message))
                .map(|(seq, (message, directions))| (seq, message, directions))
                .collect(),
            cursors: self.cursors.into_iter().collect(),
            applied: self.applied,
        }
    }
}
