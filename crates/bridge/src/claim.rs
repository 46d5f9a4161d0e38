//! Whose client it is: the same client identifier has at most one connection in the whole cluster, the newest one
//! (§3.1.4, `[MQTT-3.1.4-3]`, with the cluster for a server).
//!
//! ```text
//!   client ──CONNECT──▶ broker 2 ──CLAIM──▶ every other broker: an older connection of this client ends there
//! ```
//!
//! A connection is as old as its stamp: hybrid clock time, then the broker's name. So of two connections made at the same
//! moment each side finds the same one older. A broker gives a connection its stamp at a moment when it can already be found
//! by claims, and takes note of a claim's time before it looks for the connection: a claim that does not find it is older.
//!
//! A claim is not part of the log: it is of no use to a peer that was away. A peer to which a link comes up is told of
//! everybody who is connected, and so is one for which more claims wait than [`MAX_NEWS`].
//!
//! Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use evermq_mqtt::Text;

use crate::message::Stamp;

/// Claims that wait for one peer: a burst of connects on all workers while its link is busy. Beyond it, it is as little to
/// tell it of everybody.
const MAX_NEWS: usize = 4096;

/// A client has connected to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub client_id: Text,
    /// As which user, where that is known.
    pub user: Option<Arc<str>>,
    /// When, and to which broker.
    pub stamp: Stamp,
    /// It began with a clean start, just now: no session of its is to be left anywhere (`[MQTT-3.1.2-4]`).
    pub clean_start: bool,
}

/// What the bridge asks of the broker about clients. Calls come from the bridge's thread and must not block.
pub trait Clients: Send + Sync + 'static {
    /// Everybody who is connected here. None of them with a clean start, which is over.
    fn connected(&self) -> Vec<Claim>;

    /// A client has connected to a peer; `me` is this broker. Whether something ended here for that.
    fn claimed(&self, claim: &Claim, me: &str) -> bool;
}

/// Since when a client is connected to this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It has not been connected since the broker was started.
    #[default]
    Unknown,
    /// Its latest connection is about to get a stamp, which will be newer than any claim that has come.
    Coming,
    /// The time of its latest connection's stamp.
    Since(u64),
}

impl Claim {
    /// Whether it is newer than what a client has at the broker `me`.
    #[must_use]
    pub fn is_newer_than(&self, standing: Standing, me: &str) -> bool {
        match standing {
            Standing::Unknown => true,
            Standing::Coming => false,
            Standing::Since(time) => (self.stamp.time, &*self.stamp.origin) > (time, me),
        }
    }
}

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Claims for everybody who is connected now.
    Everybody,
    /// One claim.
    One(Arc<Claim>),
}

/// What one peer is still to be told.
///
/// ```text
///            link is up                everybody is told
///   Away ─────────────────▶ Everybody ─────────────────▶ News
///     ▲                       │   ▲ more than MAX_NEWS     │
///     └───────────────────────┴───┴────────────────────────┘ link is down
/// ```
#[derive(Debug, Default)]
pub(crate) enum Outbox {
    /// There is nobody to tell.
    #[default]
    Away,
    /// Everybody is to be claimed, which whoever connects until then is part of.
    Everybody,
    /// These are news.
    News(VecDeque<Arc<Claim>>),
}

impl Outbox {
    /// A link to the peer is up, and it understands claims.
    pub(crate) fn handle_up(&mut self) {
        *self = Self::Everybody;
    }

    /// The link is down.
    pub(crate) fn handle_down(&mut self) {
        *self = Self::Away;
    }

    /// A client has connected, and [`Clients::connected`] has it. Whether there is something to be sent now and was not
    /// before.
    pub(crate) fn handle_claim(&mut self, claim: &Arc<Claim>) -> bool {
        match self {
            Self::Away | Self::Everybody => false,
            Self::News(news) if news.len() >= MAX_NEWS => {
                *self = Self::Everybody;
                false
            }
            Self::News(news) => {
                news.push_back(Arc::clone(claim));
                news.len() == 1
            }
        }
    }

    /// What is to be sent next, if anything.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        match self {
            Self::Away => None,
            Self::Everybody => {
                *self = Self::News(VecDeque::new());
                Some(Action::Everybody)
            }
            Self::News(news) => news.pop_front().map(Action::One),
        }
    }
}

#[cfg(test)]
mod tests;
