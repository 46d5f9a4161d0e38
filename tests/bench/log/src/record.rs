//! What a broker stores of a message: its PUBLISH packet, with when and where it was published before it.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use evermq_store::{decode_publish, encode_publish};

/// Time, number and name of the broker.
const STAMP: usize = 24;
/// Messages that differ, so that compression finds in them what it would find in measured values, and not the same record again.
const KINDS: u64 = 4096;

/// The message of that number, with a payload of 64 bytes.
pub fn publish(number: u64) -> &'static Publish {
    &pool()[usize::try_from(number % KINDS).expect("small")].0
}

/// Its bytes, for who is given bytes.
pub fn sample(number: u64) -> &'static [u8] {
    &pool()[usize::try_from(number % KINDS).expect("small")].1
}

/// The message that a broker makes of them.
pub fn read(bytes: &[u8]) -> anyhow::Result<Publish> {
    Ok(decode_publish(&bytes[STAMP..])?)
}

fn pool() -> &'static [(Publish, BytesMut)] {
    static POOL: OnceLock<Vec<(Publish, BytesMut)>> = OnceLock::new();
    POOL.get_or_init(|| (0..KINDS).map(make).collect())
}

fn make(number: u64) -> (Publish, BytesMut) {
    // Digits that nothing tells before they come, from the same seed each time.
    let digits = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let payload = format!(
        "{{\"t\":{},\"value\":{:.3},\"unit\":\"C\",\"id\":\"{digits:016x}\"}}",
        1_700_000_000 + number,
        digits as f64 / 1e17
    );
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::new(Text::new(&format!("plant/{}/state", digits % 1000)).expect("short"))
            .expect("well-formed"),
        packet_id: None,
        properties: None,
        payload: Bytes::from(format!("{payload:<64}")),
    };
    let mut bytes = BytesMut::from(&digits.to_be_bytes().repeat(STAMP / 8)[..]);
    encode_publish(&publish, &mut bytes).expect("it is a packet");
    (publish, bytes)
}
