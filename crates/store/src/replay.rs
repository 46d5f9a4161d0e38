//! Records to what was known when the last of them was written.
//!
//! Pure: [`Replay`] takes the records in the log's order and remembers where messages are, not the messages: most of them
//! are dead. Which are needed is known at the end; only those are read again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use evermq_mqtt::QoS;

use crate::position::SegmentId;
use crate::record::{
    Entry, MessageId, MessageRecord, Record, SessionId, SessionSnapshot, SessionState, Source, StoredWill, Waiting,
    topic_of,
};

mod mesh;
mod names;

pub use mesh::Applied;
pub(crate) use mesh::MeshOutcome;
pub(crate) use names::{NumberHasher, Origins};

/// No packet identifier: those are above 0.
const OF_WILL: u16 = 0;

/// Where a message's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The segment.
    pub(crate) segment: SegmentId,
    /// The offset of its frame.
    pub(crate) offset: u64,
}

/// A session as far as the log has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// What [`Record::Session`] says.
    pub(crate) state: SessionState<'static>,
    /// Where it was made, or its last snapshot is: nothing before is needed.
    pub(crate) since: SegmentId,
    /// See [`SessionSnapshot`].
    pub(crate) next_packet_id: u16,
    /// Options and identifier by filter, in the order of filters.
    pub(crate) subscriptions: BTreeMap<Box<str>, (u8, Option<u32>)>,
    /// See [`SessionSnapshot`].
    pub(crate) waiting: VecDeque<QueuedCopy>,
    /// See [`SessionSnapshot`].
    pub(crate) inflight: VecDeque<(u16, Option<QueuedCopy>)>,
    /// See [`SessionSnapshot`].
    pub(crate) received: Vec<u16>,
}

/// [`Waiting`] in few bytes: there may be millions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedCopy {
    /// The message.
    pub(crate) message: MessageId,
    /// QoS for this session.
    pub(crate) qos: QoS,
    /// RETAIN for this session.
    pub(crate) retain: bool,
    /// Subscription identifiers.
    pub(crate) ids: Box<[u32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Retained {
    stamp_time: u64,
    stamp_origin: Arc<str>,
    message: MessageId,
}

/// What the records so far say.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    sessions: HashMap<SessionId, Session, BuildHasherDefault<NumberHasher>>,
    messages: HashMap<MessageId, Place, BuildHasherDefault<NumberHasher>>,
    retained: HashMap<Box<str>, Retained>,
    origins: Origins,
    mesh: mesh::Mesh,
    /// Messages of QoS 2 and wills by where they came from, until [`Record::Received`] or [`Record::WillSent`].
    incomplete: HashMap<(SessionId, u16), MessageId>,
    /// Those that never were: after a restart their clients sent them again, and those were other messages.
    abandoned: HashSet<MessageId>,
    /// Wills that are due and not with all who get them.
    wills: BTreeMap<SessionId, Box<[u8]>>,
    /// The highest stamp time.
    pub(crate) last_stamp: u64,
    /// No message has had this number or a higher one.
    pub(crate) next_message: u64,
    /// The same of sessions.
    pub(crate) next_session: u64,
    /// Records that were applied, or said nothing any more.
    pub(crate) records: u64,
}

/// What is needed after the restart.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Sessions by number.
    pub(crate) sessions: Vec<Session>,
    /// Messages that a session or a topic has, in the order of the log.
    pub(crate) messages: Vec<(MessageId, Place)>,
    /// The retained messages among them, by number.
    pub(crate) retained: Vec<MessageId>,
    /// Wills that are due, by number, see [`Record::WillDue`].
    pub(crate) wills: Vec<(SessionId, Box<[u8]>)>,
    /// Messages that sessions wait for and that are not in the log: their records were lost.
    pub(crate) lost_messages: u64,
    /// Sessions that a later one of the same client replaces, though the log does not say that they ended.
    pub(crate) replaced_sessions: u64,
    /// What sessions wait for and no longer have to, because it comes again: to be written down.
    pub(crate) forgotten: Vec<(SessionId, MessageId)>,
    /// The brokers' mesh.
    pub(crate) mesh: MeshOutcome,
}

impl Replay {
    /// Takes the next record, which is at `place`.
    pub(crate) fn apply(&mut self, entry: Entry<'_>, place: Place) {
        self.records += 1;
        match entry {
            Entry::Message(message) => self.message(&message, place),
            Entry::Record(record) => self.record(record, place),
            Entry::Commit { .. } => {}
        }
    }

