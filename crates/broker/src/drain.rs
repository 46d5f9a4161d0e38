//! An operator empties this broker, so that it can be stopped: its clients go to the others, so many in a second.
//!
//! ```text
//!            asked for           lbs have heard           last client gone, peers have everything
//!   Ready ─────────────▶ Announced ─────────▶ Draining ─────────────────────────────▶ Drained: it may be stopped
//!     ▲                      │                  │   ▲ no other broker is linked: all stay       │
//!     └──────────────────────┴──────────────────┴───┴─────────────────────────────────────────┘  undone, or the broker stops
//! ```
//!
//! A client of MQTT 5.0 gets DISCONNECT with 0x9C (Use another server), or with 0x9D (Server moved) where the operator says
//! that this one will not be back; others are closed. Their wills do not go out, their sessions stay here. Who comes all the
//! same, past the lbs or before they have heard, is refused with the same word in CONNACK.
//!
//! One task of the driver's ([`run`]); what it needs from the operator and what it shows is in [`Drain`]. [`Pace`] is pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evermq_bridge::Bridge;
use evermq_daemon::cluster_topics::Readiness;
use evermq_mqtt::ReasonCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::bridges::identity::is_reserved;
use crate::broker::Broker;
use crate::connection::clock;
use crate::mailbox::Mailbox;

/// Clients in a second where the operator does not say how many.
pub const RATE: u32 = 10;
/// How long the lbs have to hear of it before the first client goes.
const ANNOUNCEMENT: Duration = Duration::from_millis(100);
/// The shortest time between two clients; higher rates send several at once.
const TICK: Duration = Duration::from_millis(20);
/// Between two looks at who is still here.
const LOOK: Duration = Duration::from_millis(250);

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Clients in a second, at least one.
    pub rate: u32,
    /// What they are told.
    pub reason: ReasonCode,
}

/// What is wanted, and how far it is.
#[derive(Debug)]
pub struct Drain {
    order: watch::Sender<Option<Order>>,
    /// What those are told who connect.
    turned_away: Mutex<Option<ReasonCode>>,
    /// Whether there is another broker for them.
    has_refuge: AtomicBool,
    /// Clients that were told to go since it began.
    told: AtomicU64,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            order: watch::Sender::new(None),
            turned_away: Mutex::default(),
            has_refuge: AtomicBool::new(true),
            told: AtomicU64::new(0),
        }
    }
}

impl Drain {
    /// The operator wants this from now on: none for no drain.
    pub fn set(&self, order: Option<Order>) {
        self.order.send_if_modified(|held| {
            if held.is_none() {
                self.told.store(0, Ordering::Relaxed);
            }
            std::mem::replace(held, order) != order
        });
    }

    /// Whether the operator wants it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.order.borrow().is_some()
    }

    /// What a client that connects is refused with, if it is.
    #[must_use]
    pub fn turns_away(&self) -> Option<ReasonCode> {
        *self.turned_away.lock()
    }
}

/// So many in a second, evenly.
#[derive(Debug)]
struct Pace {
    due: Instant,
}

impl Pace {
    /// How many are due. What was missed for more than a tenth of a second is not made up for.
    fn take(&mut self, rate: u32, now: Instant) -> usize {
        if now < self.due {
            return 0;
        }
        let each = Duration::from_secs(1) / rate.max(1);
        let late = now.saturating_duration_since(self.due);
        let due = usize::try_from(late.as_nanos() / each.as_nanos().max(1)).unwrap_or(usize::MAX).saturating_add(1);
        let most = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
        let count = due.min(most);
        let paid = each * u32::try_from(count).unwrap_or(u32::MAX);
        self.due = if due > most { now + each } else { self.due + paid };
        count
    }
}

/// How it is, for the control socket; `null` where no drain is wanted.
#[must_use]
pub fn state(broker: &Broker) -> Value {
    let Some(order) = *broker.drain.order.borrow() else { return Value::Null };
    let left = clients(broker);
    let bridge = broker.backbone.state();
    let lag = |connected: bool| -> u64 {
        let peers = bridge["peers"].as_array().into_iter().flatten();
        peers.filter(|peer| peer["connected"] == connected).filter_map(|peer| peer["lag"].as_u64()).sum()
    };
    let unacknowledged = lag(true);
    let is_drained = left == 0;
    json!({
        "state": if is_drained { "drained" } else { "draining" },
        "clients": left,
        "rate": order.rate,
        "told": broker.drain.told.load(Ordering::Relaxed),
        "refuge": broker.drain.has_refuge.load(Ordering::Relaxed),
        "unacknowledged": unacknowledged,
        "kept_for_brokers_away": lag(false),
        "may_stop": is_drained && unacknowledged == 0,
    })
}

