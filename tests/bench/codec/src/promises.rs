//! Headers that announce more than ever comes: what does a codec set aside before it knows that it may?

use bytes::BytesMut;

use crate::allocations;
use crate::codecs::{Codec, Version};

/// A fixed header that announces 268,435,455 bytes, and the first few of them.
const HEADERS: [&[u8]; 3] =
    [b"\x30\xff\xff\xff\x7f\x00\x01t", b"\x10\xff\xff\xff\x7f\x00\x04MQTT", b"\x82\xff\xff\xff\x7f\x00\x01\x00"];

/// Most bytes held for one such header, with a limit of `limit`, over all headers and both versions.
#[must_use]
pub fn held<C: Codec>(limit: u32) -> i64 {
    let mut most = 0;
    for version in [Version::V4, Version::V5] {
        for header in HEADERS {
            let mut stream = C::stream(version, limit);
            let mut input = BytesMut::from(header);
            allocations::reset();
            let decoded = C::decode(&mut stream, &mut input);
            most = most.max(allocations::counts().peak);
            drop(decoded);
        }
    }
    most
}
