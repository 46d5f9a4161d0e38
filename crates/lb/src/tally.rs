//! What connections that have ended leave behind: a line in the access log, and figures by listener and backend.
//!
//! Each worker has its own figures, in cache lines that no other one writes; whoever shows them adds up. The lock around the
//! names is a worker's own too, but for the moment in which figures are shown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use evermq_daemon::metrics::{Counts, Histogram};

use crate::access_log::{Hand, Record, Times};
use crate::engine::ended::{Begun, Ended, Sink, Why};

const WHYS: usize = Why::ALL.len();
/// Workers beyond so many share.
const SHARDS: usize = 64;

/// Of which kind a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    Backend,
}

/// One worker's figures of one listener or backend.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Tally {
    ended: [AtomicU64; WHYS],
    greeting: Histogram,
    queue: Histogram,
    connect: Histogram,
    handshake: Histogram,
}

/// The figures of one listener or backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    ended: [u64; WHYS],
    /// Until the client had said what it wants.
    pub(crate) greeting: Counts,
    /// From there until a backend was chosen.
    pub(crate) queue: Counts,
    /// From there until the backend had taken the connection.
    pub(crate) connect: Counts,
    /// From there until the handshake was over.
    pub(crate) handshake: Counts,
}

/// The figures of all workers.
#[derive(Debug, Default)]
pub(crate) struct Books {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    listeners: HashMap<Box<str>, Arc<Tally>>,
    backends: HashMap<Box<str>, Arc<Tally>>,
}

/// Keeps the books, and hands on to the access log.
#[derive(Debug)]
pub(crate) struct Recorder {
    books: Arc<Books>,
    log: Hand,
}

impl Books {
    /// Empty ones.
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// What all workers have counted under a name.
    pub(crate) fn sums(&self, kind: Kind, name: &str) -> Sums {
        let tally = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.names(kind).get(name).cloned()
        };
        self.shards.iter().filter_map(tally).fold(Sums::default(), |sums, tally| sums.plus(&tally))
    }

    fn tally(&self, connection: u64, kind: Kind, name: &str) -> Arc<Tally> {
        // The lowest bits of a connection's number are its worker's.
        let index = usize::try_from(connection % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        let names = shard.names(kind);
        if let Some(tally) = names.get(name) {
            return Arc::clone(tally);
        }
        Arc::clone(names.entry(name.into()).or_default())
    }
}

impl Shard {
    fn names(&mut self, kind: Kind) -> &mut HashMap<Box<str>, Arc<Tally>> {
        match kind {
            Kind::Listener => &mut self.listeners,
            Kind::Backend => &mut self.backends,
        }
    }
}

impl Recorder {
    pub(crate) const fn new(books: Arc<Books>, log: Hand) -> Self {
        Self { books, log }
    }

    /// The backend's name is apart: a member is not made up.
    fn count(&self, ended: &Ended<'_>, backend: Option<&str>) {
        let both = [Some((Kind::Listener, ended.listener_name)), backend.map(|name| (Kind::Backend, name))];
        for (kind, name) in both.into_iter().flatten() {
            let tally = self.books.tally(ended.id, kind, name);
            tally.ended[ended.why as usize].fetch_add(1, Ordering::Relaxed);
            // Of others the times are known already.
            if ended.handshaken.is_none() {
                tally.observe(&Times::of(ended));
            }
        }
    }
}

impl Sink for Recorder {
    fn begun(&self, begun: &Begun<'_>) {
        let times = Times::of_begun(begun);
        self.books.tally(begun.id, Kind::Listener, begun.listener_name).observe(&times);
        self.books.tally(begun.id, Kind::Backend, begun.backend.name()).observe(&times);
    }

    fn ended(&self, ended: &Ended<'_>) {
        self.count(ended, ended.backend.map(|member| member.name()));
        if self.log.is_on() {
            self.log.write(Box::new(Record::of(ended)));
        }
    }
}

impl Tally {
    fn observe(&self, times: &Times) {
        let parts = [
            (&self.greeting, times.greeting),
            (&self.queue, times.queue),
            (&self.connect, times.connect),
            (&self.handshake, times.handshake),
        ];
        for (histogram, time) in parts {
            if let Some(time) = time {
                histogram.observe(time);
            }
        }
    }
}

impl Sums {
    /// How many have ended for that reason.
    pub(crate) fn ended(&self, why: Why) -> u64 {
        self.ended[why as usize]
    }

    fn plus(mut self, tally: &Tally) -> Self {
        for (sum, counter) in self.ended.iter_mut().zip(&tally.ended) {
            *sum += counter.load(Ordering::Relaxed);
        }
        self.greeting = self.greeting.plus(tally.greeting.counts());
        self.queue = self.queue.plus(tally.queue.counts());
        self.connect = self.connect.plus(tally.connect.counts());
        self.handshake = self.handshake.plus(tally.handshake.counts());
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evermq_config::cluster::LogFormat;

    use super::*;
    use crate::access_log::{AccessLog, Target, example};

    #[test]
    fn numbers_of_reasons_are_their_places() {
        for (place, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place, "{why}");
        }
    }

    #[test]
    fn workers_add_up_by_listener_and_backend() {
        let log = AccessLog::start(Target::Off, LogFormat::Text).unwrap();
        let books = Arc::new(Books::new());
        let recorder = Recorder::new(Arc::clone(&books), log.hand());
        // What was told when the handshake was through is not counted again at the end.
        recorder.count(&example(), Some("broker1"));
        let early = || Ended { handshaken: None, ..example() };
        recorder.count(&Ended { id: 8, ..early() }, Some("broker1"));
        recorder.ended(&Ended { id: 8, why: Why::NotTls, connected: None, placed: None, ..early() });

        let main = books.sums(Kind::Listener, "main");
        assert_eq!((main.ended(Why::ClientClosed), main.ended(Why::NotTls), main.ended(Why::Idle)), (2, 1, 0));
        assert_eq!((main.greeting.total(), main.connect.total(), main.handshake.total()), (2, 1, 0));
        let broker = books.sums(Kind::Backend, "broker1");
        assert_eq!((broker.ended(Why::ClientClosed), broker.ended(Why::NotTls)), (2, 0));
        assert_eq!(broker.connect.sum(), Duration::from_micros(499));
        assert_eq!(books.sums(Kind::Backend, "main"), Sums::default());
        log.finish();
    }
}
