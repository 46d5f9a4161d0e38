//! What tests write.

use std::borrow::Cow;

use bytes::Bytes;
use evermq_mqtt::{Publish, QoS, Text, TopicName};

use crate::record::{MessageId, Record, SessionId, SessionState, StoredMessage, Waiting, WallTime};

/// A plain message.
pub(crate) fn publish(topic: &str, payload: &str) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

/// It as it is given to the store.
pub(crate) fn stored(publish: &Publish, stamp_time: u64, retained: bool) -> StoredMessage<'_> {
    StoredMessage { publish, stamp_time, stamp_origin: "broker-1", received: WallTime(1000), retained, from: None }
}

/// A session without a will.
pub(crate) fn state(session: SessionId, client_id: &str) -> SessionState<'_> {
    SessionState {
        session,
        client_id: Cow::Borrowed(client_id),
        user: None,
        expiry: 3600,
        will: None,
        connected: true,
        at: WallTime(1),
    }
}

/// A message waits at QoS 1.
pub(crate) fn enqueue(session: SessionId, message: MessageId) -> Record<'static> {
    let waiting = Waiting { message, qos: QoS::AtLeastOnce, retain: false, ids: Cow::Owned(Vec::new()) };
    Record::Enqueue { session, waiting }
}
