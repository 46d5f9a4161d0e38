//! What a CONNECT asks for and what it is granted (§3.1, §3.2).

use std::sync::Arc;
use std::time::Duration;

use evermq_access::Permits;
use evermq_mqtt::codec;
use evermq_mqtt::packet::{ConnAck, Connect};
use evermq_mqtt::properties::ConnAckProperties;
use evermq_mqtt::{Packet, Publish, ReasonCode, Text, Version};

use super::lasting::LastingPlace;
use super::{Limits, LinkId, Will};
use crate::auth::{Client, Login};
use crate::authentication::Authenticated;
use crate::message;

/// Everything that a session needs to know of an accepted CONNECT.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The connection.
    pub link: LinkId,
    /// The client is an lb of the cluster, by its certificate.
    pub is_lb: bool,
    /// Who the client is, where that is known.
    pub user: Option<Arc<str>>,
    /// How it is known.
    pub login: Option<Login>,
    /// The session's bounds from now on, where they may have changed.
    pub limits: Option<Arc<Limits>>,
    /// What it may do; none: everything.
    pub permits: Option<Arc<Permits>>,
    /// Protocol version.
    pub version: Version,
    /// The client is a bridge, by its protocol level.
    pub is_bridge: bool,
    /// Zero for none.
    pub keep_alive: Duration,
    /// How long the session outlives the connection.
    pub expiry: Duration,
    /// Its place among the sessions that do, if it has none yet.
    pub place: Option<Arc<LastingPlace>>,
    /// The CONNECT asked for a session that ends with the connection.
    pub ends_with_connection: bool,
    /// The will.
    pub will: Option<Box<Will>>,
    /// Messages of QoS 1 and 2 that may be on the way to the client at once.
    pub receive_maximum: u16,
    /// Bytes of a packet to the client.
    pub max_packet_size: u32,
    /// Bytes of a packet from it.
    pub max_packet_size_in: u32,
    /// Topic aliases that may be set for the client (§3.1.2.11.5).
    pub topic_aliases: u16,
    /// Whether the client wants reason strings.
    pub problem_information: bool,
    /// The mechanism that let the client in.
    pub authenticated: Option<Authenticated>,
    /// What the CONNACK says.
    pub connack: ConnAckProperties,
}

