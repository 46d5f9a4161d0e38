//! One bridge: connects, relays, waits, connects again; one task, which its [`Table`](super::table::Table) owns.
//!
//! The connection of the session here is a task of its own, owned by the turn that made it. Everything can be dropped at any
//! time: what is half done then is finished by the sessions on both sides with the next connection.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use evermq_mqtt::packet::{RetainHandling, SubscribeFilter};
use evermq_mqtt::{PacketId, QoS, ReasonCode, Version};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::prepared::Prepared;
use super::relay::{Action, Ended, Relay};
use super::remote::{self, Remote, RemoteError, Wire};
use super::session;
use super::status::{State, Status};
use super::topics::Way;
use super::wire::{End, EndError};
use crate::broker::{Accepted, Broker};
use crate::connection::{Connection, clock};
use crate::listener::conditions;

/// Between the two ends within the process.
const PIPE: usize = 64 * 1024;
/// A goodbye takes no longer.
const GOODBYE: Duration = Duration::from_secs(1);
/// A connection that has lasted so long is no failure.
const LASTING: Duration = Duration::from_secs(10);

/// What one bridge is made of.
pub(super) struct Keeper {
    pub(super) broker: Arc<Broker>,
    pub(super) prepared: Prepared,
    pub(super) status: Arc<Status>,
    pub(super) conditions: conditions::Shared,
    /// Whether this host is to keep the connection.
    pub(super) active: watch::Receiver<bool>,
    /// The remote broker has the subscriptions, as far as this process knows.
    pub(super) is_subscribed: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error(transparent)]
    Unreachable(#[from] RemoteError),
    #[error("the remote broker: {0}")]
    Remote(EndError),
    #[error("this broker: {0}")]
    Local(EndError),
    #[error("{0}")]
    Ended(#[from] Ended),
    #[error("this broker has no room for the bridge's session: {}", .0.name())]
    NoSession(ReasonCode),
    #[error("the bridge is to stop, or another host keeps it")]
    Stopped,
}

impl Keeper {
    /// Until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let bridge = &self.prepared.config.bridge;
        let seed = RandomState::new().hash_one(&bridge.name);
        let mut backoff = Backoff::new(bridge.reconnect_min, bridge.reconnect_max, seed);
        while !stop.is_cancelled() {
            if !*self.active.borrow_and_update() {
                self.change(State::Standby, "a host before this one is up");
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = self.active.changed() => if changed.is_err() { return },
                }
                continue;
            }
            self.change(State::Connecting, "this host keeps the bridge");
            let begun = clock();
            let over = self.connection(&stop).await;
            if matches!(over, Over::Stopped) {
                continue;
            }
            let text = over.to_string();
            let is_new = self.status.failed(text.clone());
            self.change(State::Connecting, &text);
            if clock().saturating_duration_since(begun) > LASTING {
                backoff.handle_success();
            }
            let wait = backoff.handle_failure();
            let name = &self.prepared.config.bridge.name;
            if is_new {
                tracing::warn!(
                    bridge = name,
                    error = text,
                    "a bridge has no connection; it tries again, and says no more of this"
                );
            } else {
                tracing::debug!(bridge = name, error = text, ?wait, "a bridge has no connection");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // Another host may keep it now.
                changed = self.active.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self, stop: &CancellationToken) -> Over {
        let options = self.conditions.load().options;
        let max_packet_size = self.broker.limits().max_packet_size;
        let mut active = self.active.clone();
        let connecting = remote::connect(&self.prepared, max_packet_size, options);
        let remote = tokio::select! {
            () = stop.cancelled() => return Over::Stopped,
            () = inactive(&mut active) => return Over::Stopped,
            remote = connecting => remote,
        };
        let remote = match remote {
            Ok(remote) => remote,
            Err(error) => return error.into(),
        };
        let accepted = match self.open(&remote) {
            Ok(accepted) => accepted,
            Err(reason) => return Over::NoSession(reason),
        };
        self.status.connected(&remote.address, remote.is_bridge);
        self.change(State::Connected, &remote.address);
        if !remote.is_bridge && self.prepared.topics.may_come_back() {
            tracing::warn!(
                bridge = self.prepared.config.bridge.name,
                "the remote broker does not know bridges: what it gets through topics of direction both it sends back, and everybody here has it twice; write protocol_version = \"5.0\", or out and in with different topics"
            );
        }
        self.relay(remote, accepted, stop).await
    }

    fn open(&self, remote: &Remote) -> Result<Accepted, ReasonCode> {
        session::prepare(&self.broker, &self.prepared, clock())?;
        session::connect(&self.broker, &self.prepared, remote.receive_maximum, clock())
    }

    async fn relay(&mut self, remote: Remote, accepted: Accepted, stop: &CancellationToken) -> Over {
        let Remote { stream, unread, session_present, terms, .. } = remote;
        // One that no exchange has.
        let in_use = |id: &PacketId| accepted.mailbox.lock().session.inflight().iter().any(|(open, _)| open == *id);
        let mut free = (1..=u16::MAX).rev().filter_map(|id| Some(PacketId(id.try_into().ok()?)));
        let packet_id = free.find(|id| !in_use(id)).unwrap_or(PacketId(std::num::NonZeroU16::MAX));
        let is_known = std::mem::replace(&mut self.is_subscribed, false) && session_present;
        let subscriptions = [Way::In, Way::Out].map(|way| self.subscriptions(way, is_known));
        let mut relay = Relay::new(self.prepared.topics.clone(), terms, packet_id, subscriptions, clock());

        let (here, there) = tokio::io::duplex(PIPE);
        // Owned by this turn: gone with it at the latest.
        let mut own = JoinSet::new();
        own.spawn(Connection::new(there, Arc::clone(&self.broker), Version::V5, accepted, BytesMut::new()));
        let mut remote = End::new(stream, terms.version, unread);
        let mut local = End::new(here, Version::V5, BytesMut::new());
        let over = self.pump(&mut relay, &mut remote, &mut local, stop).await;
        self.status.add(relay.take_counts());
        // Whoever is still there is told; what they have not acknowledged they send again.
        let goodbye = async {
            let _ = tokio::join!(remote.close(), local.close());
            own.join_next().await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        over
    }

    /// What is to be subscribed to now: everything, where the remote broker has no session, for then it has lost the retained
    /// messages, too; otherwise only what is not kept while there is no connection, for the retained messages.
    fn subscriptions(&self, way: Way, is_known: bool) -> Vec<SubscribeFilter> {
        let mut filters = self.prepared.topics.subscriptions(way, RetainHandling::Send);
        filters.retain(|filter| !is_known || filter.options.qos == QoS::AtMostOnce);
        filters
    }

    async fn pump(
        &mut self,
        relay: &mut Relay,
        remote: &mut End<Box<dyn Wire>>,
        local: &mut End<DuplexStream>,
        stop: &CancellationToken,
    ) -> Over {
        let mut active = self.active.clone();
        loop {
            if let Err(over) = self.exchange(relay, remote, local) {
                return over;
            }
            self.status.add(relay.take_counts());
            let timeout = relay.poll_timeout();
            let due = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let (reads_remote, reads_local) = (!local.is_full(), relay.reads_local() && !remote.is_full());
            let (writes_remote, writes_local) = (!remote.is_idle(), !local.is_idle());
            let moved = tokio::select! {
                () = stop.cancelled() => return Over::Stopped,
                () = inactive(&mut active) => return Over::Stopped,
                moved = remote.step(reads_remote, writes_remote) => moved.map_err(Over::Remote),
                moved = local.step(reads_local, writes_local) => moved.map_err(Over::Local),
                () = due => {
                    relay.handle_timeout(clock());
                    Ok(())
                }
            };
            if let Err(over) = moved {
                return over;
            }
        }
    }

    /// Hands the relay what has come, and does what it asks for.
    fn exchange(
        &mut self,
        relay: &mut Relay,
        remote: &mut End<Box<dyn Wire>>,
        local: &mut End<DuplexStream>,
    ) -> Result<(), Over> {
        let now = clock();
        loop {
            while let Some(action) = relay.poll_action() {
                match action {
                    Action::Remote(packet) => remote.push(&packet),
                    Action::Local(packet) => local.push(&packet),
                    Action::Subscribed => self.is_subscribed = true,
                    Action::Refused(filter, reason) => self.refused(&filter, reason),
                    Action::End(ended) => return Err(ended.into()),
                }
            }
            // What has come is handled as long as there is room for what follows from it.
            if !local.is_full()
                && let Some(packet) = remote.next().map_err(Over::Remote)?
            {
                relay.handle_remote(packet, now);
            } else if relay.reads_local()
                && !remote.is_full()
                && let Some(packet) = local.next().map_err(Over::Local)?
            {
                relay.handle_local(packet, now);
            } else {
                return Ok(());
            }
        }
    }

    fn refused(&self, filter: &SubscribeFilter, reason: ReasonCode) {
        let (name, filter) = (&self.prepared.config.bridge.name, filter.filter.as_str());
        tracing::warn!(
            bridge = name,
            filter,
            reason = reason.name(),
            "the remote broker refuses a subscription of the bridge: let its user read there, or take the topic out"
        );
        self.status.refused(filter, reason.name());
    }

    fn change(&self, state: State, reason: &str) {
        let from = self.status.become_(state, clock());
        if from != state {
            let name = &self.prepared.config.bridge.name;
            tracing::info!(bridge = name, from = from.word(), to = state.word(), reason, "bridge");
        }
    }
}

/// Ends when another host is to keep the bridge.
async fn inactive(active: &mut watch::Receiver<bool>) {
    // An error: the table is gone, and `stop` says so too.
    if active.wait_for(|active| !*active).await.is_err() {
        std::future::pending::<()>().await;
    }
}
