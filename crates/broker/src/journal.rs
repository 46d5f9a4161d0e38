//! What the broker writes into the store: sessions' changes, messages and wills as its records.
//!
//! Every method appends to memory only and may be called under a session's lock. What it returns is how far the store has to
//! be on the disk before anything may be said that relies on it.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_bridge::{Keeper, Message};
use evermq_mqtt::Text;
use evermq_mqtt::packet::SubscriptionOptions;
use evermq_store::{
    Handle, Position, Record, SegmentId, SessionId, SessionSnapshot, SessionState, Status, Store, StoredMessage,
    StoredWill, Waiting, WallTime,
};

use crate::message::{Delivery, Origin, Shared};
use crate::session::{Change, DueWill, Session, Subscription, Will};

mod leaving;
mod wills;

use leaving::Leaving;
use wills::Wills;

/// The store, and the time as it has it.
#[derive(Debug)]
pub struct Journal {
    store: Arc<Store>,
    /// The same moment on both clocks.
    started: (Instant, WallTime),
    /// Wills that are going out.
    wills: Wills,
    /// Sessions that are over and whose messages have no other holder yet.
    leaving: Leaving,
}

/// Whose session it is that is written down.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The session's number.
    pub key: u64,
    /// The client identifier.
    pub client_id: &'a Text,
}

