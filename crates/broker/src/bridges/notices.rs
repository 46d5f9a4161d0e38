//! What the hosts of a bridge tell each other: how far they are. A message of the broker's own over the mesh, which no client
//! gets, in the order of all others.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use evermq_bridge::{Arrived, Directions, Message};
use evermq_config::HostName;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::forwarded::Marks;
use crate::broker::Broker;
use crate::mailbox::Wakes;

/// Below the cluster's own level.
const TOPIC: &str = "$EVERMQ/bridges/";
/// Words that wait; each is said again soon.
const WAITING: usize = 256;

/// Where they arrive, and what else has.
#[derive(Debug, Default)]
pub struct Notices(OnceLock<Heard>);

#[derive(Debug)]
struct Heard {
    words: mpsc::Sender<Arc<Message>>,
    /// The newest message of each other broker.
    latest: Mutex<Marks>,
}

/// What a host says of a bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// The bridge.
    pub bridge: String,
    /// The host.
    pub host: HostName,
    /// How far it was when it kept the connection last.
    pub marks: Marks,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    host: String,
    marks: std::collections::BTreeMap<String, u64>,
}

impl Notices {
    /// Begins to listen. Only one can.
    pub(super) fn listen(&self) -> Option<mpsc::Receiver<Arc<Message>>> {
        let (words, heard) = mpsc::channel(WAITING);
        self.0.set(Heard { words, latest: Mutex::default() }).ok()?;
        Some(heard)
    }

    /// Messages of another broker, in its order.
    pub fn note(&self, messages: &[Arrived]) {
        let Some(heard) = self.0.get() else { return };
        // One that was handed over went through another log, ahead of others or behind them.
        let is_own = |arrived: &&Arrived| !arrived.directions.as_ref().is_some_and(Directions::is_handed_over);
        if let Some(Arrived { message, .. }) = messages.iter().rfind(is_own) {
            heard.latest.lock().insert(Arc::clone(&message.stamp.origin), message.stamp.time);
        }
        for Arrived { message, .. } in messages {
            if message.publish.topic.as_str().starts_with(TOPIC) {
                // One that finds no room is said again.
                let _ = heard.words.try_send(Arc::clone(message));
            }
        }
    }

    /// The newest message of each broker that has come here; of this one, all until now.
    pub(super) fn latest(&self, broker: &Broker) -> Marks {
        let mut latest = self.0.get().map(|heard| heard.latest.lock().clone()).unwrap_or_default();
        let own = broker.backbone.next_stamp();
        latest.insert(own.origin, own.time);
        latest
    }
}

impl Word {
    /// What `message` says, if it is one.
    #[must_use]
    pub fn read(message: &Message) -> Option<Self> {
        let bridge = message.publish.topic.as_str().strip_prefix(TOPIC)?.to_owned();
        let payload: Payload = serde_json::from_slice(&message.publish.payload).ok()?;
        let marks = payload.marks.into_iter().map(|(origin, mark)| (Arc::from(origin), mark)).collect();
        Some(Self { bridge, host: HostName::new(&payload.host)?, marks })
    }

    /// Tells the others.
    pub(super) fn say(&self, broker: &Broker, now: Instant) {
        let Some(publish) = self.message() else { return };
        let mut wakes = Wakes::default();
        broker.publish_own(publish, now, &mut wakes);
        wakes.wake();
    }

    fn message(&self) -> Option<Publish> {
        let marks = self.marks.iter().map(|(origin, mark)| (origin.to_string(), *mark)).collect();
        let payload = serde_json::to_vec(&Payload { host: self.host.to_string(), marks }).ok()?;
        let topic = TopicName::new(Text::new(&format!("{TOPIC}{}", self.bridge)).ok()?).ok()?;
        let qos = QoS::AtMostOnce;
        Some(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: None,
            properties: None,
            payload: Bytes::from(payload),
        })
    }
}

#[cfg(test)]
mod tests {
    use evermq_bridge::Stamp;

    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_said() {
        let host = HostName::new("broker1").unwrap();
        let word = Word { bridge: "old".to_owned(), host, marks: Marks::from([("broker2".into(), 7)]) };
        let message = |publish| {
            let stamp = Stamp { time: 1, origin: "broker1".into() };
            Message { publish, stamp, received: crate::connection::clock(), publisher: None }
        };
        let said = word.message().unwrap();
        assert_eq!(Word::read(&message(said.clone())), Some(word));
        let odd = Publish { payload: Bytes::from_static(b"{}"), ..said };
        assert_eq!(Word::read(&message(odd)), None);
    }
}
