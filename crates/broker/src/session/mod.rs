//! One client's session: what the broker knows of a client identifier, connected or not (§4.1).
//!
//! ```text
//!            handle_connect           connection ends, expiry > 0
//!  Detached ───────────────▶ Connected ──────────────────────────▶ Detached
//!   (new)                     │  ▲  │                               │  │
//!                   takeover  └──┘  │ connection ends, expiry 0     │  │ expires, or replaced
//!                                   │ or replaced by a clean start  │  │ by a clean start
//!                                   ▼                               │  ▼
//!                                 Ended ◀───────────────────────────┘ Ended
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`connect`] | what a CONNECT asks for, what it is granted, why it is refused |
//! | `publish` | PUBLISH and PUBREL from the client: QoS 0, 1, 2, topic aliases |
//! | `subscribe` | SUBSCRIBE and UNSUBSCRIBE |
//! | `deliver` | messages to the client: waiting, sending, resending, acknowledgements |
//! | [`queue`], [`inflight`] | what waits, what is out |
//! | [`budget`] | room for all queues together |
//! | [`lasting`] | how many outlive their connections |
//! | `link` | the present connection |
//! | `ends` | the end of a connection, and of the session |
//! | `facts` | what is so of it now |
//! | `permits` | what the client may have, and messages that it may not have any more |
//! | `will` | wills, and that each goes out once |
//! | [`changes`], [`recover`] | what the store is to know, and a session out of it |
//! | [`view`] | what an operator is shown |
//!
//! Pure: the [`connection`](crate::connection) owns the socket and the clock, the [`expiry`](crate::expiry) task those of
//! sessions without a connection.

pub mod budget;
pub mod changes;
pub mod connect;
mod deliver;
mod ends;
mod facts;
pub mod inflight;
pub mod lasting;
mod limits;
mod link;
mod permits;
mod publish;
pub mod queue;
pub mod recover;
mod subscribe;
pub mod view;
mod will;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_access::Permits;
use evermq_mqtt::codec::{DecodeError, Sender, check_sender};
use evermq_mqtt::packet::{Auth, ConnAck, Disconnect};
use evermq_mqtt::properties::DisconnectProperties;
use evermq_mqtt::{Packet, PacketId, Publish, ReasonCode, Text, TopicFilter, Version};

pub use changes::Change;
use connect::Granted;
pub use deliver::{Delivered, Transmit};
use inflight::Inflight;
use lasting::LastingPlace;
pub use limits::{Durability, Durable, Limits};
use link::Link;
pub(crate) use publish::{is_bridge_state, is_reserved};
use queue::Queue;
pub use subscribe::{Subscription, Wanted};
pub use will::{DueWill, Will};

use crate::authentication::{Authentication, Step};
use crate::message::Delivery;

/// A Reason String is left out for a client whose Maximum Packet Size is below this (`[MQTT-3.14.2-3]`).
const SIZE_FOR_REASON_STRING: u32 = 256;

/// One network connection of a client, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkId(pub u64);

/// What the driver is to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the packet to the connection.
    Send(Packet),
    /// The client's own message, or the will of a session that the store does not have: stamp it, give it to the bridge and to the subscribers. Of QoS 2 and from a
    /// durable session it has its packet identifier until then; [`Session::confirm_received`] is to follow.
    Publish(Publish),
    /// The same of the will of a durable session: the store is to hear afterwards that it has gone out.
    SendWill(Arc<DueWill>),
    /// A message was not accepted; the client has been told where its version can say so.
    Refused(ReasonCode),
    /// Enter or replace the subscription, then bring the retained messages if they are wanted.
    Subscribe(Wanted),
    /// Remove the subscription.
    Unsubscribe(TopicFilter),
    /// An lb wants to know how this broker is, from now on.
    Watch,
    /// An lb wants its clients of this list sent away.
    SendAway(Bytes),
    /// Close the connection when everything is written.
    Close {
        /// Why.
        reason: ReasonCode,
        /// Why, in words, for the log.
        text: Cow<'static, str>,
    },
    /// The session is over: forget it and its subscriptions.
    End {
        /// Its subscriptions.
        filters: Vec<TopicFilter>,
    },
    /// Other members of the groups that these came through are to have them.
    GiveBack(Returned),
    /// So many messages waited that the client may not have any more: it does not get them.
    Withdrawn(usize),
}

/// Messages of shared subscriptions that a session has not acknowledged and never will, in their order.
#[derive(Debug)]
pub struct Returned(pub Vec<Delivery>);

impl PartialEq for Returned {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&Delivery, &Delivery)| Arc::ptr_eq(&one.message, &other.message);
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