/// Clients that are connected.
#[must_use]
pub fn clients(broker: &Broker) -> usize {
    here(broker).len()
}

/// Does what the operator wants, until the task is dropped.
pub async fn run(broker: Arc<Broker>, bridge: Arc<Bridge>) {
    let mut orders = broker.drain.order.subscribe();
    loop {
        let order = *orders.borrow_and_update();
        match order {
            Some(order) => empty(&broker, &bridge, order, &mut orders).await,
            None => match orders.wait_for(Option::is_some).await {
                Ok(_) => {}
                // The sender is the broker's own.
                Err(_) => return,
            },
        }
        if !broker.drain.is_wanted() {
            *broker.drain.turned_away.lock() = None;
            // One that has not joined yet has a word of its own to say.
            let to = if broker.gate.reason().is_none() { Readiness::Ready } else { Readiness::NotReady };
            broker.cluster.announce(to, "an operator has ended the drain", clock());
        }
    }
}

/// Sends clients away until the order is another one.
async fn empty(broker: &Broker, bridge: &Bridge, order: Order, orders: &mut watch::Receiver<Option<Order>>) {
    broker.cluster.announce(Readiness::Draining, "an operator drains it", clock());
    let mut pace = Pace { due: clock() + ANNOUNCEMENT };
    let (mut clients, mut look_at, mut is_drained) = (VecDeque::new(), pace.due, false);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = orders.changed() => return,
            _ = ticks.tick() => {}
        }
        let now = clock();
        let has_refuge = bridge.state().peers.iter().any(|peer| peer.connected);
        if broker.drain.has_refuge.swap(has_refuge, Ordering::Relaxed) && !has_refuge {
            tracing::warn!("no other broker is linked: clients stay until one is");
        }
        if now < look_at.min(pace.due) {
            continue;
        }
        *broker.drain.turned_away.lock() = has_refuge.then_some(order.reason);
        if now >= look_at && clients.is_empty() {
            clients = here(broker).into();
            look_at = now + LOOK;
            if !std::mem::replace(&mut is_drained, clients.is_empty()) && is_drained {
                let told = broker.drain.told.load(Ordering::Relaxed);
                tracing::info!(told, "drained: every client has left");
            }
        }
        if has_refuge && !clients.is_empty() {
            let due = pace.take(order.rate, now);
            send_away(broker, &mut clients, due, order.reason);
        }
    }
}

/// Tells so many of these to go; who has gone meanwhile does not count.
fn send_away(broker: &Broker, clients: &mut VecDeque<Arc<Mailbox>>, count: usize, reason: ReasonCode) {
    let mut told = 0;
    while told < count
        && let Some(mailbox) = clients.pop_front()
    {
        let slot = mailbox.lock();
        if slot.session.link().is_some() && slot.close.is_none() {
            Mailbox::close_slot(slot, reason.into());
            told += 1;
        }
    }
    let told = u64::try_from(told).unwrap_or(u64::MAX);
    broker.drain.told.fetch_add(told, Ordering::Relaxed);
    broker.counters.sent_away.fetch_add(told, Ordering::Relaxed);
}

/// Everybody who is connected, but for the lbs.
fn here(broker: &Broker) -> Vec<Arc<Mailbox>> {
    // A bridge stays until the broker stops, and another host takes it over.
    let is_client = |mailbox: &Arc<Mailbox>| {
        mailbox.is_connected() && !is_reserved(mailbox.client_id()) && !mailbox.lock().session.is_lb()
    };
    broker.all_sessions().into_iter().filter(is_client).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_nothing_is_made_up_for() {
        for (rate, step) in [(1, 20), (10, 20), (100, 20), (1000, 20), (7, 33)] {
            let start = clock();
            let mut pace = Pace { due: start };
            let mut count = 0;
            for elapsed in (0..10_000).step_by(step) {
                count += pace.take(rate, start + Duration::from_millis(elapsed));
            }
            let expected = rate as usize * 10;
            assert!(count <= expected + 1 && count * 100 >= expected * 95, "{rate} in a second: {count} in ten");
            // A machine that stood still for a minute does not make a storm of it.
            assert!(pace.take(rate, start + Duration::from_secs(70)) <= (rate as usize / 10).max(1));
        }
    }
}
