//! What this process has said lately, as others may ask for it: every line of level INFO or worse but those of the access log,
//! in a ring of [`KEPT`].
//!
//! A line is told by the message and the fields that the log has too, whatever `log_level` lets into the log.
//! [`layer`] fills the ring; who writes to it takes a lock for as long as copying one line takes, and never waits for a reader.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Lines that are kept.
pub const KEPT: usize = 512;
/// Fields of a line.
const MOST_FIELDS: usize = 16;
/// Bytes of a message or a field's value; the rest is left out.
const LONGEST: usize = 1024;
/// The target of the lb's line for each connection.
const ACCESS_LOG: &str = "access";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up by one from 1 in each process.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The part of the program that says it.
    #[serde(default)]
    pub target: String,
    /// What happened.
    pub message: String,
    /// The particulars: `from`, `to`, `reason` and their like. A field's value is a text, a number or a truth value.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// What a process answers who asks for its lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The process: its identifier in the system and when it began to keep lines, in milliseconds since 1970. Another process's
    /// numbers begin anew.
    pub process: (u32, u64),
    /// The number of the last line there is; 0 where there is none.
    pub last: u64,
    /// Those after the one that was named, the oldest first.
    pub events: Vec<Entry>,
}

struct Ring {
    since_ms: u64,
    last: u64,
    entries: VecDeque<Entry>,
}

static RING: LazyLock<Mutex<Ring>> =
    LazyLock::new(|| Mutex::new(Ring { since_ms: now_ms(), last: 0, entries: VecDeque::with_capacity(KEPT) }));

/// Fills the ring.
pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let told = |metadata: &Metadata<'_>| *metadata.level() <= Level::INFO && metadata.target() != ACCESS_LOG;
    Keeper.with_filter(FilterFn::new(told as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::INFO))
}

/// The lines after number `after`.
#[must_use]
pub fn after(after: u64) -> Page {
    let ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
    Page {
        process: (std::process::id(), ring.since_ms),
        last: ring.last,
        events: ring.entries.iter().filter(|entry| entry.id > after).cloned().collect(),
    }
}

/// The answer to the control request `events`, with `after`.
pub(crate) fn answer(request: &Value) -> Value {
    json!(after(request["after"].as_u64().unwrap_or(0)))
}

struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Fields::default();
        event.record(&mut seen);
        let metadata = event.metadata();
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        if ring.entries.len() == KEPT {
            ring.entries.pop_front();
        }
        let entry = Entry {
            id: ring.last,
            time_ms: now_ms(),
            level: metadata.level().as_str().to_ascii_lowercase(),
            target: metadata.target().to_owned(),
            message: seen.message,
            fields: seen.fields,
        };
        ring.entries.push_back(entry);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    fields: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().unwrap_or_default().to_owned();
        } else if self.fields.len() < MOST_FIELDS {
            self.fields.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::String(short(format!("{value:?}"))));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::String(short(value.to_owned())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "when it happened, for people on several hosts")]
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What the ring has of `run`, of whichever test: the ring is the process's.
    fn told(run: impl FnOnce()) -> Vec<Entry> {
        let before = after(u64::MAX).last;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer()), run);
        after(before).events.into_iter().filter(|entry| entry.target == "a test of the ring").collect()
    }

    #[test]
    fn the_ring_has_what_matters_with_its_fields_and_no_more_than_it_may() {
        let entries = told(|| {
            tracing::debug!(target: "a test of the ring", "too small");
            tracing::info!(target: "access", "a connection");
            tracing::info!(target: "a test of the ring", from = "backup", to = %"master", took = 7_u64, "VRRP state");
            tracing::warn!(target: "a test of the ring", text = "ü".repeat(LONGEST), "long");
        });
        let [moved, long] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((moved.level.as_str(), moved.message.as_str()), ("info", "VRRP state"));
        assert_eq!(Value::from(moved.fields.clone()), json!({ "from": "backup", "to": "master", "took": 7 }));
        assert!(moved.time_ms > 1_700_000_000_000);
        assert_eq!((long.level.as_str(), long.id > moved.id), ("warn", true));
        assert_eq!(long.fields["text"].as_str().map(str::len), Some(LONGEST));

        let last =
            told(|| (0..KEPT + 5).for_each(|number| tracing::info!(target: "a test of the ring", number, "again")));
        assert_eq!(last.len(), KEPT);
        assert_eq!(last[KEPT - 1].fields["number"], KEPT + 4);
        let page = after(last[KEPT - 3].id);
        assert_eq!(page.events.last(), last.last());
        let read: Page = serde_json::from_value(answer(&json!({ "after": last[KEPT - 3].id }))).unwrap();
        assert_eq!(read.events, page.events);
    }
}