/// Why a CONNECT is refused before it concerns any session. A client that names an authentication method is to have gone
/// through its exchange.
///
/// # Errors
/// The reason code for the CONNACK.
pub fn check(connect: &Connect, limits: &Limits, is_authenticated: bool) -> Result<(), ReasonCode> {
    // [MQTT-4.12.0-1].
    if connect.properties.authentication_method.is_some() && !is_authenticated {
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    // 3.1.1 [MQTT-3.1.3-8]: an empty identifier needs a clean session; MQTT 3.1 knows none.
    let may_be_empty = match connect.version {
        Version::V3 => false,
        Version::V4 => connect.clean_start,
        Version::V5 => true,
    };
    if connect.client_id.is_empty() && !may_be_empty {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    if let Some(will) = &connect.will {
        let topic = &will.topic;
        if topic.as_str().is_empty() || limits.has_too_many_levels(topic.levels()) {
            return Err(ReasonCode::TopicNameInvalid);
        }
        if super::publish::is_reserved(topic) && !super::publish::is_bridge_state(topic) {
            return Err(ReasonCode::NotAuthorized);
        }
        if !super::publish::has_its_format(&will.payload, &will.properties.publish) {
            return Err(ReasonCode::PayloadFormatInvalid);
        }
    }
    Ok(())
}

impl Granted {
    /// What `connect` is granted within `limits`. `assigned` is the identifier that an MQTT 5.0 client without one gets.
    #[must_use]
    pub fn new(connect: Connect, link: LinkId, limits: &Limits, assigned: Option<Text>) -> Self {
        let v5 = connect.version == Version::V5;
        let asked = &connect.properties;
        let (wanted_expiry, expiry) = session_expiry(&connect, limits);
        let (keep_alive, server_keep_alive) = keep_alive(&connect, limits);
        let connack = if v5 {
            ConnAckProperties {
                session_expiry: (wanted_expiry != expiry).then(|| whole_seconds(expiry)),
                receive_maximum: (limits.max_inflight < u16::MAX).then_some(limits.max_inflight),
                maximum_packet_size: Some(limits.max_packet_size),
                assigned_client_id: assigned,
                topic_alias_maximum: (limits.max_topic_alias > 0).then_some(limits.max_topic_alias),
                server_keep_alive,
                shared_subscription_available: Some(true),
                ..ConnAckProperties::default()
            }
        } else {
            ConnAckProperties::default()
        };
        Self {
            link,
            is_lb: false,
            user: None,
            login: None,
            limits: None,
            permits: None,
            version: connect.version,
            is_bridge: connect.is_bridge,
            keep_alive,
            expiry,
            place: None,
            ends_with_connection: wanted_expiry.is_zero(),
            receive_maximum: asked.receive_maximum.unwrap_or(u16::MAX).min(limits.max_inflight),
            max_packet_size: asked.maximum_packet_size.unwrap_or(u32::MAX),
            max_packet_size_in: limits.max_packet_size,
            topic_aliases: asked.topic_alias_maximum.unwrap_or(0).min(limits.max_topic_alias),
            problem_information: asked.request_problem_information.unwrap_or(true),
            will: connect.will.map(|asked| Box::new(will(asked))),
            authenticated: None,
            connack,
        }
    }

    /// The same as its listener and its certificate have it.
    #[must_use]
    pub fn to(mut self, client: &Client) -> Self {
        self.is_lb = client.is_lb;
        self.max_packet_size_in = self.max_packet_size_in.min(client.max_packet_size.unwrap_or(u32::MAX));
        if self.version == Version::V5 {
            self.connack.maximum_packet_size = Some(self.max_packet_size_in);
        }
        self
    }

    /// The same for this user. A will that `acl_file` does not allow is left out, as mosquitto does.
    ///
    /// # Errors
    /// It may not publish its will: better said at once than found out when it dies.
    pub fn as_user(mut self, login: Login, permits: Option<Arc<Permits>>) -> Result<Self, ReasonCode> {
        if let (Some(will), Some(permits)) = (&self.will, &permits)
            && !permits.may_publish(&will.publish.topic)
        {
            if !permits.is_file() {
                return Err(ReasonCode::NotAuthorized);
            }
            tracing::debug!(user = login.user.as_deref(), topic = %will.publish.topic, "acl_file does not allow this will, so it is left out");
            self.will = None;
        }
        self.user = login.user.clone();
        self.login = Some(login);
        self.permits = permits;
        Ok(self)
    }
}

impl Granted {
    /// The same for a client that a mechanism let in: it is told so (`[MQTT-4.12.0-5]`).
    #[must_use]
    pub fn with_authentication(mut self, authenticated: Option<Authenticated>) -> Self {
        if let Some(authenticated) = &authenticated {
            self.connack.authentication_method = Some(authenticated.mechanism.name().clone());
            self.connack.authentication_data.clone_from(&authenticated.data);
        }
        self.authenticated = authenticated;
        self
    }

    /// A client that does not take its own CONNACK cannot be served: whatever may be left out of it says what the client
    /// must know (`[MQTT-3.1.2-24]`).
    ///
    /// # Errors
    /// Packet too large.
    pub fn check_connack(&self) -> Result<(), ReasonCode> {
        if self.max_packet_size == u32::MAX {
            return Ok(());
        }
        let connack = ConnAck { session_present: false, reason: ReasonCode::Success, properties: self.connack.clone() };
        let len = codec::encoded_len(&Packet::ConnAck(Box::new(connack)), self.version);
        let fits = u32::try_from(len).is_ok_and(|len| len <= self.max_packet_size);
        if fits { Ok(()) } else { Err(ReasonCode::PacketTooLarge) }
    }
}

/// What was asked for, and what is granted.
fn session_expiry(connect: &Connect, limits: &Limits) -> (Duration, Duration) {
    let asked = match connect.version {
        Version::V5 => Duration::from_secs(connect.properties.session_expiry.unwrap_or(0).into()),
        // 3.1.1 §3.1.2.4: a session that is not clean has no end of its own.
        Version::V3 | Version::V4 if connect.clean_start => Duration::ZERO,
        Version::V3 | Version::V4 => limits.max_session_expiry,
    };
    (asked, asked.min(limits.max_session_expiry))
}

/// What is granted, and what an MQTT 5.0 client must be told (§3.2.2.3.14). Older clients cannot be told, so they keep
/// what they asked for.
fn keep_alive(connect: &Connect, limits: &Limits) -> (Duration, Option<u16>) {
    let asked = Duration::from_secs(connect.keep_alive.into());
    let limit = limits.max_keep_alive;
    if connect.version != Version::V5 || limit.is_zero() || (!asked.is_zero() && asked <= limit) {
        return (asked, None);
    }
    let seconds = u16::try_from(limit.as_secs()).unwrap_or(u16::MAX).max(1);
    (Duration::from_secs(seconds.into()), Some(seconds))
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// The will with bytes of its own: it outlives the buffer that the CONNECT was read into.
fn will(will: evermq_mqtt::packet::Will) -> Will {
    let properties = will.properties.publish;
    let publish = Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic,
        packet_id: None,
        properties: (properties != Default::default()).then(|| Box::new(properties)),
        payload: will.payload,
    };
    let delay = Duration::from_secs(will.properties.delay.unwrap_or(0).into());
    Will { publish: message::detach_publish(&publish), delay }
}
