//! The session of a bridge at the broker here.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_mqtt::packet::{Connect, RetainHandling, Subscribe, Unsubscribe};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties};
use evermq_mqtt::{Packet, PacketId, ReasonCode, Version};

use super::forwarded::{self, Marks};
use super::identity;
use super::prepared::Prepared;
use super::topics::Way;
use crate::auth::{Client, Login};
use crate::broker::{Accepted, Broker};
use crate::mailbox::Mailbox;
use crate::session::Limits;

/// It never expires: as long as an interval can say.
const NEVER: u32 = u32::MAX;

/// Makes the session, or takes up the one that is there, and subscribes it to what goes out now and to nothing else. It waits
/// for its connection then.
///
/// # Errors
/// There is no room for it.
pub(super) fn prepare(broker: &Broker, prepared: &Prepared, now: Instant) -> Result<Arc<Mailbox>, ReasonCode> {
    let accepted = connect(broker, prepared, u16::MAX, now)?;
    let mailbox = accepted.mailbox;
    // What waits already came when it was published.
    let wanted = prepared.topics.subscriptions(Way::Out, RetainHandling::DoNotSend);
    broker.update(&mailbox, now, |session| {
        let present = session.subscriptions().map(|(filter, _)| filter.clone());
        let gone: Vec<_> = present.filter(|filter| !wanted.iter().any(|wanted| wanted.filter == *filter)).collect();
        if !gone.is_empty() {
            let unsubscribe =
                Unsubscribe { packet_id: PacketId(NonZeroU16::MIN), filters: gone, user_properties: Vec::new() };
            session.handle_packet(Packet::Unsubscribe(unsubscribe), now);
        }
        if !wanted.is_empty() {
            let properties = SubscribeProperties::default();
            let subscribe = Subscribe { packet_id: PacketId(NonZeroU16::MIN), filters: wanted, properties };
            session.handle_packet(Packet::Subscribe(subscribe), now);
        }
        session.handle_lost(now);
    });
    Ok(mailbox)
}

/// A connection to it. `window`: messages of QoS 1 and 2 that may be on their way to the remote broker at once.
///
/// # Errors
/// There is no room for it, or the broker stops.
pub(super) fn connect(broker: &Broker, prepared: &Prepared, window: u16, now: Instant) -> Result<Accepted, ReasonCode> {
    let client_id = identity::client_id(&prepared.config.bridge.name).ok_or(ReasonCode::ClientIdentifierNotValid)?;
    let connect = Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 0,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry: Some(NEVER),
            receive_maximum: Some(window.min(broker.limits().max_inflight)),
            ..ConnectProperties::default()
        },
        is_bridge: false,
    };
    let client = Client { listener: "bridge".into(), ..Client::local() };
    let limits = Arc::new(limits(broker, prepared));
    broker.connect_within(limits, connect, &client, Login::of_bridge(), None, now)
}

/// The bounds that the file gives it now.
pub(super) fn apply_limits(broker: &Broker, prepared: &Prepared) {
    let mailbox = identity::client_id(&prepared.config.bridge.name).and_then(|id| broker.registry.get(&id));
    if let Some(mailbox) = mailbox {
        mailbox.lock().session.set_limits(Arc::new(limits(broker, prepared)));
    }
}

/// Bounds of its own: it is many clients' messages, and both ends of its connection are ours.
fn limits(broker: &Broker, prepared: &Prepared) -> Limits {
    let bridge = &prepared.config.bridge;
    Limits {
        max_inflight: u16::MAX,
        max_queued_messages: bridge.max_queued_messages,
        max_queued_bytes: bridge.max_queued_bytes,
        max_session_expiry: Duration::from_secs(NEVER.into()),
        max_subscriptions: usize::MAX,
        forwarded: Some(Arc::clone(&prepared.forwarded)),
        ..(*broker.limits()).clone()
    }
}

/// Ends the sessions of bridges that are no longer in the cluster file.
pub(super) fn end_all_but(broker: &Broker, names: &[&str], now: Instant) {
    for mailbox in broker.all_sessions() {
        let Some(name) = identity::name_of(mailbox.client_id()) else { continue };
        if !names.contains(&name) {
            tracing::info!(
                bridge = name,
                "the cluster file has no such bridge for this host any more: what waited for it goes"
            );
            broker.kick(&mailbox, None, true, now);
        }
    }
}

/// What another host has passed on need not wait here any more.
pub(super) fn drop_forwarded(broker: &Broker, name: &str, now: Instant) {
    let Some(mailbox) = identity::client_id(name).and_then(|id| broker.registry.get(&id)) else { return };
    broker.update(&mailbox, now, |session| {
        session.drop_forwarded();
    });
}

/// How far the session is, given the newest messages that have come here.
pub(super) fn marks(broker: &Broker, name: &str, latest: Marks) -> Option<Marks> {
    let mailbox = broker.registry.get(&identity::client_id(name)?)?;
    let slot = mailbox.lock();
    Some(forwarded::marks(latest, slot.session.kept_messages().map(|delivery| &delivery.message.message().stamp)))
}
