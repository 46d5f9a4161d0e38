//! Any bytes as a PROXY protocol header. What is accepted is sent again as it came, but for IPv4 written as IPv6.

#![no_main]

use evermq_daemon::proxy_protocol::{Header, MAX, Parsed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    assert!(whole != Parsed::NeedMore || bytes.len() < MAX);
    let half = parse(&bytes[..bytes.len() / 2]);
    assert!(half == Parsed::NeedMore || half == whole);
    if let Parsed::Header { header, .. } = whole {
        let sent = again(&header);
        assert_eq!(again(&sent), sent);
    }
});

fn again(header: &Header) -> Header {
    let mut out = Vec::new();
    header.encode_v2(&mut out);
    match parse(&out) {
        Parsed::Header { header, length } if length == out.len() => header,
        other => panic!("{other:?}"),
    }
}