impl Journal {
    /// A journal in `store`; `now` and `wall` are the same moment.
    #[must_use]
    pub fn new(store: Arc<Store>, now: Instant, wall: WallTime) -> Arc<Self> {
        Arc::new(Self { store, started: (now, wall), wills: Wills::default(), leaving: Leaving::default() })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Writes down what has changed in a session, whose lock the caller holds.
    pub fn record(&self, owner: Owner<'_>, session: &Session, changes: &mut Vec<Change>) -> Position {
        changes.drain(..).map(|change| self.record_one(owner, session, change)).max().unwrap_or_default()
    }

    /// Writes down all of a session, whose lock the caller holds.
    pub fn record_all(&self, owner: Owner<'_>, session: &Session) -> Position {
        let snapshot = SessionSnapshot {
            state: self.state(owner, session),
            next_packet_id: session.inflight().next_id().0.get(),
            subscriptions: session
                .subscriptions()
                .map(|(filter, subscription)| (filter.as_str().into(), options(subscription), id(subscription)))
                .collect(),
            waiting: session.queue().acknowledged().filter_map(|delivery| self.waiting(delivery)).collect(),
            inflight: session
                .inflight()
                .iter()
                .filter_map(|(packet_id, delivery)| {
                    let waiting = delivery.map(|delivery| self.waiting(delivery));
                    Some((packet_id.0.get(), if let Some(waiting) = waiting { Some(waiting?) } else { None }))
                })
                .collect(),
            received: session.received().map(|packet_id| packet_id.0.get()).collect(),
        };
        self.store.append(&Record::Snapshot(Box::new(snapshot)))
    }

    /// Writes down a message that is its topic's retained one from now on. The caller holds the topic's lock.
    pub fn record_retained(&self, shared: &Shared) -> Position {
        let mut position = Position::default();
        shared.stored(&mut |shared| {
            let (handle, at) = self.append(shared, true)?;
            position = at;
            Some(handle)
        });
        position
    }

    /// Writes down a message that other brokers wait for, if not a session here; `None` if there is no room for it.
    pub fn record_message(&self, message: &Message, origin: Option<&Origin>) -> Option<Handle> {
        let from = origin.map(|origin| origin.source);
        Some(self.store.append_message(&StoredMessage { from, ..self.as_stored(message) }).ok()?.0)
    }

    /// Writes down that a topic has no retained message any more.
    pub fn record_retained_gone(&self, topic: &str) {
        self.store.append(&Record::RetainedGone { topic: topic.into() });
    }

    /// Writes the message down again if the store has it in a segment that is about to go.
    pub fn refresh(&self, shared: &Shared) {
        if let Some(handle) = shared.handle() {
            self.store.refresh(handle, &self.stored(shared, false));
        }
    }

    /// A number for a new session.
    #[must_use]
    pub fn new_key(&self) -> u64 {
        self.store.new_session().0
    }

    /// Whether what was written down up to there is on the disk.
    #[must_use]
    pub fn is_durable(&self, at: Position) -> bool {
        at == Position::default() || self.store.is_durable(at)
    }

    /// Ready when it is.
    pub fn poll_durable(&self, at: Position, cx: &mut Context<'_>) -> Poll<()> {
        self.store.poll_durable(at, cx)
    }

    /// Whether the store takes nothing new.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self.store.status() {
            Status::Ready | Status::Slow => false,
            Status::Full | Status::Failed => true,
        }
    }

    /// Whether the store takes messages as fast as they come; otherwise the task is woken when it is time. One that is full says
    /// so to whoever publishes, which need not wait.
    pub fn poll_pace(&self, cx: &Context<'_>) -> bool {
        self.is_full() || self.store.poll_pace(cx).is_ready()
    }

    /// The same for those who cannot be told anything: their messages stay where they are until there is room.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.store.poll_pace(cx)
    }

    /// A will out of the store, which is to go out again.
    pub fn take_up_will(&self, will: &DueWill) {
        self.wills.take_up(will);
    }

    /// Writes down that the will is with all who get it.
    pub fn record_will_sent(&self, will: &DueWill) -> Position {
        self.wills.end(&self.store, will)
    }

    /// Writes down again the wills that are going out and were written down in a segment before `before`.
    pub fn refresh_wills(&self, before: SegmentId) {
        self.wills.refresh(&self.store, before);
    }

    /// Whether messages of this session, which is over, are still to find other holders.
    #[must_use]
    pub fn is_leaving(&self, key: u64) -> bool {
        self.leaving.has(key)
    }

    /// Whether there is any such session: what the store has of it is needed.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        self.leaving.has_any()
    }

    /// Writes down that the session is over: its messages have other holders, or there is nobody for them.
    pub fn record_left(&self, key: u64) -> Position {
        self.leaving.end(&self.store, key)
    }

    /// Ready when nothing will be durable any more, with the reason.
    pub fn poll_failure(&self, cx: &Context<'_>) -> Poll<String> {
        let failed = || self.store.status() == Status::Failed;
        // Whoever waits for what never comes is woken then.
        if !failed() && self.store.poll_durable(Position(u64::MAX), cx).is_pending() && !failed() {
            return Poll::Pending;
        }
        Poll::Ready(self.store.trouble().map_or_else(|| "the store was closed".to_owned(), |trouble| trouble.text))
    }

    /// The wall clock at `at`.
    #[must_use]
    pub fn wall(&self, at: Instant) -> WallTime {
        let (started, wall) = self.started;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        WallTime(match at.checked_duration_since(started) {
            Some(after) => wall.0.saturating_add(millis(after)),
            None => wall.0.saturating_sub(millis(started.duration_since(at))),
        })
    }

    /// The monotonic clock at `wall`. A time that it cannot say is the start's.
    #[must_use]
    pub fn instant(&self, at: WallTime) -> Instant {
        let (started, wall) = self.started;
        let moved = match at.0.checked_sub(wall.0) {
            Some(after) => started.checked_add(Duration::from_millis(after)),
            None => started.checked_sub(Duration::from_millis(wall.0 - at.0)),
        };
        moved.unwrap_or(started)
    }

    fn record_one(&self, owner: Owner<'_>, of: &Session, change: Change) -> Position {
        let session = SessionId(owner.key);
        let record = match change {
            Change::Begin => return self.record_all(owner, of),
            Change::State => Record::Session(self.state(owner, of)),
            Change::WillDue(ref will) => return self.wills.begin(&self.store, session, will),
            Change::End => Record::SessionEnd { session },
            Change::Leaving => return self.leaving.begin(session),
            Change::Subscribe(ref filter, ref subscription) => Record::Subscribe {
                session,
                filter: filter.as_str().into(),
                options: options(subscription),
                id: id(subscription),
            },
            Change::Unsubscribe(ref filter) => Record::Unsubscribe { session, filter: filter.as_str().into() },
            Change::Enqueue(ref delivery) => match self.waiting(delivery) {
                Some(waiting) => Record::Enqueue { session, waiting },
                // It cannot be written, so it waits in memory only.
                None => return Position::default(),
            },
            Change::Moved(ref delivery, giver) => match self.waiting(delivery) {
                Some(waiting) => Record::Moved { from: SessionId(giver), session, waiting },
                None => return Position::default(),
            },
            Change::Sent(ref shared, packet_id) => match shared.handle() {
                Some(handle) => Record::Sent { session, message: handle.id(), packet_id: packet_id.0.get() },
                None => return Position::default(),
            },
            Change::Dropped(ref shared) => match shared.handle() {
                Some(handle) => Record::Dropped { session, message: handle.id() },
                None => return Position::default(),
            },
            Change::Released(packet_id) => Record::Released { session, packet_id: packet_id.0.get() },
            Change::Done(packet_id) => Record::Done { session, packet_id: packet_id.0.get() },
            Change::Received(packet_id) => Record::Received { session, packet_id: packet_id.0.get() },
            Change::ReceivedDone(packet_id) => Record::ReceivedDone { session, packet_id: packet_id.0.get() },
        };
        self.store.append(&record)
    }

    fn state<'a>(&self, owner: Owner<'a>, of: &'a Session) -> SessionState<'a> {
        SessionState {
            session: SessionId(owner.key),
            client_id: owner.client_id.as_str().into(),
            user: of.user().map(|user| (&**user).into()),
            expiry: seconds(of.expiry()),
            will: of.will().and_then(stored_will),
            connected: of.link().is_some(),
            at: of.since().map_or(self.started.1, |at| self.wall(at)),
        }
    }

    /// A message that is written down at the first of those who wait for it; `None` if it cannot be.
    fn waiting(&self, delivery: &Delivery) -> Option<Waiting<'static>> {
        self.refresh(&delivery.message);
        let mut store = |shared: &Shared| Some(self.append(shared, false)?.0);
        let message = delivery.message.stored(&mut store)?.id();
        let ids = delivery.ids.as_deref().unwrap_or_default();
        let ids = ids.iter().copied().map(NonZeroU32::get).collect();
        Some(Waiting { message, qos: delivery.qos, retain: delivery.retain, ids })
    }

    /// `None` for what cannot be a packet of MQTT 5.0: one of an earlier version may be so large that it has no room for the
    /// properties' length.
    fn append(&self, shared: &Shared, retained: bool) -> Option<(Handle, Position)> {
        let appended = self.store.append_message(&self.stored(shared, retained));
        appended
            .inspect_err(|error| {
                let topic = &shared.message().publish.topic;
                tracing::warn!(%topic, %error, "a message cannot be stored and is lost if the broker stops: lower broker.max_packet_size");
            })
            .ok()
    }

    fn stored<'a>(&self, shared: &'a Shared, retained: bool) -> StoredMessage<'a> {
        StoredMessage {
            retained,
            from: shared.origin().map(|origin| origin.source),
            ..self.as_stored(shared.message())
        }
    }

    fn as_stored<'a>(&self, message: &'a Message) -> StoredMessage<'a> {
        StoredMessage {
            publish: &message.publish,
            stamp_time: message.stamp.time,
            stamp_origin: &message.stamp.origin,
            received: self.wall(message.received),
            retained: false,
            from: None,
        }
    }
}

impl Keeper for Journal {
    fn store(&self) -> &Store {
        &self.store
    }

    fn refresh(&self, message: &Message, handle: &Handle) {
        self.store.refresh(handle, &self.as_stored(message));
    }
}

/// A will that cannot be written as a packet could not be sent either.
fn stored_will(will: &Will) -> Option<StoredWill<'static>> {
    let mut publish = BytesMut::new();
    evermq_store::encode_publish(&will.publish, &mut publish).ok()?;
    Some(StoredWill { delay: seconds(will.delay), publish: Cow::Owned(publish.into()) })
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn id(subscription: &Subscription) -> Option<u32> {
    subscription.id.map(NonZeroU32::get)
}

/// Subscription Options as a SUBSCRIBE has them (§3.8.3.1).
fn options(subscription: &Subscription) -> u8 {
    let SubscriptionOptions { qos, no_local, retain_as_published, retain_handling } = subscription.options;
    qos as u8 | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3 | (retain_handling as u8) << 4
}
