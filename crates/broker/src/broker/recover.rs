//! Sessions and retained messages as the store has them, before the first client comes.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_bridge::{Message, Stamp, words};
use evermq_mqtt::packet::{RetainHandling, SubscriptionOptions};
use evermq_mqtt::{PacketId, QoS, Text, TopicFilter};
use evermq_store::{Recovered, RecoveredMesh, RecoveredMessage, RecoveredSession, RecoveredWaiting, SegmentId};

use super::Broker;
use crate::journal::Journal;
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::session::recover::Saved;
use crate::session::{DueWill, Session, Subscription, Will};

impl Broker {
    /// Takes up what the store has. A session that had a connection has lost it now; wills that are due and sessions that
    /// have expired meanwhile are for [`Broker::expire`] to see to.
    pub fn recover(&self, recovered: Recovered, now: Instant) {
        let Some(journal) = &self.journal else { return };
        let origin = |message: RecoveredMessage| shared(journal, message);
        let messages: Vec<Arc<Shared>> = recovered.messages.into_iter().map(origin).collect();
        for index in recovered.retained {
            if let Some(message) = messages.get(index) {
                self.router.recover_retained(message);
            }
        }
        for session in recovered.sessions {
            let (key, since) = (session.session.0, session.since);
            let Ok(client_id) = Text::new(&session.client_id) else { continue };
            let saved = saved(journal, session, &messages);
            self.take_up((key, since, client_id), saved, journal, now);
        }
        let RecoveredMesh { log, is_log_doubtful, forwards, cursors, applied } = recovered.mesh;
        let forward = |(seq, index, directions): (u64, usize, Box<[u8]>)| {
            let message = messages.get(index)?;
            let (directions, publisher) = words::read(&directions);
            let whole = match publisher {
                Some(_) => Arc::new(Message { publisher, ..message.message().clone() }),
                None => message.to_message(),
            };
            Some((seq, whole, message.handle()?.clone(), directions))
        };
        let messages = forwards.into_iter().filter_map(forward).collect();
        let mesh = evermq_bridge::Recovered { log, is_log_doubtful, messages, cursors, applied };
        self.backbone.recover(Arc::<Journal>::clone(journal) as _, mesh);
        let mut wakes = Wakes::default();
        for (number, publish) in recovered.wills {
            let will = DueWill::recovered(publish, number.0);
            journal.take_up_will(&will);
            self.send_will(None, &will, now, &mut wakes);
        }
    }

    fn take_up(
        &self,
        (key, since, client_id): (u64, SegmentId, Text),
        saved: Saved,
        journal: &Arc<Journal>,
        now: Instant,
    ) {
        let was_connected = saved.detached_at.is_none();
        let session = Session::recover(saved, self.limits(), now);
        let subscriptions: Vec<_> =
            session.subscriptions().map(|(filter, subscription)| (filter.clone(), *subscription)).collect();
        let mailbox = Mailbox::recovered(key, client_id, session, Arc::clone(journal), since);
        let taken = self.registry.replace(mailbox.client_id(), |present| Ok((Arc::clone(&mailbox), present.cloned())));
        for (filter, subscription) in &subscriptions {
            self.router.recover(&mailbox, filter, *subscription);
        }
        let shares: Vec<_> =
            subscriptions.iter().filter_map(|(filter, _)| Some((filter.clone(), self.router.share(filter)?))).collect();
        if !shares.is_empty() {
            mailbox.lock().session.recover_shares(&shares);
        }
        // The same client twice: the end of the older session was not written down any more.
        if let Ok::<_, std::convert::Infallible>((_, Some(older))) = taken {
            self.update(&older, now, |session| session.handle_end(now));
        }
        // Remembers when it is due.
        let permits = self.access.permits_of(mailbox.lock().session.user().map(AsRef::as_ref), mailbox.client_id());
        self.update(&mailbox, now, |session| {
            session.set_permits(permits);
            if was_connected {
                session.record_detached();
            }
        });
    }
}

fn shared(journal: &Journal, message: RecoveredMessage) -> Arc<Shared> {
    let RecoveredMessage { publish, stamp_time, stamp_origin, received, handle } = message;
    let stamp = Stamp { time: stamp_time, origin: stamp_origin };
    let received = journal.instant(received);
    Shared::recovered(Message { publish, stamp, received, publisher: None }, false, handle)
}

fn saved(journal: &Journal, session: RecoveredSession, messages: &[Arc<Shared>]) -> Saved {
    let delivery = |waiting: RecoveredWaiting| {
        let ids: Vec<NonZeroU32> = waiting.ids.iter().copied().filter_map(NonZeroU32::new).collect();
        Some(Delivery {
            message: Arc::clone(messages.get(waiting.message)?),
            qos: waiting.qos,
            retain: waiting.retain,
            ids: (!ids.is_empty()).then(|| ids.into()),
            share: None,
        })
    };
    let subscription = |(filter, options, id): (String, u8, Option<u32>)| {
        let filter = TopicFilter::new(Text::new(&filter).ok()?).ok()?;
        Some((filter, Subscription { options: options_of(options), id: id.and_then(NonZeroU32::new) }))
    };
    let inflight = |(packet_id, waiting): (u16, Option<RecoveredWaiting>)| {
        let delivery = match waiting {
            Some(waiting) => Some(delivery(waiting)?),
            None => None,
        };
        Some((PacketId(NonZeroU16::new(packet_id)?), delivery))
    };
    Saved {
        user: session.user.map(|user| Arc::from(&*user)),
        expiry: Duration::from_secs(session.expiry.into()),
        will: session
            .will
            .map(|will| Box::new(Will { publish: will.publish, delay: Duration::from_secs(will.delay.into()) })),
        detached_at: (!session.connected).then(|| journal.instant(session.at)),
        subscriptions: session.subscriptions.into_iter().filter_map(subscription).collect(),
        waiting: session.waiting.into_iter().filter_map(delivery).collect(),
        inflight: session.inflight.into_iter().filter_map(inflight).collect(),
        next_packet_id: PacketId(NonZeroU16::new(session.next_packet_id).unwrap_or(NonZeroU16::MIN)),
        received: session.received.into_iter().filter_map(NonZeroU16::new).map(PacketId).collect(),
    }
}

/// Subscription Options as a SUBSCRIBE has them (§3.8.3.1).
fn options_of(byte: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: QoS::from_bits(byte & 3).unwrap_or_default(),
        no_local: byte & 4 != 0,
        retain_as_published: byte & 8 != 0,
        retain_handling: match byte >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        },
    }
}
