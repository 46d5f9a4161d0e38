use bytes::Bytes;
use evermq_bridge::Stamp;
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use proptest::prelude::*;

use super::*;

fn at(topic: &str, time: u64, payload: &'static str, received: Instant) -> Arc<Message> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::from_static(payload.as_bytes()),
    };
    Arc::new(Message { publish, stamp: Stamp { time, origin: "here".into() }, received, publisher: None })
}

fn now() -> Instant {
    crate::connection::clock()
}

fn payloads(store: &Retained, filter: &str, now: Instant) -> Vec<String> {
    let filter = TopicFilter::new(Text::new(filter).unwrap()).unwrap();
    let mut found: Vec<_> = matching(store, &filter, now)
        .iter()
        .map(|message| String::from_utf8(message.publish.payload.to_vec()).unwrap())
        .collect();
    found.sort();
    found
}

fn matching(store: &Retained, filter: &TopicFilter, now: Instant) -> Vec<Arc<Message>> {
    let mut all = Vec::new();
    store.matching(filter, now, |found| all.extend(found.drain(..).map(|shared| shared.to_message())));
    all
}

fn store_of(messages: usize) -> Retained {
    Retained::new(Bounds { messages, bytes: 10_000 })
}

fn keep(store: &Retained, message: &Message) -> Kept {
    store.keep(message, || Shared::new(Arc::new(message::detach(message)), false))
}

#[test]
fn the_newer_stamp_wins_whatever_comes_first() {
    let (store, now) = (store_of(10), now());
    assert_eq!(keep(&store, &at("a", 2, "new", now)), Kept::Kept);
    assert_eq!(keep(&store, &at("a", 1, "old", now)), Kept::Older);
    assert_eq!(keep(&store, &at("a", 2, "same", now)), Kept::Older);
    assert_eq!(payloads(&store, "a", now), ["new"]);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_deletion_is_remembered_for_a_while() {
    let (store, now) = (store_of(10), now());
    keep(&store, &at("a", 1, "x", now));
    keep(&store, &at("a", 3, "", now));
    assert_eq!(store.len(), 0);
    assert_eq!(payloads(&store, "#", now), Vec::<String>::new());
    assert_eq!(keep(&store, &at("a", 2, "late", now)), Kept::Older);
    assert_eq!(store.all().len(), 1, "a peer is told of it");
    store.sweep(now + DELETION_LIFE - Duration::from_secs(1), |_| {});
    assert_eq!(store.all().len(), 1);
    store.sweep(now + DELETION_LIFE, |_| {});
    assert_eq!(store.all().len(), 0);
}

#[test]
fn expired_messages_are_neither_found_nor_kept() {
    let (store, now) = (store_of(10), now());
    let mut message = at("a", 1, "x", now);
    let properties = PublishProperties { message_expiry: Some(5), ..PublishProperties::default() };
    Arc::make_mut(&mut message).publish.properties = Some(Box::new(properties));
    keep(&store, &message);
    assert_eq!(payloads(&store, "a", now + Duration::from_secs(4)), ["x"]);
    assert!(payloads(&store, "a", now + Duration::from_secs(5)).is_empty());
    store.sweep(now + Duration::from_secs(5), |_| {});
    assert!(store.is_empty());
}

#[test]
fn a_full_store_takes_no_new_topic() {
    let (store, now) = (store_of(2), now());
    keep(&store, &at("a", 1, "a", now));
    keep(&store, &at("b", 2, "b", now));
    assert_eq!(keep(&store, &at("c", 3, "c", now)), Kept::Full);
    assert_eq!(keep(&store, &at("a", 4, "a2", now)), Kept::Kept);
    keep(&store, &at("b", 5, "", now));
    assert_eq!(keep(&store, &at("c", 6, "c", now)), Kept::Kept);
    assert_eq!(payloads(&store, "#", now), ["a2", "c"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_finds_what_it_matches(
        topics in prop::collection::btree_set("(\\$?[a0!]{0,2})(/[a0!]{0,2}){0,3}", 0..60),
        filters in prop::collection::vec("(\\+|\\$?[a0!]{0,2})(/(\\+|[a0!]{0,2})){0,3}(/#)?", 1..20),
    ) {
        let (store, now) = (store_of(100), now());
        let messages: Vec<_> = topics.iter().filter(|topic| !topic.is_empty()).map(|topic| at(topic, 1, "x", now)).collect();
        for message in &messages {
            keep(&store, message);
        }
        for filter in filters.into_iter().filter(|filter| !filter.is_empty()).chain(["#".to_owned()]) {
            let filter = TopicFilter::new(Text::new(&filter).unwrap()).unwrap();
            let sorted = |mut topics: Vec<String>| { topics.sort(); topics };
            let found = sorted(matching(&store, &filter, now).iter().map(|message| message.publish.topic.to_string()).collect());
            let expected = sorted(
                messages.iter().map(|message| &message.publish.topic).filter(|topic| filter.matches(topic)).map(ToString::to_string).collect(),
            );
            prop_assert_eq!(found, expected, "{}", filter);
        }
    }
}
