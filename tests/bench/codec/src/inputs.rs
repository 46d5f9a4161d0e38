//! The packets that are measured, as bytes, each with the version that it is of.

use crate::bytes;
use crate::codecs::Version;

/// One packet to measure.
pub struct Input {
    /// What it is.
    pub name: &'static str,
    /// Its version.
    pub version: Version,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Input {
    /// As many copies as one read of a busy connection brings, and their number.
    #[must_use]
    pub fn stream(&self) -> (Vec<u8>, usize) {
        let count = (64 * 1024 / self.bytes.len()).max(1);
        (self.bytes.repeat(count), count)
    }
}

/// What travels: mostly messages of 64 bytes and their acknowledgements; CONNECT and SUBSCRIBE once for each client.
#[must_use]
pub fn inputs() -> Vec<Input> {
    let payload = "x".repeat(64);
    // Topic of 19 bytes.
    let publish = |flags: &str, id: &str, properties: &str, len: &str| {
        bytes(&format!("3{flags} {len} 0013 'plant/7/temperature' {id} {properties} '{payload}'"))
    };
    let input = |name, version, bytes| Input { name, version, bytes };
    use Version::{V4, V5};
    vec![
        input("PUBLISH QoS 0, 3.1.1", V4, publish("0", "", "", "55")),
        input("PUBLISH QoS 1, 3.1.1", V4, publish("2", "1234", "", "57")),
        input("PUBLISH QoS 0, 5.0", V5, publish("0", "", "00", "56")),
        input("PUBLISH QoS 1, 5.0", V5, publish("2", "1234", "00", "58")),
        // Message expiry, content type, correlation data, one user property: 41 bytes.
        input(
            "PUBLISH QoS 1, 5.0, four properties",
            V5,
            publish(
                "2",
                "1234",
                "29 02 00000e10 03 0009'text/json' 09 0004 01020304 26 0006'origin' 0006'line-2'",
                "8101",
            ),
        ),
        input("PUBACK, 3.1.1", V4, bytes("40 02 1234")),
        input("PUBACK, 5.0", V5, bytes("40 02 1234")),
        // Will with a delay, user name, password; session expiry, receive maximum, topic alias maximum, a user property.
        input(
            "CONNECT, 5.0",
            V5,
            bytes(
                "10 75 0004'MQTT' 05 ee 003c \
                 1d 11 00000e10 21 0064 22 000a 26 0006'vendor' 0007'ever-mq' \
                 0010'plant-7-sensor-3' \
                 05 18 0000001e 000e'plant/7/status' 0007'offline' 0008'sensor-3' 0010'correct horse ok'",
            ),
        ),
        input(
            "SUBSCRIBE of 3, 5.0",
            V5,
            bytes("82 2d 0001 02 0b 07 0009'plant/+/#' 01 0013'plant/7/temperature' 02 0003'a/b' 2d"),
        ),
    ]
}
