//! Bytes to records.

use std::borrow::Cow;

use evermq_mqtt::QoS;

use super::encode::{
    FLAG_CONNECTED, FLAG_USER, FLAG_WILL, MESSAGE_FROM_CLIENT, MESSAGE_FROM_PEER, MESSAGE_OF_WILL, MESSAGE_RETAINED,
    MESSAGE_SOURCES, WAITING_IDS, WAITING_QOS, WAITING_RETAIN,
};
use super::{
    Entry, MessageId, MessageRecord, OriginLog, Record, SessionId, SessionSnapshot, SessionState, Source, StoredWill,
    Waiting, WallTime,
};
use crate::frame::Kind;
use crate::wire::{DecodeError, Reader};

/// The record of that kind.
///
/// # Errors
/// The bytes are not exactly one.
pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<Entry<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let entry = match kind {
        Kind::Message => return message(reader).map(Entry::Message),
        Kind::Commit => Entry::Commit { synced: reader.number()? },
        Kind::Session
        | Kind::SessionEnd
        | Kind::Subscribe
        | Kind::Unsubscribe
        | Kind::Enqueue
        | Kind::Sent
        | Kind::Released
        | Kind::Done
        | Kind::Dropped
        | Kind::Received
        | Kind::ReceivedDone
        | Kind::Snapshot
        | Kind::RetainedGone
        | Kind::OriginLog
        | Kind::Forward
        | Kind::Directed
        | Kind::PeerCursor
        | Kind::Applied
        | Kind::WillDue
        | Kind::WillSent
        | Kind::Moved => Entry::Record(record(kind, &mut reader)?),
    };
    reader.finish()?;
    Ok(entry)
}

fn record<'a>(kind: Kind, reader: &mut Reader<'a>) -> Result<Record<'a>, DecodeError> {
    match kind {
        Kind::Session => return Ok(Record::Session(state(reader)?)),
        Kind::Snapshot => return Ok(Record::Snapshot(Box::new(snapshot(reader)?))),
        Kind::RetainedGone => return Ok(Record::RetainedGone { topic: text(reader)? }),
        Kind::OriginLog => {
            let (epoch, reserved) = (reader.number()?, reader.number()?);
            let (first, kept) = (reader.number()?, reader.number()?);
            return Ok(Record::OriginLog(OriginLog { epoch, reserved, first, kept }));
        }
        Kind::Forward => {
            let (seq, message) = (reader.number()?, MessageId(reader.number()?));
            return Ok(Record::Forward { seq, message, giver: None, directions: Cow::default() });
        }
        Kind::Directed => {
            let (seq, message) = (reader.number()?, MessageId(reader.number()?));
            let giver = Some(SessionId(reader.number()?)).filter(|giver| giver.0 != 0);
            let directions = Cow::Borrowed(reader.bytes()?);
            return Ok(Record::Forward { seq, message, giver, directions });
        }
        Kind::PeerCursor => return Ok(Record::PeerCursor { peer: text(reader)?, seq: reader.number()? }),
        Kind::Applied => {
            let (origin, epoch, seq) = (text(reader)?, reader.number()?, reader.number()?);
            return Ok(Record::Applied { origin, epoch, seq });
        }
        _ => {}
    }
    let session = SessionId(reader.number()?);
    Ok(match kind {
        Kind::WillDue => {
            let of = SessionId(reader.number()?);
            Record::WillDue { will: session, session: of, publish: Cow::Borrowed(reader.bytes()?) }
        }
        Kind::WillSent => Record::WillSent { will: session },
        Kind::SessionEnd => Record::SessionEnd { session },
        Kind::Subscribe => {
            let (filter, options, id) = subscription(reader)?;
            Record::Subscribe { session, filter, options, id }
        }
        Kind::Unsubscribe => Record::Unsubscribe { session, filter: text(reader)? },
        Kind::Enqueue => Record::Enqueue { session, waiting: waiting(reader)? },
        Kind::Moved => {
            let to = SessionId(reader.number()?);
            Record::Moved { from: session, session: to, waiting: waiting(reader)? }
        }
        Kind::Sent => Record::Sent { session, message: MessageId(reader.number()?), packet_id: packet_id(reader)? },
        Kind::Released => Record::Released { session, packet_id: packet_id(reader)? },
        Kind::Done => Record::Done { session, packet_id: packet_id(reader)? },
        Kind::Dropped => Record::Dropped { session, message: MessageId(reader.number()?) },
        Kind::Received => Record::Received { session, packet_id: packet_id(reader)? },
        Kind::ReceivedDone => Record::ReceivedDone { session, packet_id: packet_id(reader)? },
        Kind::Session
        | Kind::Snapshot
        | Kind::RetainedGone
        | Kind::Message
        | Kind::Commit
        | Kind::OriginLog
        | Kind::Forward
        | Kind::Directed
        | Kind::PeerCursor
        | Kind::Applied => {
            return Err(DecodeError::Unknown(kind as u8));
        }
    })
}

