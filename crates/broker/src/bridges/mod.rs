//! Bridges to brokers that are not of the cluster.
//!
//! ```text
//!   a durable session of this broker                     the remote broker's session of the bridge's client
//!   ($bridge/NAME, subscribed to what goes out)          (subscribed to what comes in)
//!            │ MQTT 5.0 within the process                            │ MQTT 3.1.1 or 5.0, TCP or TLS
//!            └───────────────────────── relay ─────────────────────────┘
//!                      topics renamed, packet identifiers as they are
//! ```
//!
//! Each side's session does what it does for any client: it queues, resends, remembers what is half done. The relay between them
//! passes PUBLISH, PUBACK, PUBREC, PUBREL and PUBCOMP on with the identifiers that they have, and keeps nothing itself. So a
//! message is acknowledged on one side when it is safe on the other one, and whatever dies in between, the two sessions finish
//! what was begun ([decision 18](../../../docs/adr/0018-bridges-relay-packets.md)).
//!
//! | module | subject |
//! |---|---|
//! | [`topics`] | ◆ which topics cross, and what they are called on the other side |
//! | [`relay`] | ◆ from CONNACK on: packets of one side, and what the other one gets of them |
//! | [`backoff`] | ◆ waits between attempts |
//! | [`standby`] | ◆ which of several hosts keeps the connection |
//! | [`forwarded`] | ◆ what another host has passed on already |
//! | [`notices`] | what hosts tell each other of that |
//! | [`identity`] | the client identifiers of bridges' sessions |
//! | [`prepared`] | an entry of the cluster file with the files that it names |
//! | `session` | the session here: its subscriptions and its bounds |
//! | `remote`, `wire` | the connection to the remote broker; bytes of both ends |
//! | `keeper` | one bridge: connects, relays, waits |
//! | [`table`] | all bridges of this host |
//! | [`status`], `metrics` | what operators see |

pub mod backoff;
pub mod forwarded;
pub mod identity;
mod keeper;
pub(crate) mod metrics;
pub mod notices;
pub mod prepared;
pub mod relay;
mod remote;
mod session;
pub mod standby;
pub mod status;
pub mod table;
pub mod topics;
mod wire;
