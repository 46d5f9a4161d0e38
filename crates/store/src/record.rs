//! What the log says: sessions, subscriptions, messages and who waits for them.
//!
//! A [`Record`] borrows what it is made of, both when it is written and when it is read. Those of one session are in the
//! order in which they came about; a message comes before or after the records that name it.

use std::borrow::Cow;

use bytes::BytesMut;
use evermq_mqtt::codec::{self, EncodeError, Limits};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, Version};

use crate::wire::DecodeError;

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(crate) use decode::decode;
pub(crate) use encode::{encode, encode_commit, encode_message};

/// A session, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

/// A message in the log, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub u64);

/// Milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub u64);

/// One change of what is to be known after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A session was made, or something of this changed; its subscriptions and messages stay.
    Session(SessionState<'a>),
    /// The session is over: nothing of it is left.
    SessionEnd {
        /// The session.
        session: SessionId,
    },
    /// A subscription was made, or replaced.
    Subscribe {
        /// The session.
        session: SessionId,
        /// The whole filter, with `$share/GROUP/`.
        filter: Cow<'a, str>,
        /// Subscription options as in a SUBSCRIBE (§3.8.3.1).
        options: u8,
        /// Subscription identifier.
        id: Option<u32>,
    },
    /// A subscription is gone.
    Unsubscribe {
        /// The session.
        session: SessionId,
        /// Its filter.
        filter: Cow<'a, str>,
    },
    /// A message waits for the session, behind those that wait already.
    Enqueue {
        /// The session.
        session: SessionId,
        /// The message.
        waiting: Waiting<'a>,
    },
    /// A message of a shared subscription waits for this session and no longer for another one, which is about to end: one
    /// record, so that it is never with neither and never with both.
    Moved {
        /// The one that had it, waiting or sent.
        from: SessionId,
        /// The session.
        session: SessionId,
        /// The message.
        waiting: Waiting<'a>,
    },
    /// A message that waited is on its way: the first entry of `message` leaves the queue.
    Sent {
        /// The session.
        session: SessionId,
        /// The message.
        message: MessageId,
        /// The packet identifier that it has now.
        packet_id: u16,
    },
    /// PUBREC came: the message itself is no longer needed, its packet identifier is.
    Released {
        /// The session.
        session: SessionId,
        /// The packet identifier.
        packet_id: u16,
    },
    /// PUBACK or PUBCOMP came, or it was given up: the packet identifier is free.
    Done {
        /// The session.
        session: SessionId,
        /// The packet identifier.
        packet_id: u16,
    },
    /// A message that waited will not be delivered: its first entry leaves the queue.
    Dropped {
        /// The session.
        session: SessionId,
        /// The message.
        message: MessageId,
    },
    /// A message of QoS 2 came from the client: the same packet identifier is the same message until PUBREL.
    Received {
        /// The session.
        session: SessionId,
        /// The packet identifier.
        packet_id: u16,
    },
    /// PUBREL came for it.
    ReceivedDone {
        /// The session.
        session: SessionId,
        /// The packet identifier.
        packet_id: u16,
    },
    /// Everything of a session: replaces what was said of it before.
    Snapshot(Box<SessionSnapshot<'a>>),
    /// The topic has no retained message any more, and no newer one took its place (it expired).
    RetainedGone {
        /// The topic.
        topic: Cow<'a, str>,
    },
    /// This broker's log for the other brokers. The latest one counts.
    OriginLog(OriginLog),
    /// A message has this place in that log. Those of one log are in the order of their places.
    Forward {
        /// The place.
        seq: u64,
        /// The message.
        message: MessageId,
        /// A session that had it until now, and is over: it gives it up with this record.
        giver: Option<SessionId>,
        /// Where it is to go, in the brokers' words; empty if it goes to everyone.
        directions: Cow<'a, [u8]>,
    },
    /// Another broker has that log up to here. It may have more: this is written now and then.
    PeerCursor {
        /// The other broker.
        peer: Cow<'a, str>,
        /// The last place.
        seq: u64,
    },
    /// Everything up to here of another broker's log has come and was written down. What a message before this one says
    /// of a later place did not come to an end, see [`Source::Peer`].
    Applied {
        /// The other broker.
        origin: Cow<'a, str>,
        /// Which log of it.
        epoch: u64,
        /// The last place.
        seq: u64,
    },
    /// The session's will is to go out now, and is the session's no longer: one record, so that it is never neither. After a
    /// restart it is due as long as [`Record::WillSent`] is not there.
    WillDue {
        /// Its number, one of those of sessions: see [`Source::Will`].
        will: SessionId,
        /// The session; 0 where it was written again.
        session: SessionId,
        /// Its message, see [`encode_publish`].
        publish: Cow<'a, [u8]>,
    },
    /// The will is with all who get it.
    WillSent {
        /// Its number.
        will: SessionId,
    },
}

/// A broker's log for the other brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginLog {
    /// Which one: another one begins when this one was lost.
    pub epoch: u64,
    /// No place beyond this one was given to anybody. On the disk before that is so, whatever the settings say.
    pub reserved: u64,
    /// Places before this one are not needed any more.
    pub first: u64,
    /// The last of those that was more than QoS 0: the others were nobody's loss.
    pub kept: u64,
}