    fn message(&mut self, message: &MessageRecord<'_>, place: Place) {
        self.next_message = self.next_message.max(message.id.0.saturating_add(1));
        self.last_stamp = self.last_stamp.max(message.stamp_time);
        self.messages.insert(message.id, place);
        match message.from {
            None => {}
            Some(Source::Client { session, packet_id }) => self.begun((session, packet_id), message.id),
            Some(Source::Will { will }) => self.begun((will, OF_WILL), message.id),
            Some(Source::Peer { epoch, seq }) => {
                self.mesh.came(message.stamp_origin, (epoch, seq), message.id, &mut self.origins);
            }
        }
        if !message.retained {
            return;
        }
        let Some(topic) = topic_of(message.publish) else { return };
        let (stamp_time, message, origin) = (message.stamp_time, message.id, message.stamp_origin);
        // By stamp, as the broker decides it too: a copy of an older message may come after the newer one.
        match self.retained.get_mut(topic) {
            Some(held) if (held.stamp_time, &*held.stamp_origin) > (stamp_time, origin) => {}
            Some(held) => *held = Retained { stamp_time, stamp_origin: self.origins.shared(origin), message },
            None => {
                let held = Retained { stamp_time, stamp_origin: self.origins.shared(origin), message };
                self.retained.insert(topic.into(), held);
            }
        }
    }

    /// The same without a word in between: it came, the broker stopped, and it came again.
    fn begun(&mut self, from: (SessionId, u16), message: MessageId) {
        let earlier = self.incomplete.insert(from, message);
        self.abandoned.extend(earlier.filter(|earlier| *earlier != message));
    }

    /// Records of a session that is not known say nothing: it has ended, or a snapshot of it comes later.
    fn record(&mut self, record: Record<'_>, place: Place) {
        let segment = place.segment;
        match record {
            Record::Session(state) => {
                self.saw_session(state.session);
                let state = owned_state(state);
                match self.sessions.get_mut(&state.session) {
                    Some(session) => session.state = state,
                    None => drop(self.sessions.insert(state.session, Session::new(state, segment))),
                }
            }
            Record::SessionEnd { session } => drop(self.sessions.remove(&session)),
            Record::Snapshot(snapshot) => {
                self.saw_session(snapshot.state.session);
                let session = Session::of_snapshot(*snapshot, segment);
                self.sessions.insert(session.state.session, session);
            }
            Record::RetainedGone { topic } => drop(self.retained.remove(&*topic)),
            Record::OriginLog(log) => self.mesh.origin_log(log, place),
            Record::Forward { seq, message, giver, directions } => self.forward(seq, message, giver, &directions),
            Record::PeerCursor { peer, seq } => self.mesh.cursor(&peer, seq),
            Record::Applied { origin, epoch, seq } => self.mesh.applied(&origin, epoch, seq, &mut self.origins),
            Record::WillDue { will, session, publish } => {
                self.saw_session(will);
                self.wills.insert(will, publish.into_owned().into());
                self.with(session, |session| session.state.will = None);
            }
            Record::WillSent { will } => {
                self.wills.remove(&will);
                self.incomplete.remove(&(will, OF_WILL));
            }
            Record::Subscribe { session, filter, options, id } => self.with(session, |session| {
                session.subscriptions.insert(filter.into(), (options, id));
            }),
            Record::Unsubscribe { session, filter } => self.with(session, |session| {
                session.subscriptions.remove(&*filter);
            }),
            Record::Enqueue { session, waiting } => {
                self.with(session, |session| session.waiting.push_back(QueuedCopy::of(waiting)));
            }
            Record::Moved { from, session, waiting } => self.moved(from, session, waiting),
            Record::Sent { session, message, packet_id } => self.with(session, |session| {
                if let Some(copy) = session.take_waiting(message) {
                    session.inflight.push_back((packet_id, Some(copy)));
                    session.next_packet_id = packet_id.checked_add(1).unwrap_or(1);
                }
            }),
            Record::Released { session, packet_id } => self.with(session, |session| {
                if let Some((_, copy)) = session.inflight.iter_mut().find(|(id, _)| *id == packet_id) {
                    *copy = None;
                }
            }),
            Record::Done { session, packet_id } => self.with(session, |session| {
                if let Some(index) = session.inflight.iter().position(|(id, _)| *id == packet_id) {
                    session.inflight.remove(index);
                }
            }),
            Record::Dropped { session, message } => self.with(session, |session| drop(session.take_waiting(message))),
            Record::Received { session, packet_id } => {
                self.incomplete.remove(&(session, packet_id));
                self.with(session, |session| {
                    if !session.received.contains(&packet_id) {
                        session.received.push(packet_id);
                    }
                });
            }
            Record::ReceivedDone { session, packet_id } => {
                self.with(session, |session| session.received.retain(|id| *id != packet_id));
            }
        }
    }

    fn forward(&mut self, seq: u64, message: MessageId, giver: Option<SessionId>, directions: &[u8]) {
        if let Some(giver) = giver {
            self.with(giver, |giver| giver.gives(message));
        }
        self.mesh.forward(seq, message, directions.into());
    }

    fn moved(&mut self, from: SessionId, to: SessionId, waiting: Waiting<'_>) {
        self.with(from, |giver| giver.gives(waiting.message));
        self.with(to, |session| session.waiting.push_back(QueuedCopy::of(waiting)));
    }

