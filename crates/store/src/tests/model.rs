//! A broker as far as the store is concerned: what it knows, what it writes, and what it looked like after each record.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Weak};

use evermq_mqtt::{Publish, QoS};
use parking_lot::Mutex;

use super::sample::{publish, stored};
use crate::disk::simulated::Chance;
use crate::{
    Handle, Live, Position, Record, Recovered, SegmentId, SessionId, SessionSnapshot, SessionState, Status, Store,
    Waiting, WallTime,
};

const CLIENTS: [&str; 5] = ["a", "b", "c", "d", "e"];
const TOPICS: [&str; 4] = ["t/1", "t/2", "t/3", "t/4"];

#[derive(Debug)]
struct Message {
    publish: Publish,
    stamp: u64,
    handle: Handle,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    since: SegmentId,
    expiry: u32,
    next_packet_id: u16,
    subscriptions: BTreeMap<String, u8>,
    waiting: Vec<Arc<Message>>,
    inflight: Vec<(u16, Option<Arc<Message>>)>,
    received: BTreeSet<u16>,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<String, Session>,
    retained: BTreeMap<String, Arc<Message>>,
    stamp: u64,
    serial: u64,
    /// The end of each record, and what was known then.
    history: Vec<(Position, String)>,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Model {
    store: Arc<Store>,
    state: Mutex<State>,
}

/// What the store asks.
#[derive(Debug)]
struct Asked(Weak<Model>);

impl Live for Asked {
    fn checkpoint(&self, before: SegmentId, store: &Store) -> bool {
        let Some(model) = self.0.upgrade() else { return false };
        for client in CLIENTS {
            model.move_session(client, before);
            store.pace();
        }
        let topics: Vec<_> = model.state.lock().retained.keys().cloned().collect();
        for topic in topics {
            let state = model.state.lock();
            if let Some(message) = state.retained.get(&topic) {
                store.refresh(&message.handle, &message.stored());
            }
        }
        true
    }
}

impl Message {
    fn stored(&self) -> crate::StoredMessage<'_> {
        stored(&self.publish, self.stamp, false)
    }

    fn label(&self) -> String {
        format!("{}={}", self.publish.topic, String::from_utf8_lossy(&self.publish.payload))
    }
}

impl Session {
    fn state<'a>(&self, client: &'a str) -> SessionState<'a> {
        SessionState { expiry: self.expiry, ..super::sample::state(self.id, client) }
    }
}

impl Model {
    /// One that has what was recovered.
    pub(crate) fn new(store: Arc<Store>, recovered: Recovered) -> Arc<Self> {
        let mut state = State { stamp: recovered.last_stamp, serial: recovered.last_stamp, ..State::default() };
        let messages: Vec<_> = recovered
            .messages
            .into_iter()
            .map(|message| {
                Arc::new(Message { publish: message.publish, stamp: message.stamp_time, handle: message.handle })
            })
            .collect();
        for index in recovered.retained {
            let message = &messages[index];
            state.retained.insert(message.publish.topic.to_string(), Arc::clone(message));
        }
        for session in recovered.sessions {
            let message = |index: usize| Arc::clone(&messages[index]);
            let waiting = session.waiting.iter().map(|waiting| message(waiting.message)).collect();
            let inflight = session
                .inflight
                .iter()
                .map(|(id, copy)| (*id, copy.as_ref().map(|copy| message(copy.message))))
                .collect();
            let held = Session {
                id: session.session,
                since: session.since,
                expiry: session.expiry,
                next_packet_id: session.next_packet_id,
                subscriptions: session
                    .subscriptions
                    .into_iter()
                    .map(|(filter, options, _)| (filter, options))
                    .collect(),
                waiting,
                inflight,
                received: session.received.into_iter().collect(),
            };
            state.sessions.insert(session.client_id, held);
        }
        state.history.push((Position::default(), state.picture()));
        let model = Arc::new(Self { store: Arc::clone(&store), state: Mutex::new(state) });
        store.set_live(model.live());
        model
    }

    /// Who knows what of it is alive, for a store that is to ask another one first.
    pub(crate) fn live(self: &Arc<Self>) -> Arc<dyn Live> {
        Arc::new(Asked(Arc::downgrade(self)))
    }

    /// What it knew after the last durable record, and after each that followed.
    pub(crate) fn since_durable(&self) -> Vec<String> {
        let state = self.state.lock();
        let durable = state.history.iter().rposition(|(at, _)| self.store.is_durable(*at)).unwrap_or(0);
        state.history[durable..].iter().map(|(_, picture)| picture.clone()).collect()
    }

    /// What it knew after each record.
    pub(crate) fn all(&self) -> Vec<String> {
        self.state.lock().history.iter().map(|(_, picture)| picture.clone()).collect()
    }

    /// What it knows.
    pub(crate) fn picture(&self) -> String {
        self.state.lock().picture()
    }

    /// The end of the last record.
    pub(crate) fn end(&self) -> Position {
        self.state.lock().history.last().map(|(at, _)| *at).unwrap_or_default()
    }