impl Eq for Returned {}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Whose it is, as far as that is known.
    user: Option<Arc<str>>,
    limits: Arc<Limits>,
    /// What its client may do; none: everything.
    permits: Option<Arc<Permits>>,
    state: State,
    /// No connection so far, so there is no state that a client could resume.
    fresh: bool,
    /// How long it outlives a connection.
    expiry: Duration,
    /// Among the sessions that do, as long as it does.
    place: Option<Arc<LastingPlace>>,
    will: Option<Box<Will>>,
    subscriptions: BTreeMap<TopicFilter, Subscription>,
    queue: Queue,
    inflight: Inflight,
    /// Packet identifiers of QoS 2 messages that were taken and not yet released (§4.3.3), and whether that is recorded.
    received: BTreeMap<PacketId, bool>,
    actions: VecDeque<Action>,
    /// It outlives the process: its changes are recorded.
    durable: bool,
    changes: Vec<Change>,
    /// Whether this session's full queue has been logged.
    overflowed: bool,
}

#[derive(Debug)]
enum State {
    Connected(Box<Link>),
    Detached { will_at: Option<Instant>, expires_at: Option<Instant> },
    Ended,
}

impl Session {
    /// The session of a client that has not connected before.
    #[must_use]
    pub fn new(limits: Arc<Limits>) -> Self {
        Self {
            user: None,
            queue: Queue::new(Arc::clone(&limits.budget)),
            limits,
            permits: None,
            state: State::Detached { will_at: None, expires_at: None },
            fresh: true,
            expiry: Duration::ZERO,
            place: None,
            will: None,
            subscriptions: BTreeMap::new(),
            inflight: Inflight::default(),
            received: BTreeMap::new(),
            actions: VecDeque::new(),
            durable: false,
            changes: Vec::new(),
            overflowed: false,
        }
    }

    /// A connection of this client was accepted. A present one is taken over: it is no longer [`Session::link`].
    pub fn handle_connect(&mut self, granted: Granted, now: Instant) {
        match &self.state {
            // §3.1.4 (4): the will of the old connection goes out unless it is delayed and the session goes on.
            State::Connected(_) => {
                if let Some(will) = self.will.take().filter(|will| will.delay.is_zero()) {
                    self.send_will(*will);
                }
            }
            State::Detached { .. } => self.keep_or_send_will(now),
            State::Ended => return,
        }
        let session_present = !std::mem::replace(&mut self.fresh, false);
        self.expiry = granted.expiry;
        self.place = granted.place.or(self.place.take()).filter(|_| !granted.expiry.is_zero());
        let rules_changed = !self.has_permits(granted.permits.as_ref());
        self.permits = granted.permits;
        if let Some(limits) = granted.limits {
            self.limits = limits;
        }
        self.will = granted.will;
        self.user = granted.user;
        self.inflight.restart();
        self.state = State::Connected(Box::new(Link {
            id: granted.link,
            is_lb: granted.is_lb,
            login: granted.login,
            version: granted.version,
            is_bridge: granted.is_bridge,
            keep_alive: u16::try_from(granted.keep_alive.as_secs()).unwrap_or(u16::MAX),
            last_received: now,
            window: granted.receive_maximum,
            max_packet_size: granted.max_packet_size,
            problem_information: granted.problem_information,
            ends_with_connection: granted.ends_with_connection,
            aliases: Vec::new(),
            authentication: granted.authenticated.as_ref().map(|client| Box::new(Authentication::new(client))),
        }));
        let withdrawn = self.withdraw(rules_changed);
        self.note_connected();
        // [MQTT-3.2.0-1]: CONNACK before anything else.
        let connack = ConnAck { session_present, reason: ReasonCode::Success, properties: granted.connack };
        self.actions.push_back(Action::Send(Packet::ConnAck(Box::new(connack))));
        self.report(withdrawn);
    }

