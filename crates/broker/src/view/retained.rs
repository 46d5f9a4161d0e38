//! Retained messages.

use std::sync::Arc;
use std::time::Instant;

use evermq_bridge::Message;
use evermq_mqtt::{Publish, QoS, Text, TopicFilter, TopicName};
use serde_json::{Value, json};

use super::limit;
use crate::broker::Broker;
use crate::mailbox::Wakes;
use crate::retained::Mark;
use crate::session::{is_bridge_state, is_reserved};
use crate::trace::packet::payload;

/// A page of them: those that `filter` matches, all if there is none.
///
/// # Errors
/// The request is none.
pub fn page(broker: &Broker, request: &Value, now: Instant) -> Result<(Vec<Value>, Value), String> {
    let filter = request["filter"].as_str().unwrap_or("#");
    let filter = Text::new(filter).ok().and_then(|text| TopicFilter::new(text).ok());
    let filter = filter.filter(|filter| filter.share().is_none());
    let filter = filter.ok_or("`filter` must be a topic filter")?;
    let mark = &request["from"];
    let from = match (mark, mark[0].as_u64(), mark[1].as_str(), mark[2].as_bool()) {
        (Value::Null, ..) => Mark::default(),
        (_, Some(shard), Some(topic), Some(after)) => {
            Mark { shard: usize::try_from(shard).unwrap_or(usize::MAX), topic: Some(topic.to_owned()), after }
        }
        _ => return Err("`from` must be what `next` of the page before was".to_owned()),
    };
    let values = request["values"] == true;
    let (found, next) = broker.router.retained_page(&filter, from, limit(request), now);
    let rows = found.iter().map(|message| row(message, values, now)).collect();
    Ok((rows, next.map_or(Value::Null, |mark| json!([mark.shard, mark.topic, mark.after]))))
}

/// Deletes a topic's retained message here and on the other brokers, as a client would: subscribers see that it is gone.
/// Whether there was one.
///
/// # Errors
/// That is no topic name, or one of the broker's own.
pub fn forget(broker: &Broker, topic: &str, now: Instant) -> Result<bool, String> {
    let wrong = || format!("\"{topic}\" is no topic name that clients can publish to");
    let text = Text::new(topic).map_err(|_| wrong())?;
    let filter = TopicFilter::new(text.clone()).map_err(|_| wrong())?;
    let name = TopicName::new(text).map_err(|_| wrong())?;
    if is_reserved(&name) && !is_bridge_state(&name) {
        return Err(wrong());
    }
    let (found, _) = broker.router.retained_page(&filter, Mark::default(), 1, now);
    if found.is_empty() {
        return Ok(false);
    }
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: name,
        packet_id: None,
        properties: None,
        payload: bytes::Bytes::new(),
    };
    tracing::info!(topic, "an operator deletes a retained message");
    broker.publish_own(publish, now, &mut Wakes::default());
    Ok(true)
}

fn row(message: &Arc<Message>, values: bool, now: Instant) -> Value {
    let publish = &message.publish;
    let age = now.saturating_duration_since(message.received);
    let mut row = json!({
        "topic": publish.topic.as_str(),
        "qos": publish.qos as u8,
        "bytes": publish.payload.len(),
        "age_ms": u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        "expires_in_ms": crate::message::expiry(message)
            .map(|interval| u64::try_from(interval.saturating_sub(age).as_millis()).unwrap_or(u64::MAX)),
        "origin": &*message.stamp.origin,
    });
    if values {
        let (shown, truncated) = payload(&publish.payload);
        row["payload"] = shown;
        row["payload_truncated"] = truncated.into();
    }
    row
}
