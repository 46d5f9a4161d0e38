//! Any bytes as a vote, as they are and with the right tag, cluster and receiver. What is accepted is sent again as it came.

#![no_main]

use evermq_quorum::Key;
use evermq_quorum::membership::{ClusterId, HostId};
use evermq_quorum::message::{LENGTH, decode, encode};
use libfuzzer_sys::fuzz_target;

const TAG_AT: usize = LENGTH - 32;

fuzz_target!(|bytes: &[u8]| {
    let key = Key::new(&[7; 32]).expect("32 bytes are enough");
    let (cluster, receiver) = (ClusterId(1), HostId(2));
    assert!(decode(bytes, cluster, receiver, &key).is_err(), "a forged tag");
    let Ok(mut bytes) = <[u8; LENGTH]>::try_from(bytes) else { return };
    bytes[8..16].copy_from_slice(&cluster.0.to_be_bytes());
    bytes[24..32].copy_from_slice(&receiver.0.to_be_bytes());
    let tag = key.tag(&bytes[..TAG_AT]);
    bytes[TAG_AT..].copy_from_slice(&tag);
    if let Ok(message) = decode(&bytes, cluster, receiver, &key) {
        assert_eq!(decode(&encode(&message, &key), cluster, receiver, &key), Ok(message));
    }
});
