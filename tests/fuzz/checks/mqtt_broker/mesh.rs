//! No other brokers: what is published is written down in its order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use evermq_bridge::{Directions, Hold, Keeper, Message, Pressure, Recovered, Stamp};
use evermq_broker::backbone::{Backbone, Relief};
use evermq_mqtt::Publish;
use evermq_store::{Handle, Position, SegmentId};

#[derive(Default)]
pub(super) struct Mesh {
    time: AtomicU64,
    published: Mutex<Vec<Arc<Message>>>,
}

impl Mesh {
    /// What was published since the last time.
    pub(super) fn take(&self) -> Vec<Arc<Message>> {
        std::mem::take(&mut self.published.lock().expect("nobody panicked"))
    }
}

impl Backbone for Mesh {
    fn next_stamp(&self) -> Stamp {
        Stamp { time: self.time.fetch_add(1, Ordering::Relaxed) + 1, origin: "fuzz".into() }
    }

    fn next_stamps(&self, count: u64) -> Stamp {
        Stamp { time: self.time.fetch_add(count, Ordering::Relaxed) + 1, origin: "fuzz".into() }
    }

    fn recover(&self, _: Arc<dyn Keeper>, _: Recovered) {}

    fn keeps(&self, _: &Publish) -> bool {
        false
    }

    fn publish(
        &self,
        message: Arc<Message>,
        _: Option<Handle>,
        _: Option<Arc<Hold>>,
        _: Option<Directions>,
    ) -> (Pressure, Position) {
        self.published.lock().expect("nobody panicked").push(message);
        (Pressure::Clear, Position::default())
    }

    fn checkpoint(&self, _: SegmentId) {}

    fn is_alone(&self) -> bool {
        true
    }

    fn relieved(self: Arc<Self>) -> Relief {
        Box::pin(std::future::ready(()))
    }

    fn unacknowledged(&self) -> u64 {
        0
    }

    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
