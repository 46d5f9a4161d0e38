//! Why a publisher is not read from for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use evermq_bridge::Pressure;
use tokio::time::Sleep;

use crate::backbone::Relief;
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
