//! Records to bytes. The kind of a record stands in its frame.

use bytes::{BufMut as _, BytesMut};
use evermq_mqtt::codec::EncodeError;

use super::{
    MessageId, OriginLog, Record, SessionId, SessionSnapshot, SessionState, Source, StoredMessage, Waiting,
    encode_publish,
};
use crate::frame::Kind;
use crate::wire::{put_bytes, put_number};

pub(super) const FLAG_USER: u8 = 1;
pub(super) const FLAG_WILL: u8 = 2;
pub(super) const FLAG_CONNECTED: u8 = 4;

pub(super) const WAITING_QOS: u8 = 3;
pub(super) const WAITING_RETAIN: u8 = 4;
pub(super) const WAITING_IDS: u8 = 8;

pub(super) const MESSAGE_RETAINED: u8 = 1;
pub(super) const MESSAGE_FROM_CLIENT: u8 = 2;
pub(super) const MESSAGE_FROM_PEER: u8 = 4;
pub(super) const MESSAGE_OF_WILL: u8 = 8;
pub(super) const MESSAGE_SOURCES: u8 = MESSAGE_FROM_CLIENT | MESSAGE_FROM_PEER | MESSAGE_OF_WILL;

/// Appends the fields of `record`; its kind.
pub(crate) fn encode(record: &Record<'_>, out: &mut BytesMut) -> Kind {
    match record {
        Record::Session(state) => {
            put_state(out, state);
            Kind::Session
        }
        Record::SessionEnd { session } => put_numbers(out, [session.0], Kind::SessionEnd),
        Record::Subscribe { session, filter, options, id } => {
            put_number(out, session.0);
            put_subscription(out, filter, *options, *id);
            Kind::Subscribe
        }
        Record::Unsubscribe { session, filter } => {
            put_number(out, session.0);
            put_bytes(out, filter.as_bytes());
            Kind::Unsubscribe
        }
        Record::Enqueue { session, waiting } => {
            put_number(out, session.0);
            put_waiting(out, waiting);
            Kind::Enqueue
        }
        Record::Moved { from, session, waiting } => {
            put_number(out, from.0);
            put_number(out, session.0);
            put_waiting(out, waiting);
            Kind::Moved
        }
        Record::Sent { session, message, packet_id } => {
            put_number(out, session.0);
            put_number(out, message.0);
            out.put_u16_le(*packet_id);
            Kind::Sent
        }
        Record::Released { session, packet_id } => put_packet_id(out, session.0, *packet_id, Kind::Released),
        Record::Done { session, packet_id } => put_packet_id(out, session.0, *packet_id, Kind::Done),
        Record::Dropped { session, message } => put_numbers(out, [session.0, message.0], Kind::Dropped),
        Record::Received { session, packet_id } => put_packet_id(out, session.0, *packet_id, Kind::Received),
        Record::ReceivedDone { session, packet_id } => put_packet_id(out, session.0, *packet_id, Kind::ReceivedDone),
        Record::Snapshot(snapshot) => {
            put_snapshot(out, snapshot);
            Kind::Snapshot
        }
        Record::RetainedGone { topic } => {
            put_bytes(out, topic.as_bytes());
            Kind::RetainedGone
        }
        Record::OriginLog(OriginLog { epoch, reserved, first, kept }) => {
            put_numbers(out, [*epoch, *reserved, *first, *kept], Kind::OriginLog)
        }
        Record::Forward { seq, message, giver, directions } => put_forward(out, (*seq, *message), *giver, directions),
        Record::PeerCursor { peer, seq } => {
            put_bytes(out, peer.as_bytes());
            put_number(out, *seq);
            Kind::PeerCursor
        }
        Record::Applied { origin, epoch, seq } => {
            put_bytes(out, origin.as_bytes());
            put_number(out, *epoch);
            put_number(out, *seq);
            Kind::Applied
        }
        Record::WillDue { will, session, publish } => {
            put_number(out, will.0);
            put_number(out, session.0);
            put_bytes(out, publish);
            Kind::WillDue
        }
        Record::WillSent { will } => put_numbers(out, [will.0], Kind::WillSent),
    }
}

fn put_numbers<const N: usize>(out: &mut BytesMut, numbers: [u64; N], kind: Kind) -> Kind {
    for number in numbers {
        put_number(out, number);
    }
    kind
}

