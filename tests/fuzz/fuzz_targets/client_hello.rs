//! Any bytes as what a client says first where TLS passes through.

#![no_main]

use evermq_lb::client_hello::{Look, MAX, look};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = look(bytes);
    assert!(whole != Look::NeedMore || bytes.len() < MAX);
    let half = look(&bytes[..bytes.len() / 2]);
    assert!(half == Look::NeedMore || half == whole);
});
