//! Any bytes as what one lb tells another. What is accepted is sent again as it came.

#![no_main]

use bytes::BytesMut;
use evermq_lb::peers::frame::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(frame)) = decode(&mut input) {
        let mut output = BytesMut::new();
        encode(&frame, &mut output);
        assert_eq!(decode(&mut output), Ok(Some(frame)));
        assert!(output.is_empty());
    }
});