fn put_forward(out: &mut BytesMut, of: (u64, MessageId), giver: Option<SessionId>, directions: &[u8]) -> Kind {
    let (seq, message) = of;
    if giver.is_none() && directions.is_empty() {
        return put_numbers(out, [seq, message.0], Kind::Forward);
    }
    put_numbers(out, [seq, message.0, giver.map_or(0, |giver| giver.0)], Kind::Directed);
    put_bytes(out, directions);
    Kind::Directed
}

fn put_snapshot(out: &mut BytesMut, snapshot: &SessionSnapshot<'_>) {
    put_state(out, &snapshot.state);
    out.put_u16_le(snapshot.next_packet_id);
    put_number(out, snapshot.subscriptions.len() as u64);
    for (filter, options, id) in &snapshot.subscriptions {
        put_subscription(out, filter, *options, *id);
    }
    put_number(out, snapshot.waiting.len() as u64);
    for waiting in &snapshot.waiting {
        put_waiting(out, waiting);
    }
    put_number(out, snapshot.inflight.len() as u64);
    for (packet_id, waiting) in &snapshot.inflight {
        out.put_u16_le(*packet_id);
        out.put_u8(waiting.is_some().into());
        if let Some(waiting) = waiting {
            put_waiting(out, waiting);
        }
    }
    put_number(out, snapshot.received.len() as u64);
    for packet_id in &snapshot.received {
        out.put_u16_le(*packet_id);
    }
}

/// Appends the fields of a message.
///
/// # Errors
/// It is too large for MQTT; what was appended is for the caller to take away.
pub(crate) fn encode_message(
    id: MessageId,
    message: &StoredMessage<'_>,
    retained: bool,
    from: Option<Source>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    put_number(out, id.0);
    out.put_u64_le(message.stamp_time);
    put_bytes(out, message.stamp_origin.as_bytes());
    put_number(out, message.received.0);
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let source = match from {
        None => 0,
        Some(Source::Client { .. }) => MESSAGE_FROM_CLIENT,
        Some(Source::Peer { .. }) => MESSAGE_FROM_PEER,
        Some(Source::Will { .. }) => MESSAGE_OF_WILL,
    };
    out.put_u8(flag(retained, MESSAGE_RETAINED) | source);
    match from {
        None => {}
        Some(Source::Client { session, packet_id }) => {
            put_number(out, session.0);
            out.put_u16_le(packet_id);
        }
        Some(Source::Peer { epoch, seq }) => {
            put_number(out, epoch);
            put_number(out, seq);
        }
        Some(Source::Will { will }) => put_number(out, will.0),
    }
    encode_publish(message.publish, out)
}

/// Appends the fields of [`super::Entry::Commit`].
pub(crate) fn encode_commit(synced: u64, out: &mut BytesMut) {
    put_number(out, synced);
}

fn put_packet_id(out: &mut BytesMut, session: u64, packet_id: u16, kind: Kind) -> Kind {
    put_number(out, session);
    out.put_u16_le(packet_id);
    kind
}

fn put_state(out: &mut BytesMut, state: &SessionState<'_>) {
    put_number(out, state.session.0);
    put_bytes(out, state.client_id.as_bytes());
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.put_u8(
        flag(state.user.is_some(), FLAG_USER)
            | flag(state.will.is_some(), FLAG_WILL)
            | flag(state.connected, FLAG_CONNECTED),
    );
    if let Some(user) = &state.user {
        put_bytes(out, user.as_bytes());
    }
    put_number(out, state.expiry.into());
    if let Some(will) = &state.will {
        put_number(out, will.delay.into());
        put_bytes(out, &will.publish);
    }
    put_number(out, state.at.0);
}

/// The identifier is never 0 (§3.8.2.1.2), so that stands for none.
fn put_subscription(out: &mut BytesMut, filter: &str, options: u8, id: Option<u32>) {
    put_bytes(out, filter.as_bytes());
    out.put_u8(options);
    put_number(out, id.unwrap_or(0).into());
}

fn put_waiting(out: &mut BytesMut, waiting: &Waiting<'_>) {
    put_number(out, waiting.message.0);
    let retain = if waiting.retain { WAITING_RETAIN } else { 0 };
    let ids = if waiting.ids.is_empty() { 0 } else { WAITING_IDS };
    out.put_u8(waiting.qos as u8 | retain | ids);
    if !waiting.ids.is_empty() {
        put_number(out, waiting.ids.len() as u64);
        for id in waiting.ids.iter() {
            put_number(out, (*id).into());
        }
    }
}
