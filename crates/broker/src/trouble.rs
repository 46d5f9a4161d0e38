//! What an operator is to know of this broker at once: its store has no room, has failed, or was damaged when it was opened;
//! it does not let clients in yet; another broker is away, or loses messages.
//!
//! One task of the caller's runtime looks at it, so that `evermq status` says so; it ends with its token.

use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::health::Health;
use evermq_store::Status;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

/// How often is looked: a person or a monitor asks no more often than that.
const LOOK: Duration = Duration::from_millis(250);

/// What is wrong and what to do about it, the worst first.
#[must_use]
pub fn of(broker: &Broker) -> Option<String> {
    of_store(broker).or_else(|| broker.gate.reason()).or_else(|| broker.backbone.alarm())
}

fn of_store(broker: &Broker) -> Option<String> {
    let store = broker.journal.as_ref()?.store();
    let full_or_failed = || store.trouble().map(|trouble| trouble.text);
    let present = match store.status() {
        Status::Ready | Status::Slow => None,
        Status::Full => full_or_failed().map(|text| format!("messages of QoS 1 and 2 are refused: {text}")),
        Status::Failed => full_or_failed(),
    };
    present.or_else(|| {
        let damaged = store.figures().damaged_bytes;
        (damaged > 0).then(|| {
            format!(
                "{damaged} bytes of the store were damaged when this broker started, and the rest is served: its log says what \
                 was lost, `evermq store check` where; look at the disk; said until the next start"
            )
        })
    })
}

/// How the store is, for the control socket.
#[must_use]
pub fn store(broker: &Broker) -> Value {
    let Some(journal) = &broker.journal else { return Value::Null };
    let store = journal.store();
    let status = match store.status() {
        Status::Ready => "ready",
        Status::Slow => "slow",
        Status::Full => "full",
        Status::Failed => "failed",
    };
    let figures = store.figures();
    let since = store.trouble().map(|trouble| trouble.since.0);
    json!({
        "state": status,
        "since_ms": since,
        "bytes": figures.bytes,
        "damaged_bytes": figures.damaged_bytes,
    })
}

/// Keeps `health` true, but for a broker that stops, until `end`.
pub async fn watch(broker: Arc<Broker>, health: watch::Sender<Health>, end: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let trouble = of(&broker);
        let now = if trouble.is_some() { Health::Degraded } else { Health::Up };
        let changed = health.send_if_modified(|health| {
            let is_other = *health != now && *health != Health::Down;
            if is_other {
                *health = now;
            }
            is_other
        });
        if changed {
            let (from, to) = if trouble.is_some() { ("up", "degraded") } else { ("degraded", "up") };
            tracing::info!(from, to, reason = trouble, "health");
        }
    }
}
