//! Sessions without a connection: when their will is due or they expire.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::mailbox::Mailbox;

/// How often expired retained messages and old deletions are forgotten. They are not served meanwhile.
const SWEEP: Duration = Duration::from_secs(60);

/// Deadlines of sessions, one at most for each.
#[derive(Debug, Default)]
pub struct Expiry {
    deadlines: Mutex<Deadlines>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Deadlines {
    by_time: BTreeMap<(Instant, u64), Weak<Mailbox>>,
    by_key: HashMap<u64, Instant>,
}

impl Expiry {
    /// Remembers that `mailbox` has something to do at `deadline`.
    pub fn watch(&self, mailbox: &Arc<Mailbox>, deadline: Instant) {
        let mut deadlines = self.deadlines.lock();
        deadlines.remove(mailbox.key());
        let is_first = deadlines.by_time.first_key_value().is_none_or(|((first, _), _)| deadline < *first);
        deadlines.by_time.insert((deadline, mailbox.key()), Arc::downgrade(mailbox));
        deadlines.by_key.insert(mailbox.key(), deadline);
        drop(deadlines);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Forgets `mailbox`.
    pub fn forget(&self, mailbox: &Mailbox) {
        self.deadlines.lock().remove(mailbox.key());
    }

    /// Takes out those whose deadline has come, in its order.
    pub fn due(&self, now: Instant) -> Vec<Arc<Mailbox>> {
        let mut deadlines = self.deadlines.lock();
        let mut due = Vec::new();
        while let Some(entry) = deadlines.by_time.first_entry() {
            let (deadline, key) = *entry.key();
            if deadline > now {
                break;
            }
            due.extend(entry.remove().upgrade());
            deadlines.by_key.remove(&key);
        }
        due
    }

    fn next(&self) -> Option<Instant> {
        self.deadlines.lock().by_time.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

impl Deadlines {
    fn remove(&mut self, key: u64) {
        if let Some(deadline) = self.by_key.remove(&key) {
            self.by_time.remove(&(deadline, key));
        }
    }
}

/// Keeps the sessions' time until `shutdown`. Every wait here can be dropped at any time.
pub async fn run(broker: Arc<Broker>, shutdown: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let next = broker.expiry.next();
        let deadline = async move {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = broker.expiry.changed.notified() => {}
            () = deadline => broker.expire(tokio::time::Instant::now().into_std()),
            _ = sweep.tick() => broker.router.sweep(tokio::time::Instant::now().into_std()),
        }
    }
}
