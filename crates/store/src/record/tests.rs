use std::borrow::Cow;
use std::num::NonZeroU32;

use bytes::Bytes;
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Text, TopicName};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::frame::Kind;

fn session_id() -> impl Strategy<Value = SessionId> {
    any::<u64>().prop_map(SessionId)
}

fn message_id() -> impl Strategy<Value = MessageId> {
    any::<u64>().prop_map(MessageId)
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    "\\PC{0,20}".prop_map(Cow::Owned)
}

fn waiting() -> impl Strategy<Value = Waiting<'static>> {
    (message_id(), 0..3_u8, any::<bool>(), vec(any::<u32>(), 0..3)).prop_map(|(message, qos, retain, ids)| Waiting {
        message,
        qos: QoS::from_bits(qos).unwrap_or_default(),
        retain,
        ids: Cow::Owned(ids),
    })
}

fn state() -> impl Strategy<Value = SessionState<'static>> {
    let will = (any::<u32>(), vec(any::<u8>(), 0..40))
        .prop_map(|(delay, publish)| StoredWill { delay, publish: Cow::Owned(publish) });
    (session_id(), text(), option::of(text()), any::<u32>(), option::of(will), any::<bool>(), any::<u64>()).prop_map(
        |(session, client_id, user, expiry, will, connected, at)| SessionState {
            session,
            client_id,
            user,
            expiry,
            will,
            connected,
            at: WallTime(at),
        },
    )
}

fn subscription() -> impl Strategy<Value = (Cow<'static, str>, u8, Option<u32>)> {
    (text(), any::<u8>(), option::of(1..u32::MAX))
}

fn snapshot() -> impl Strategy<Value = Record<'static>> {
    (
        state(),
        any::<u16>(),
        vec(subscription(), 0..4),
        vec(waiting(), 0..4),
        vec((any::<u16>(), option::of(waiting())), 0..4),
        vec(any::<u16>(), 0..4),
    )
        .prop_map(|(state, next_packet_id, subscriptions, waiting, inflight, received)| {
            Record::Snapshot(Box::new(SessionSnapshot {
                state,
                next_packet_id,
                subscriptions,
                waiting,
                inflight,
                received,
            }))
        })
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        (session_id(), any::<u16>()).prop_map(|(session, packet_id)| Source::Client { session, packet_id }),
        (any::<u64>(), any::<u64>()).prop_map(|(epoch, seq)| Source::Peer { epoch, seq }),
        session_id().prop_map(|will| Source::Will { will }),
    ]
}

pub(crate) fn record() -> impl Strategy<Value = Record<'static>> {
    let id = || any::<u16>();
    prop_oneof![
        state().prop_map(Record::Session),
        session_id().prop_map(|session| Record::SessionEnd { session }),
        (session_id(), subscription()).prop_map(|(session, (filter, options, id))| Record::Subscribe {
            session,
            filter,
            options,
            id
        }),
        (session_id(), text()).prop_map(|(session, filter)| Record::Unsubscribe { session, filter }),
        (session_id(), waiting()).prop_map(|(session, waiting)| Record::Enqueue { session, waiting }),
        (session_id(), session_id(), waiting()).prop_map(|(from, session, waiting)| Record::Moved {
            from,
            session,
            waiting
        }),
        (session_id(), message_id(), id()).prop_map(|(session, message, packet_id)| Record::Sent {
            session,
            message,
            packet_id
        }),
        (session_id(), id()).prop_map(|(session, packet_id)| Record::Released { session, packet_id }),
        (session_id(), id()).prop_map(|(session, packet_id)| Record::Done { session, packet_id }),
        (session_id(), message_id()).prop_map(|(session, message)| Record::Dropped { session, message }),
        (session_id(), id()).prop_map(|(session, packet_id)| Record::Received { session, packet_id }),
        (session_id(), id()).prop_map(|(session, packet_id)| Record::ReceivedDone { session, packet_id }),
        snapshot(),
        text().prop_map(|topic| Record::RetainedGone { topic }),
        any::<[u64; 4]>().prop_map(|[epoch, reserved, first, kept]| Record::OriginLog(OriginLog {
            epoch,
            reserved,
            first,
            kept
        })),
        (any::<u64>(), message_id(), option::of(1..u64::MAX), vec(any::<u8>(), 0..40)).prop_map(
            |(seq, message, giver, directions)| Record::Forward {
                seq,
                message,
                giver: giver.map(SessionId),
                directions: Cow::Owned(directions)
            }
        ),
        (text(), any::<u64>()).prop_map(|(peer, seq)| Record::PeerCursor { peer, seq }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(origin, epoch, seq)| Record::Applied { origin, epoch, seq }),
        (session_id(), session_id(), vec(any::<u8>(), 0..40)).prop_map(|(will, session, publish)| Record::WillDue {
            will,
            session,
            publish: Cow::Owned(publish)
        }),
        session_id().prop_map(|will| Record::WillSent { will }),
    ]
}