    /// Something happens.
    pub(crate) fn step(&self, chance: &mut Chance) {
        let mut state = self.state.lock();
        let client = CLIENTS[chance.below(CLIENTS.len())];
        if !state.sessions.contains_key(client) {
            return self.make_session(&mut state, client);
        }
        match chance.below(14) {
            0..=4 => self.publish(&mut state, chance),
            5..=7 => self.send(&mut state, client),
            8..=9 => self.acknowledge(&mut state, client, chance),
            10 => self.change_retained(&mut state, chance),
            _ => self.change_session(&mut state, client, chance),
        }
    }

    /// A message of about a thousand bytes for the first client; false if the store takes no messages now.
    pub(crate) fn fill(&self) -> bool {
        if self.store.status() != Status::Ready {
            return false;
        }
        let mut state = self.state.lock();
        let client = CLIENTS[0];
        if !state.sessions.contains_key(client) {
            self.make_session(&mut state, client);
        }
        state.stamp += 1;
        state.serial += 1;
        let publish = publish(TOPICS[0], &format!("{}{}", state.serial, "x".repeat(1000)));
        let (handle, at) = self.store.append_message(&stored(&publish, state.stamp, false)).unwrap();
        let message = Arc::new(Message { publish, stamp: state.stamp, handle });
        state.note(at);
        let session = state.sessions.get_mut(client).unwrap();
        let at = self.store.append(&super::sample::enqueue(session.id, message.handle.id()));
        session.waiting.push(message);
        state.note(at);
        true
    }

    /// The first client takes a message and acknowledges it; false if none waits.
    pub(crate) fn drain(&self) -> bool {
        let mut state = self.state.lock();
        let client = CLIENTS[0];
        self.send(&mut state, client);
        let Some(session) = state.sessions.get_mut(client).filter(|session| !session.inflight.is_empty()) else {
            return false;
        };
        let (packet_id, _) = session.inflight.remove(0);
        let at = self.store.append(&Record::Done { session: session.id, packet_id });
        state.note(at);
        true
    }

    /// The first client comes back with another expiry: the record before is dead.
    pub(crate) fn change_expiry(&self) {
        let mut state = self.state.lock();
        let client = CLIENTS[0];
        if !state.sessions.contains_key(client) {
            return self.make_session(&mut state, client);
        }
        let session = state.sessions.get_mut(client).unwrap();
        session.expiry += 1;
        let at = self.store.append(&Record::Session(session.state(client)));
        state.note(at);
    }

    fn make_session(&self, state: &mut State, client: &str) {
        let session = Session {
            id: self.store.new_session(),
            since: SegmentId::default(),
            expiry: 3600,
            next_packet_id: 1,
            subscriptions: BTreeMap::new(),
            waiting: Vec::new(),
            inflight: Vec::new(),
            received: BTreeSet::new(),
        };
        let at = self.store.append(&Record::Session(session.state(client)));
        state.sessions.insert(client.to_owned(), Session { since: at.segment(), ..session });
        state.note(at);
    }

    fn publish(&self, state: &mut State, chance: &mut Chance) {
        // As a broker does: nothing new while there is no room.
        if self.store.status() != Status::Ready {
            return;
        }
        state.stamp += 1;
        state.serial += 1;
        let retained = chance.one_in(3);
        let topic = TOPICS[chance.below(TOPICS.len())];
        let size = [0, 10, 100, 1000, 6000][chance.below(5)];
        let empty = retained && chance.one_in(4);
        let payload = if empty { String::new() } else { format!("{}{}", state.serial, "x".repeat(size)) };
        let publish = publish(topic, &payload);
        let (handle, at) = self.store.append_message(&stored(&publish, state.stamp, retained)).unwrap();
        let message = Arc::new(Message { publish, stamp: state.stamp, handle });
        if retained && let Some(older) = state.retained.insert(topic.to_owned(), Arc::clone(&message)) {
            older.handle.not_retained();
        }
        state.note(at);
        if empty {
            return;
        }
        for client in CLIENTS {
            if chance.one_in(2) {
                self.enqueue(state, client, &message);
            }
        }
    }

    fn enqueue(&self, state: &mut State, client: &str, message: &Arc<Message>) {
        let Some(session) = state.sessions.get_mut(client).filter(|session| session.waiting.len() < 12) else { return };
        self.store.refresh(&message.handle, &message.stored());
        let at = self.store.append(&super::sample::enqueue(session.id, message.handle.id()));
        session.waiting.push(Arc::clone(message));
        state.note(at);
    }

    fn send(&self, state: &mut State, client: &str) {
        let Some(session) = state.sessions.get_mut(client).filter(|session| !session.waiting.is_empty()) else {
            return;
        };
        let message = session.waiting.remove(0);
        let packet_id = session.next_packet_id;
        session.next_packet_id = packet_id.checked_add(1).unwrap_or(1);
        let at = self.store.append(&Record::Sent { session: session.id, message: message.handle.id(), packet_id });
        session.inflight.push((packet_id, Some(message)));
        state.note(at);
    }

