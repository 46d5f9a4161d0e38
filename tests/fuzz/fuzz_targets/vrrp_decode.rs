//! Any bytes as VRRP 2 and 3, over IPv4 and IPv6: no panic, and what is accepted is sent again as it came.

#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use evermq_config::Vrid;
use evermq_config::vip::{AuthPass, Checksum, VrrpVersion};
use evermq_vip::packet::{self, Identity, MAX_LENGTH, Received, TTL};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A whole packet, as a raw socket of IPv4 gives it, and a message alone.
    let four = packet::split_ipv4(bytes).ok();
    let alone = ["10.90.0.1", "fe80::aff:fe5a:1"].map(|source| Received {
        source: address(source),
        destination: address(if source.contains(':') { "ff02::12" } else { "224.0.0.18" }),
        ttl: TTL,
        message: bytes,
    });
    for received in four.into_iter().chain(alone) {
        for identity in identities() {
            let Ok(advert) = packet::decode(&received, &identity) else { continue };
            assert_eq!(advert.source, received.source);
            assert!(!advert.interval.is_zero());
            // The address list may be longer than ours, but an advert that says the same is accepted too.
            let mut message = [0; MAX_LENGTH];
            let again = Identity { interval: advert.interval, ..identity.clone() };
            let length = packet::encode(&again, advert.priority, received.source, received.destination, &mut message);
            let sent = Received { message: &message[..length], ..received };
            assert_eq!(packet::decode(&sent, &again), Ok(advert));
        }
    }
});

fn identities() -> [Identity; 4] {
    let identity = |version, addresses: &[&str], auth_pass| Identity {
        vrid: Vrid::new(51).expect("51 is a VRID"),
        version,
        addresses: addresses.iter().copied().map(address).collect(),
        interval: match version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => Duration::from_millis(20),
        },
        auth_pass,
        checksum: Checksum::Rfc,
    };
    [
        identity(VrrpVersion::V3, &["10.90.0.100", "10.90.0.101"], None),
        identity(VrrpVersion::V3, &["fe80::90:100", "fd90::100"], None),
        identity(VrrpVersion::V2, &["10.90.0.100"], None),
        identity(VrrpVersion::V2, &["10.90.0.100"], AuthPass::new("1234pass")),
    ]
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
