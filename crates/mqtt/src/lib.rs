//! MQTT 3.1.1 and 5.0 (OASIS) packets, topic names and topic filters.
//!
//! Pure: no I/O, no clock, no randomness. Bytes come in through [`codec::decode`], which checks every length against
//! the caller's limits before it allocates; bytes go out through [`codec::encode`].
//!
//! | module | subject |
//! |---|---|
//! | [`packet`] | one type for each control packet |
//! | [`properties`] | MQTT 5.0 properties, one struct for each packet that carries them |
//! | [`reason`] | reason codes of MQTT 5.0 and return codes of MQTT 3.1.1 |
//! | [`text`] | UTF-8 strings that share the bytes they were read from |
//! | [`topic`] | topic names, topic filters and how they match |
//! | [`codec`] | bytes to packets and back, for each version |

pub mod codec;
pub mod packet;
pub mod properties;
pub mod reason;
pub mod text;
pub mod topic;

pub use packet::{Packet, PacketId, Publish, QoS, Version};
pub use reason::ReasonCode;
pub use text::Text;
pub use topic::{TopicFilter, TopicName};
