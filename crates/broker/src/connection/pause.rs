//! Why a publisher is not read from for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::{Duration, Instant};

use evermq_bridge::Pressure;
use evermq_mqtt::Packet;
use tokio::time::Sleep;

use super::Connection;
use super::buffers::Buffers;
use crate::backbone::Relief;
use crate::bridges::identity::is_reserved;
use crate::broker::{Broker, Published};
use crate::mailbox::Mailbox;

/// Turns that a congested subscriber on the same thread gets before the publisher goes on.
const YIELDS: u8 = 4;
/// How long a publisher waits for one on another thread: enough for a subscriber that reads, and all that one which does
/// not read can cost, until its queue is full and it is no longer waited for.
const CONGESTED: Duration = Duration::from_millis(1);

pub(super) enum Pause {
    /// It is read from.
    None,
    /// A peer is behind.
    Relief(Relief),
    /// It has sent faster than it may.
    Slowed(Pin<Box<Sleep>>),
    /// A subscriber's queue is more than half full.
    Congested { mailbox: Arc<Mailbox>, yields: u8, sleep: Option<Pin<Box<Sleep>>> },
}

impl Pause {
    /// Until then.
    pub(super) fn slowed(until: Instant) -> Self {
        Self::Slowed(Box::pin(tokio::time::sleep_until(until.into())))
    }

    /// How to go on after a message.
    pub(super) fn update(&mut self, published: Published, broker: &Broker) {
        if matches!(self, Self::Relief(_) | Self::Slowed(_)) {
            return;
        }
        if published.pressure == Pressure::High {
            *self = Self::Relief(Arc::clone(&broker.backbone).relieved());
        } else if let (Self::None, Some(mailbox)) = (&*self, published.congested) {
            *self = Self::Congested { mailbox, yields: 0, sleep: None };
        }
    }

    /// Whether to read now; otherwise the task is woken when it is time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let is_over = match self {
            Self::None => return true,
            Self::Relief(relief) => relief.as_mut().poll(cx).is_ready(),
            Self::Slowed(sleep) => sleep.as_mut().poll(cx).is_ready(),
            Self::Congested { mailbox, .. } if !mailbox.lock().session.is_congested() => true,
            Self::Congested { yields, .. } if *yields < YIELDS => {
                *yields += 1;
                cx.waker().wake_by_ref();
                false
            }
            Self::Congested { sleep, .. } => {
                sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONGESTED))).as_mut().poll(cx).is_ready()
            }
        };
        if is_over {
            *self = Self::None;
        }
        is_over
    }

    /// Whether nothing keeps the client from being heard.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<S> Connection<S> {
    /// Who sends faster than it may is not read from for a while.
    pub(super) fn slow_down(&mut self, buffers: &Buffers, now: Instant) {
        let Some(rates) = self.broker.rates.get().filter(|_| !is_reserved(self.mailbox.client_id())) else { return };
        let (mut messages, mut bytes) = (0, 0);
        for packet in &buffers.packets {
            if let Packet::Publish(publish) = packet {
                messages += 1;
                bytes += (publish.topic.as_str().len() + publish.payload.len()) as u64;
            }
        }
        let meter = self.meter.get_or_insert_default();
        let Some(until) = meter.handle_messages(rates, messages, bytes, now) else { return };
        if self.broker.counters.slowed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                client = %self.mailbox.client_id(),
                "a client publishes faster than broker.max_publish_rate or max_publish_bytes and is read from more slowly; said once"
            );
        }
        tracing::debug!(client = %self.mailbox.client_id(), "publishes too fast: read from more slowly");
        self.pause = Pause::slowed(until);
    }
}