    /// A packet came on the present connection.
    pub fn handle_packet(&mut self, packet: Packet, now: Instant) {
        let State::Connected(link) = &mut self.state else { return };
        link.last_received = now;
        if let Err(error) = check_sender(&packet, Sender::Client) {
            return self.handle_malformed(&error, now);
        }
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish, now),
            Packet::PubAck(ack) => self.handle_puback(&ack, now),
            Packet::PubRec(ack) => self.handle_pubrec(&ack, now),
            Packet::PubRel(ack) => self.handle_pubrel(&ack),
            Packet::PubComp(ack) => self.handle_pubcomp(&ack, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(unsubscribe),
            Packet::PingReq => self.actions.push_back(Action::Send(Packet::PingResp)),
            Packet::Disconnect(disconnect) => self.handle_disconnect(&disconnect, now),
            Packet::Connect(_) => self.fail(ReasonCode::ProtocolError, "second CONNECT", now),
            Packet::Auth(auth) => self.handle_auth(&auth, now),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.fail(ReasonCode::ProtocolError, "packet that only a server sends", now);
            }
        }
    }

    /// Bytes came on the present connection that are no packet (§4.13).
    pub fn handle_malformed(&mut self, error: &DecodeError, now: Instant) {
        // Only a CONNECT names a version, and a second one is a protocol error whatever it names ([MQTT-3.1.0-2]).
        let reason = match error.reason() {
            ReasonCode::UnsupportedProtocolVersion => ReasonCode::ProtocolError,
            reason => reason,
        };
        self.fail(reason, error.to_string(), now);
    }

    /// The broker ends the present connection.
    pub fn handle_close(&mut self, reason: ReasonCode, now: Instant) {
        self.handle_close_because(reason, None, now);
    }

    /// The same; `text` says why, where the reason's name does not say enough.
    pub fn handle_close_because(&mut self, reason: ReasonCode, text: Option<Box<str>>, now: Instant) {
        // A client that is sent to another broker has not gone, so nobody is told that it has: its will is as if it had
        // disconnected by itself.
        let with_will = !matches!(reason, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
        let text = text.map_or(Cow::Borrowed(reason.name()), |text| Cow::Owned(text.into_string()));
        self.close(reason, text, with_will, now);
    }

    /// The present connection is gone without a DISCONNECT.
    pub fn handle_lost(&mut self, now: Instant) {
        self.detach(true, now);
    }

    /// The session ends, connected or not: a clean start replaces it, or the broker stops.
    pub fn handle_end(&mut self, _now: Instant) {
        match self.state {
            State::Connected(_) | State::Detached { .. } => self.end(),
            State::Ended => {}
        }
    }

    /// The time that [`Session::poll_timeout`] gave has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Connected(link) => {
                // [MQTT-3.1.2-22]: one and a half times the keep alive.
                if link.keep_alive_deadline().is_some_and(|deadline| now >= deadline) {
                    self.fail(ReasonCode::KeepAliveTimeout, "keep alive timeout", now);
                }
            }
            State::Detached { will_at, expires_at } => {
                let expired = expires_at.is_some_and(|at| now >= at);
                if will_at.is_some_and(|at| now >= at) {
                    *will_at = None;
                    if let Some(will) = self.will.take() {
                        self.send_will(*will);
                    }
                }
                if expired {
                    self.end();
                }
            }
            State::Ended => {}
        }
    }

    /// When [`Session::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Connected(link) => link.keep_alive_deadline(),
            State::Detached { will_at, expires_at } => [*will_at, *expires_at].into_iter().flatten().min(),
            State::Ended => None,
        }
    }

    /// Exchanges the queue of actions: a driver lends its own before a batch and takes it back full, so that an idle session
    /// holds no memory for it, and a busy one copies nothing.
    pub fn swap_actions(&mut self, actions: &mut VecDeque<Action>) {
        std::mem::swap(&mut self.actions, actions);
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The client's silence is not its fault: the broker did not read from it until now.
    pub fn excuse_silence(&mut self, now: Instant) {
        if let State::Connected(link) = &mut self.state {
            link.last_received = now;
        }
    }

    fn handle_auth(&mut self, auth: &Auth, now: Instant) {
        let State::Connected(link) = &mut self.state else { return };
        // [MQTT-4.12.0-7].
        let Some(authentication) = &mut link.authentication else {
            return self.fail(ReasonCode::ProtocolError, "AUTH without an authentication method", now);
        };
        match authentication.handle_auth(auth) {
            Step::Continue(auth) | Step::Done(auth) => self.actions.push_back(Action::Send(Packet::Auth(auth))),
            Step::Failed(reason, text) => self.fail(reason, text, now),
        }
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect, now: Instant) {
        let State::Connected(link) = &self.state else { return };
        let asked = disconnect.properties.as_ref().and_then(|properties| properties.session_expiry);
        if let Some(seconds) = asked {
            // §3.14.2.2.2.
            if link.ends_with_connection && seconds > 0 {
                return self.fail(ReasonCode::ProtocolError, "session expiry of 0 cannot be raised", now);
            }
            self.expiry = Duration::from_secs(seconds.into()).min(self.limits.max_session_expiry);
        }
        // [MQTT-3.14.4-3]: only a normal disconnection discards the will.
        self.actions.push_back(Action::Close { reason: disconnect.reason, text: "client disconnected".into() });
        self.detach(disconnect.reason != ReasonCode::Success, now);
    }

    /// Closes the connection with `reason`, which MQTT 5.0 clients are told (§4.13).
    fn fail(&mut self, reason: ReasonCode, text: impl Into<Cow<'static, str>>, now: Instant) {
        self.close(reason, text.into(), true, now);
    }

    fn close(&mut self, reason: ReasonCode, text: Cow<'static, str>, with_will: bool, now: Instant) {
        let State::Connected(link) = &self.state else { return };
        if link.version == Version::V5 {
            let explain = link.problem_information && link.max_packet_size >= SIZE_FOR_REASON_STRING;
            let properties = Text::new(&text).ok().filter(|_| explain).map(|text| {
                Box::new(DisconnectProperties { reason_string: Some(text), ..DisconnectProperties::default() })
            });
            self.actions.push_back(Action::Send(Packet::Disconnect(Disconnect { reason, properties })));
        }
        self.actions.push_back(Action::Close { reason, text });
        self.detach(with_will, now);
    }
}

#[cfg(test)]
mod tests;