proptest! {
    #[test]
    fn records_come_back(record in record()) {
        let mut out = BytesMut::new();
        let kind = encode(&record, &mut out);
        prop_assert_eq!(decode(kind, &out), Ok(Entry::Record(record)));
        let longer = [&out[..], &[0]].concat();
        prop_assert!(decode(kind, &longer).is_err());
        prop_assert!(decode(kind, &out[..out.len() - 1]).is_err());
    }

    #[test]
    fn messages_come_back(id: u64, stamp_time: u64, received: u64, retained: bool, qos in 0..3_u8, payload: Vec<u8>,
        from in option::of(source()), origin in "\\PC{0,9}", topic in "[a-z/]{1,20}", ids in vec(1..9_u32, 0..3)) {
        let properties = PublishProperties {
            message_expiry: Some(7),
            user_properties: vec![(Text::new("name").unwrap(), Text::new("value").unwrap())],
            subscription_ids: ids.iter().filter_map(|id| NonZeroU32::new(*id)).collect(),
            ..PublishProperties::default()
        };
        let publish = Publish {
            dup: false,
            qos: QoS::from_bits(qos).unwrap(),
            retain: retained,
            topic: TopicName::new(Text::new(&topic).unwrap()).unwrap(),
            packet_id: None,
            properties: (!ids.is_empty()).then(|| Box::new(properties)),
            payload: Bytes::from(payload),
        };
        let received = WallTime(received);
        let message = StoredMessage { publish: &publish, stamp_time, stamp_origin: &origin, received, retained, from };
        let mut out = BytesMut::new();
        encode_message(MessageId(id), &message, retained, from, &mut out).unwrap();
        let Ok(Entry::Message(read)) = decode(Kind::Message, &out) else { panic!("no message") };
        prop_assert_eq!((read.id, read.stamp_time, read.stamp_origin), (MessageId(id), stamp_time, &*origin));
        prop_assert_eq!((read.received, read.retained, read.from), (received, retained, from));
        prop_assert_eq!(topic_of(read.publish), Some(&*topic));
        prop_assert_eq!(decode_publish(read.publish), Ok(publish));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(kind in prop::sample::select(&Kind::ALL[..]), bytes: Vec<u8>) {
        if let Ok(Entry::Message(message)) = decode(kind, &bytes) {
            let _ = (topic_of(message.publish), decode_publish(message.publish));
        }
        let _ = topic_of(&bytes);
    }
}

#[test]
fn a_packet_identifier_and_dup_are_not_kept() {
    let publish = Publish {
        dup: true,
        packet_id: Some(PacketId(std::num::NonZeroU16::MAX)),
        ..crate::tests::sample::publish("a", "b")
    };
    let mut out = BytesMut::new();
    encode_publish(&publish, &mut out).unwrap();
    assert_eq!(decode_publish(&out), Ok(crate::tests::sample::publish("a", "b")));
    assert_eq!(decode_publish(&out[..out.len() - 1]), Err(DecodeError::Publish));
    out.extend_from_slice(b"x");
    assert_eq!(decode_publish(&out), Err(DecodeError::Publish));
}
