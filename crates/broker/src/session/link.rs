//! What a session knows of its present connection: what was agreed on, topic aliases, when the client was last heard.

use std::time::{Duration, Instant};

use evermq_mqtt::{Publish, ReasonCode, TopicName, Version};

use super::LinkId;
use crate::auth::Login;
use crate::authentication::Authentication;
use crate::message::Delivery;

/// Why a PUBLISH ends the connection.
type Violation = (ReasonCode, &'static str);

/// What is known of the present connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// An lb of the cluster: `$EVERMQ/` is open to it.
    pub(super) is_lb: bool,
    /// How the client is known; none in tests.
    pub(super) login: Option<Login>,
    pub(super) version: Version,
    /// Its subscriptions are those of a bridge.
    pub(super) is_bridge: bool,
    /// In seconds, as clients say it; zero for none.
    pub(super) keep_alive: u16,
    pub(super) last_received: Instant,
    /// Messages of QoS 1 and 2 that may be out at once (§4.9).
    pub(super) window: u16,
    pub(super) max_packet_size: u32,
    pub(super) problem_information: bool,
    /// The CONNECT asked for a session that ends with the connection (§3.14.2.2.2: that cannot be taken back).
    pub(super) ends_with_connection: bool,
    pub(super) aliases: Vec<Option<TopicName>>,
    /// Where the CONNECT named a method.
    pub(super) authentication: Option<Box<Authentication>>,
}

impl Link {
    pub(super) fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive.into())
    }

    pub(super) fn keep_alive_deadline(&self) -> Option<Instant> {
        (self.keep_alive > 0).then(|| self.last_received + self.keep_alive() * 3 / 2)
    }

    /// Puts the topic name in the place of its alias (§3.3.2.3.4).
    pub(super) fn resolve_alias(&mut self, publish: &mut Publish, maximum: u16) -> Result<(), Violation> {
        let alias = publish.properties.as_mut().and_then(|properties| properties.topic_alias.take());
        let is_named = !publish.topic.as_str().is_empty();
        let Some(alias) = alias else {
            return if is_named { Ok(()) } else { Err((ReasonCode::ProtocolError, "neither topic nor topic alias")) };
        };
        // [MQTT-3.3.2-8], [MQTT-3.3.2-9].
        if alias == 0 || alias > maximum {
            return Err((ReasonCode::TopicAliasInvalid, "topic alias is 0 or above the maximum"));
        }
        if self.aliases.len() < usize::from(alias) {
            self.aliases.resize(usize::from(alias), None);
        }
        let known = &mut self.aliases[usize::from(alias) - 1];
        if is_named {
            // A copy: an alias outlives the buffer that this packet was read into.
            *known = TopicName::new(publish.topic.text().detached()).ok();
            return Ok(());
        }
        match known {
            Some(topic) => {
                publish.topic = topic.clone();
                Ok(())
            }
            None => Err((ReasonCode::ProtocolError, "topic alias was never set")),
        }
    }

    /// [MQTT-3.1.2-25]: what is too large for the client counts as sent.
    pub(super) fn takes(&self, delivery: &Delivery, now: Instant) -> bool {
        let limit = usize::try_from(self.max_packet_size).unwrap_or(usize::MAX);
        self.max_packet_size == u32::MAX || delivery.encoded_len(self.version, now).is_ok_and(|len| len <= limit)
    }
}