    fn acknowledge(&self, state: &mut State, client: &str, chance: &mut Chance) {
        let Some(session) = state.sessions.get_mut(client).filter(|session| !session.inflight.is_empty()) else {
            return;
        };
        let index = chance.below(session.inflight.len());
        let (packet_id, copy) = &mut session.inflight[index];
        let (session_id, packet_id) = (session.id, *packet_id);
        let at = if copy.is_some() && chance.one_in(2) {
            *copy = None;
            self.store.append(&Record::Released { session: session_id, packet_id })
        } else {
            session.inflight.remove(index);
            self.store.append(&Record::Done { session: session_id, packet_id })
        };
        state.note(at);
    }

    /// A retained message expires, or is sent to somebody who subscribes.
    fn change_retained(&self, state: &mut State, chance: &mut Chance) {
        let topic = TOPICS[chance.below(TOPICS.len())];
        if chance.one_in(2) {
            if let Some(message) = state.retained.remove(topic) {
                message.handle.not_retained();
                let at = self.store.append(&Record::RetainedGone { topic: topic.into() });
                state.note(at);
            }
        } else if let Some(message) = state.retained.get(topic).cloned() {
            self.enqueue(state, CLIENTS[chance.below(CLIENTS.len())], &message);
        }
    }

    fn change_session(&self, state: &mut State, client: &str, chance: &mut Chance) {
        let Some(session) = state.sessions.get_mut(client) else { return };
        let id = session.id;
        let at = match chance.below(8) {
            0 => {
                state.sessions.remove(client);
                self.store.append(&Record::SessionEnd { session: id })
            }
            1 => {
                session.expiry += 1;
                self.store.append(&Record::Session(session.state(client)))
            }
            2 | 3 => {
                let (filter, options) = (TOPICS[chance.below(TOPICS.len())], chance.below(3) as u8);
                session.subscriptions.insert(filter.to_owned(), options);
                self.store.append(&Record::Subscribe { session: id, filter: filter.into(), options, id: None })
            }
            4 => {
                let filter = TOPICS[chance.below(TOPICS.len())];
                session.subscriptions.remove(filter);
                self.store.append(&Record::Unsubscribe { session: id, filter: filter.into() })
            }
            5 if !session.waiting.is_empty() => {
                let message = session.waiting.remove(0);
                self.store.append(&Record::Dropped { session: id, message: message.handle.id() })
            }
            6 => {
                let packet_id = chance.below(9) as u16 + 1;
                session.received.insert(packet_id);
                self.store.append(&Record::Received { session: id, packet_id })
            }
            _ => {
                let packet_id = chance.below(9) as u16 + 1;
                session.received.remove(&packet_id);
                self.store.append(&Record::ReceivedDone { session: id, packet_id })
            }
        };
        state.note(at);
    }

    fn move_session(&self, client: &str, before: SegmentId) {
        let mut state = self.state.lock();
        let Some(session) = state.sessions.get_mut(client) else { return };
        for message in session.waiting.iter().chain(session.inflight.iter().filter_map(|(_, copy)| copy.as_ref())) {
            self.store.refresh(&message.handle, &message.stored());
        }
        if session.since >= before {
            return;
        }
        let waiting = |message: &Arc<Message>| Waiting {
            message: message.handle.id(),
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: Cow::Borrowed(&[]),
        };
        let snapshot = SessionSnapshot {
            state: session.state(client),
            next_packet_id: session.next_packet_id,
            subscriptions: session
                .subscriptions
                .iter()
                .map(|(filter, options)| (Cow::Borrowed(&**filter), *options, None))
                .collect(),
            waiting: session.waiting.iter().map(waiting).collect(),
            inflight: session.inflight.iter().map(|(id, copy)| (*id, copy.as_ref().map(waiting))).collect(),
            received: session.received.iter().copied().collect(),
        };
        let at = self.store.append(&Record::Snapshot(Box::new(snapshot)));
        session.since = at.segment();
    }
}

impl State {
    fn note(&mut self, at: Position) {
        let picture = self.picture();
        self.history.push((at, picture));
    }

    /// Everything that has to be there after a restart.
    fn picture(&self) -> String {
        let mut out = String::new();
        let label = |message: &Arc<Message>| {
            let mut label = message.label();
            label.truncate(14);
            label
        };
        for (client, session) in &self.sessions {
            let waiting: Vec<_> = session.waiting.iter().map(label).collect();
            let inflight: Vec<_> = session.inflight.iter().map(|(id, copy)| (id, copy.as_ref().map(label))).collect();
            writeln!(
                out,
                "{client} #{} expiry {} next {} {:?} waiting {waiting:?} inflight {inflight:?} received {:?}",
                session.id.0, session.expiry, session.next_packet_id, session.subscriptions, session.received
            )
            .unwrap();
        }
        let retained: Vec<_> = self.retained.values().map(label).collect();
        writeln!(out, "retained {retained:?}").unwrap();
        out
    }
}

/// What a broker knows that was given `recovered`.
pub(crate) fn picture_of(store: &Arc<Store>, recovered: Recovered) -> (Arc<Model>, String) {
    let model = Model::new(Arc::clone(store), recovered);
    let picture = model.picture();
    (model, picture)
}

/// A time, for opening.
pub(crate) const NOW: WallTime = WallTime(1_000_000);
