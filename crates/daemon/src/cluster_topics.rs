//! What an EverMQ broker and the lbs of its cluster tell each other over the lb's standing MQTT session.
//!
//! ```text
//!   lb ── SUBSCRIBE $EVERMQ/state (QoS 0) ─────────────▶ broker
//!   lb ◀── PUBLISH $EVERMQ/state: ready ──────────────── broker      at once, and at each change
//!   lb ── PUBLISH $EVERMQ/disconnect: ip:port\n... ────▶ broker      these clients go elsewhere, with a word
//! ```
//!
//! An lb is known by its certificate, and by the [`ALPN`] protocol that it asks for when it speaks for itself: where it ends
//! its clients' TLS and begins another one to the broker, their words come with its certificate too.
//!
//! Topics under `$EVERMQ/` are closed to everybody else: who is no lb of the cluster gets "not authorized".

use std::net::SocketAddr;

/// What an lb asks for in the TLS handshake of its own session (RFC 7301). A server that does not know it takes no notice.
pub const ALPN: &[u8] = b"evermq-lb";
/// The first level of all of these topics.
pub const LEVEL: &str = "$EVERMQ";
/// Where a broker says how it is.
pub const STATE: &str = "$EVERMQ/state";
/// Where an lb says which clients are to go to another broker.
pub const DISCONNECT: &str = "$EVERMQ/disconnect";
/// Addresses in one message to [`DISCONNECT`], so that it stays below the smallest `max_packet_size`, 1 KiB.
pub const MAX_ADDRESSES: usize = 32;

/// What a broker says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It keeps the clients that it has and wants no new ones for now.
    NotReady,
    /// It is about to end: it wants no new clients, and will send away those that it has.
    Draining,
}

impl Readiness {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Ready, Self::NotReady, Self::Draining];

    /// The payload of a message to [`STATE`], also a name for logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Draining => "draining",
        }
    }

    /// What a payload says; `None` for a word of a later version.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|readiness| readiness.word().as_bytes() == payload)
    }
}

/// The payload of a message to [`DISCONNECT`]: the ends of the clients' connections as the broker sees them, one on a line.
#[must_use]
pub fn disconnect_payload(addresses: &[SocketAddr]) -> Vec<u8> {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join("\n").into_bytes()
}

/// The addresses of such a payload; `None` if it is none, or names more than [`MAX_ADDRESSES`].
#[must_use]
pub fn parse_disconnect(payload: &[u8]) -> Option<Vec<SocketAddr>> {
    let text = std::str::from_utf8(payload).ok()?;
    let addresses: Vec<SocketAddr> =
        text.split('\n').take(MAX_ADDRESSES + 1).map(|line| line.parse().ok()).collect::<Option<_>>()?;
    (addresses.len() <= MAX_ADDRESSES).then_some(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_both_ways_and_others_are_none() {
        for readiness in Readiness::ALL {
            assert_eq!(Readiness::parse(readiness.word().as_bytes()), Some(readiness));
        }
        for other in ["", "Ready", "ready\n", "busy"] {
            assert_eq!(Readiness::parse(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn topics_are_below_the_reserved_level() {
        for topic in [STATE, DISCONNECT] {
            assert_eq!(topic.split('/').next(), Some(LEVEL));
        }
    }

    #[test]
    fn addresses_go_both_ways() {
        let addresses: Vec<SocketAddr> = vec![
            SocketAddr::from(([127, 0, 0, 1], 1)),
            SocketAddr::from(([192, 168, 10, 11], 65_535)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 40_000)),
        ];
        assert_eq!(disconnect_payload(&addresses), b"127.0.0.1:1\n192.168.10.11:65535\n[2001:db8::1]:40000");
        assert_eq!(parse_disconnect(&disconnect_payload(&addresses)), Some(addresses));
    }

    #[test]
    fn a_payload_that_is_no_list_or_too_long_is_none() {
        for bad in ["", "\n", "127.0.0.1", "127.0.0.1:1\n", "127.0.0.1:1 127.0.0.1:2", "127.0.0.1:65536", "a:1"] {
            assert_eq!(parse_disconnect(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_disconnect(&[0xFF]), None);
        let many = |count: usize| vec![SocketAddr::from(([127, 0, 0, 1], 1)); count];
        assert!(parse_disconnect(&disconnect_payload(&many(MAX_ADDRESSES))).is_some());
        assert_eq!(parse_disconnect(&disconnect_payload(&many(MAX_ADDRESSES + 1))), None);
        assert_eq!(parse_disconnect(&vec![b'1'; 1 << 20]), None);
    }
}