fn message(mut reader: Reader<'_>) -> Result<MessageRecord<'_>, DecodeError> {
    let id = MessageId(reader.number()?);
    let mut stamp_time = [0; 8];
    for byte in &mut stamp_time {
        *byte = reader.u8()?;
    }
    let stamp_origin = reader.text()?;
    let received = WallTime(reader.number()?);
    let flags = reader.u8()?;
    if flags & !(MESSAGE_RETAINED | MESSAGE_SOURCES) != 0 {
        return Err(DecodeError::Unknown(flags));
    }
    let retained = flags & MESSAGE_RETAINED != 0;
    let from = match flags & MESSAGE_SOURCES {
        0 => None,
        MESSAGE_FROM_CLIENT => {
            Some(Source::Client { session: SessionId(reader.number()?), packet_id: packet_id(&mut reader)? })
        }
        MESSAGE_FROM_PEER => Some(Source::Peer { epoch: reader.number()?, seq: reader.number()? }),
        MESSAGE_OF_WILL => Some(Source::Will { will: SessionId(reader.number()?) }),
        _ => return Err(DecodeError::Unknown(flags)),
    };
    let stamp_time = u64::from_le_bytes(stamp_time);
    Ok(MessageRecord { id, stamp_time, stamp_origin, received, retained, from, publish: reader.rest() })
}

fn state<'a>(reader: &mut Reader<'a>) -> Result<SessionState<'a>, DecodeError> {
    let session = SessionId(reader.number()?);
    let client_id = text(reader)?;
    let flags = reader.u8()?;
    if flags & !(FLAG_USER | FLAG_WILL | FLAG_CONNECTED) != 0 {
        return Err(DecodeError::Unknown(flags));
    }
    let user = if flags & FLAG_USER == 0 { None } else { Some(text(reader)?) };
    let expiry = reader.small()?;
    let will = if flags & FLAG_WILL == 0 {
        None
    } else {
        Some(StoredWill { delay: reader.small()?, publish: Cow::Borrowed(reader.bytes()?) })
    };
    let at = WallTime(reader.number()?);
    Ok(SessionState { session, client_id, user, expiry, will, connected: flags & FLAG_CONNECTED != 0, at })
}

fn snapshot<'a>(reader: &mut Reader<'a>) -> Result<SessionSnapshot<'a>, DecodeError> {
    Ok(SessionSnapshot {
        state: state(reader)?,
        next_packet_id: packet_id(reader)?,
        subscriptions: reader.list(subscription)?,
        waiting: reader.list(waiting)?,
        inflight: reader.list(|reader| {
            let id = packet_id(reader)?;
            match reader.u8()? {
                0 => Ok((id, None)),
                1 => Ok((id, Some(waiting(reader)?))),
                other => Err(DecodeError::Unknown(other)),
            }
        })?,
        received: reader.list(packet_id)?,
    })
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, DecodeError> {
    reader.text().map(Cow::Borrowed)
}

fn packet_id(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    Ok(u16::from_le_bytes([reader.u8()?, reader.u8()?]))
}

fn subscription<'a>(reader: &mut Reader<'a>) -> Result<(Cow<'a, str>, u8, Option<u32>), DecodeError> {
    let filter = text(reader)?;
    let options = reader.u8()?;
    let id: u32 = reader.small()?;
    Ok((filter, options, (id != 0).then_some(id)))
}

fn waiting<'a>(reader: &mut Reader<'_>) -> Result<Waiting<'a>, DecodeError> {
    let message = MessageId(reader.number()?);
    let flags = reader.u8()?;
    let qos = QoS::from_bits(flags & WAITING_QOS).ok_or(DecodeError::Unknown(flags))?;
    if flags & !(WAITING_QOS | WAITING_RETAIN | WAITING_IDS) != 0 {
        return Err(DecodeError::Unknown(flags));
    }
    let ids = if flags & WAITING_IDS == 0 { Vec::new() } else { reader.list(Reader::small)? };
    Ok(Waiting { message, qos, retain: flags & WAITING_RETAIN != 0, ids: Cow::Owned(ids) })
}