/// Where a message came from, if it counts only when that has come to an end: what a crash leaves of it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From a client with a durable session at QoS 2: nobody has to wait for it until [`Record::Received`] says that it is
    /// complete. If that is not there after a restart, the client was told nothing and sends it again.
    Client {
        /// The session.
        session: SessionId,
        /// The packet identifier.
        packet_id: u16,
    },
    /// From another broker, the origin of its stamp: the same with [`Record::Applied`].
    Peer {
        /// Which log of it.
        epoch: u64,
        /// The place in it.
        seq: u64,
    },
    /// It is a will: the same with [`Record::WillSent`]. If that is not there after a restart, the will goes out again.
    Will {
        /// Its number.
        will: SessionId,
    },
}

/// A session but for its subscriptions and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState<'a> {
    /// The session.
    pub session: SessionId,
    /// Client identifier.
    pub client_id: Cow<'a, str>,
    /// The user to whom it belongs.
    pub user: Option<Cow<'a, str>>,
    /// Session expiry interval in seconds; `u32::MAX` never expires.
    pub expiry: u32,
    /// The will.
    pub will: Option<StoredWill<'a>>,
    /// Whether it had a connection at `at`.
    pub connected: bool,
    /// When this came about: the connection was made or lost.
    pub at: WallTime,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWill<'a> {
    /// Will delay interval in seconds.
    pub delay: u32,
    /// Its message, see [`encode_publish`].
    pub publish: Cow<'a, [u8]>,
}

/// A session's copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// The message.
    pub message: MessageId,
    /// The QoS for this session.
    pub qos: QoS,
    /// The RETAIN flag for this session.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Cow<'a, [u32]>,
}

/// Everything of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSnapshot<'a> {
    /// What [`Record::Session`] says.
    pub state: SessionState<'a>,
    /// The packet identifier that follows the last one that was used.
    pub next_packet_id: u16,
    /// Filter, options and subscription identifier of each subscription.
    pub subscriptions: Vec<(Cow<'a, str>, u8, Option<u32>)>,
    /// Messages that wait, in order.
    pub waiting: Vec<Waiting<'a>>,
    /// Messages that were sent, in order; `None` after PUBREC.
    pub inflight: Vec<(u16, Option<Waiting<'a>>)>,
    /// Packet identifiers of QoS 2 messages that the client has not released.
    pub received: Vec<u16>,
}

/// A message as it is given to the store.
#[derive(Debug, Clone, Copy)]
pub struct StoredMessage<'a> {
    /// The message; DUP and packet identifier are not kept.
    pub publish: &'a Publish,
    /// Time of its stamp.
    pub stamp_time: u64,
    /// Origin of its stamp.
    pub stamp_origin: &'a str,
    /// When the broker got it.
    pub received: WallTime,
    /// It is its topic's retained message from now on. Without payload it is the deletion of one, and is kept like one.
    pub retained: bool,
    /// What has to come to an end before anybody has to wait for it.
    pub from: Option<Source>,
}

/// A message as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// Its number.
    pub id: MessageId,
    /// Time of its stamp.
    pub stamp_time: u64,
    /// Origin of its stamp.
    pub stamp_origin: &'a str,
    /// When the broker got it.
    pub received: WallTime,
    /// See [`StoredMessage::retained`].
    pub retained: bool,
    /// See [`StoredMessage::from`].
    pub from: Option<Source>,
    /// Its MQTT 5.0 PUBLISH, see [`decode_publish`].
    pub publish: &'a [u8],
}

/// One record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A change.
    Record(Record<'a>),
    /// A message.
    Message(MessageRecord<'a>),
    /// The segment's first `synced` bytes were on the disk before this was written. What is unreadable among them is
    /// damage; behind them it is what a power failure left.
    Commit {
        /// Bytes.
        synced: u64,
    },
}

/// Stands for the packet identifier of a stored message above QoS 0.
const NO_PACKET_ID: PacketId = PacketId(std::num::NonZeroU16::MIN);

/// `publish` as the MQTT 5.0 packet that records hold.
///
/// # Errors
/// It is too large for MQTT, or has no topic.
pub fn encode_publish(publish: &Publish, out: &mut BytesMut) -> Result<(), EncodeError> {
    let packet_id = (publish.qos > QoS::AtMostOnce).then_some(NO_PACKET_ID);
    codec::encode(&Packet::Publish(Publish { dup: false, packet_id, ..publish.clone() }), Version::V5, out)
}

/// The message that [`encode_publish`] wrote, in bytes of its own.
///
/// # Errors
/// They are not one whole PUBLISH.
pub fn decode_publish(bytes: &[u8]) -> Result<Publish, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    match codec::decode(&mut buffer, Version::V5, &Limits::default()) {
        Ok(Some(Packet::Publish(publish))) if buffer.is_empty() => Ok(Publish { packet_id: None, ..publish }),
        _ => Err(DecodeError::Publish),
    }
}

/// The topic of the PUBLISH in `bytes`, without reading the rest.
pub(crate) fn topic_of(bytes: &[u8]) -> Option<&str> {
    let length = bytes.get(1..)?.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let (len, rest) = bytes.get(1 + length..)?.split_first_chunk::<2>()?;
    std::str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}