    fn with(&mut self, session: SessionId, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&session) {
            change(session);
        }
    }

    fn saw_session(&mut self, session: SessionId) {
        self.next_session = self.next_session.max(session.0.saturating_add(1));
    }

    /// What is left when all records were applied.
    pub(crate) fn finish(self) -> Outcome {
        let mut outcome = Outcome { wills: self.wills.into_iter().collect(), ..Outcome::default() };
        let mut by_client = HashMap::<String, Session>::new();
        for (_, session) in self.sessions {
            let client_id = session.state.client_id.clone().into_owned();
            match by_client.get_mut(&client_id) {
                None => drop(by_client.insert(client_id, session)),
                Some(other) => {
                    outcome.replaced_sessions += 1;
                    if other.state.session < session.state.session {
                        *other = session;
                    }
                }
            }
        }
        let mut needed = HashMap::<MessageId, Place, BuildHasherDefault<NumberHasher>>::default();
        outcome.sessions = by_client.into_values().collect();
        outcome.sessions.sort_unstable_by_key(|session| session.state.session);
        let mut incomplete = self.abandoned;
        incomplete.extend(self.incomplete.into_values());
        incomplete.extend(self.mesh.incomplete());
        for session in &mut outcome.sessions {
            // [MQTT-4.3.3-13]: no PUBREC went out, so the client sends it again; that must not make two of it. Likewise a
            // peer was told nothing.
            if !incomplete.is_empty() {
                let id = session.state.session;
                session.waiting.retain(|copy| {
                    let is_gone = incomplete.contains(&copy.message);
                    outcome.forgotten.extend(is_gone.then_some((id, copy.message)));
                    !is_gone
                });
            }
            let mut keep = |copy: &QueuedCopy| match self.messages.get(&copy.message) {
                Some(place) => {
                    needed.insert(copy.message, *place);
                    true
                }
                None => {
                    outcome.lost_messages += 1;
                    false
                }
            };
            session.waiting.retain(&mut keep);
            session.inflight.retain(|(_, copy)| copy.as_ref().is_none_or(&mut keep));
        }
        outcome.retained = self.retained.into_values().map(|held| held.message).collect();
        outcome.retained.sort_unstable();
        for message in &outcome.retained {
            needed.insert(*message, self.messages[message]);
        }
        outcome.mesh = self.mesh.finish(|message| self.messages.contains_key(message) && !incomplete.contains(message));
        for (_, message, _) in &outcome.mesh.forwards {
            needed.insert(*message, self.messages[message]);
        }
        outcome.messages = needed.into_iter().collect();
        outcome.messages.sort_unstable_by_key(|(_, place)| *place);
        outcome
    }
}

impl Session {
    fn new(state: SessionState<'static>, since: SegmentId) -> Self {
        Self {
            state,
            since,
            next_packet_id: 1,
            subscriptions: BTreeMap::new(),
            waiting: VecDeque::new(),
            inflight: VecDeque::new(),
            received: Vec::new(),
        }
    }

    fn of_snapshot(snapshot: SessionSnapshot<'_>, since: SegmentId) -> Self {
        Self {
            next_packet_id: snapshot.next_packet_id,
            subscriptions: snapshot
                .subscriptions
                .into_iter()
                .map(|(filter, options, id)| (filter.into(), (options, id)))
                .collect(),
            waiting: snapshot.waiting.into_iter().map(QueuedCopy::of).collect(),
            inflight: snapshot.inflight.into_iter().map(|(id, waiting)| (id, waiting.map(QueuedCopy::of))).collect(),
            received: snapshot.received,
            ..Self::new(owned_state(snapshot.state), since)
        }
    }

    /// In the order in which it gives them back: first what was sent.
    fn gives(&mut self, message: MessageId) {
        let is_sent = |(_, copy): &(u16, Option<QueuedCopy>)| copy.as_ref().is_some_and(|copy| copy.message == message);
        match self.inflight.iter().position(is_sent) {
            Some(index) => drop(self.inflight.remove(index)),
            None => drop(self.take_waiting(message)),
        }
    }

    fn take_waiting(&mut self, message: MessageId) -> Option<QueuedCopy> {
        let index = self.waiting.iter().position(|copy| copy.message == message)?;
        self.waiting.remove(index)
    }
}

impl QueuedCopy {
    fn of(waiting: Waiting<'_>) -> Self {
        Self {
            message: waiting.message,
            qos: waiting.qos,
            retain: waiting.retain,
            ids: waiting.ids.into_owned().into(),
        }
    }
}

fn owned_state(state: SessionState<'_>) -> SessionState<'static> {
    let will = state.will.map(|will| StoredWill { delay: will.delay, publish: will.publish.into_owned().into() });
    SessionState {
        session: state.session,
        client_id: state.client_id.into_owned().into(),
        user: state.user.map(|user| user.into_owned().into()),
        expiry: state.expiry,
        will,
        connected: state.connected,
        at: state.at,
    }
}

#[cfg(test)]
mod tests;
