use proptest::prelude::*;

use super::*;

macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/captures/vrrp/keepalived-", $name, ".hex"))
    };
}

const MULTICAST: &str = capture!("v3-multicast");
const OLD_UNICAST: &str = capture!("v3-unicast-old-checksum");
const VERSION_2: &str = capture!("v2-multicast");
const PASSWORD: &str = capture!("v2-auth-pass");
const IPV6: &str = capture!("v3-ipv6-multicast");
const HOP_LIMIT_64: &str = capture!("v3-ipv6-unicast");

const KEEPALIVED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 90, 0, 1));

/// A packet taken apart, as [`Received`] is, but on its own.
#[derive(Debug, Clone)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    message: Vec<u8>,
}

impl Packet {
    fn received(&self) -> Received<'_> {
        Received { source: self.source, destination: self.destination, ttl: self.ttl, message: &self.message }
    }

    fn decode(&self, identity: &Identity) -> Result<Advert, DecodeError> {
        decode(&self.received(), identity)
    }

    /// The message's checksum made right again, without a pseudo-header.
    fn resum(&mut self) {
        self.message[6..8].fill(0);
        let checksum = checksum::of_version_2(&self.message);
        self.message[6..8].copy_from_slice(&checksum);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut packet = self.clone();
        change(&mut packet.message);
        packet.resum();
        packet
    }
}

fn bytes(hex: &str) -> Vec<Vec<u8>> {
    hex.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let digits: Vec<_> = line.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
            digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
        })
        .collect()
}

/// The packets of a capture: the first advertisement, and the last one, which leaves.
fn packets(hex: &str) -> [Packet; 2] {
    let packets = bytes(hex).into_iter().map(|bytes| {
        let six = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
        if bytes[0] >> 4 == 6 {
            return Packet { source: six(8), destination: six(24), ttl: bytes[7], message: bytes[40..].to_vec() };
        }
        let Received { source, destination, ttl, message } = split_ipv4(&bytes).unwrap();
        Packet { source, destination, ttl, message: message.to_vec() }
    });
    packets.collect::<Vec<_>>().try_into().unwrap()
}

fn first(hex: &str) -> Packet {
    let [first, _] = packets(hex);
    first
}

fn identity(version: VrrpVersion, addresses: &[&str], password: Option<&str>) -> Identity {
    Identity {
        vrid: Vrid::new(51).unwrap(),
        version,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        interval: match version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => Duration::from_millis(20),
        },
        auth_pass: password.map(|password| AuthPass::new(password).unwrap()),
        checksum: Checksum::Rfc,
    }
}

fn v3() -> Identity {
    identity(VrrpVersion::V3, &["10.90.0.100"], None)
}

fn v2() -> Identity {
    identity(VrrpVersion::V2, &["10.90.0.100"], None)
}

fn with_password() -> Identity {
    identity(VrrpVersion::V2, &["10.90.0.100"], Some("1234pass"))
}

fn v6() -> Identity {
    identity(VrrpVersion::V3, &["fe80::90:100", "fd90::100"], None)
}

/// Every capture whose packets a virtual router takes, and that router.
fn captures() -> Vec<(&'static str, Identity)> {
    let three = ["10.90.0.102", "10.90.0.100", "10.90.0.101"];
    vec![
        (MULTICAST, v3()),
        (capture!("v3-unicast"), v3()),
        (OLD_UNICAST, Identity { checksum: Checksum::OldUnicast, ..v3() }),
        (capture!("v3-addresses"), identity(VrrpVersion::V3, &three, None)),
        (IPV6, v6()),
        (capture!("v3-ipv6-unicast-ttl"), v6()),
        (capture!("v3-ipv6-global"), identity(VrrpVersion::V3, &["fd90::100"], None)),
        (VERSION_2, v2()),
        (capture!("v2-unicast"), v2()),
        (capture!("v2-addresses"), identity(VrrpVersion::V2, &three, None)),
        (PASSWORD, with_password()),
        (capture!("v2-auth-pass-short"), identity(VrrpVersion::V2, &["10.90.0.100"], Some("abc"))),
        (capture!("v2-auth-pass-unicast"), with_password()),
        (capture!("v2-auth-pass-addresses"), identity(VrrpVersion::V2, &three, Some("1234pass"))),
    ]
}

#[test]
fn keepaliveds_adverts_are_understood() {
    for (capture, identity) in captures() {
        for (packet, priority) in packets(capture).iter().zip([150, 0]) {
            let expected = Advert { source: packet.source, priority, interval: identity.interval };
            assert_eq!(packet.decode(&identity), Ok(expected), "{capture}");
        }
    }
}

#[test]
fn ours_are_byte_for_byte_keepaliveds() {
    for (capture, identity) in captures() {
        for (packet, priority) in packets(capture).iter().zip([150, 0]) {
            // What was there before does not shine through.
            let mut message = [0xff; MAX_LENGTH];
            let length = encode(&identity, priority, packet.source, packet.destination, &mut message);
            assert_eq!(message[..length], packet.message, "{capture}");
        }
    }
}

#[test]
fn a_checksum_of_any_form_is_accepted_whichever_is_sent() {
    for sent in [Checksum::Rfc, Checksum::OldUnicast, Checksum::NoPseudoHeader] {
        let mut packet = first(capture!("v3-unicast"));
        let mut message = [0; MAX_LENGTH];
        let length = encode(&Identity { checksum: sent, ..v3() }, 150, packet.source, packet.destination, &mut message);
        packet.message = message[..length].to_vec();
        for own in [Checksum::Rfc, Checksum::OldUnicast, Checksum::NoPseudoHeader] {
            assert_eq!(packet.decode(&Identity { checksum: own, ..v3() }).unwrap().priority, 150);
        }
    }
    let forms = [Checksum::Rfc, Checksum::OldUnicast, Checksum::NoPseudoHeader].map(|checksum| {
        let mut message = [0; MAX_LENGTH];
        let peer = "10.90.0.2".parse().unwrap();
        encode(&Identity { checksum, ..v3() }, 150, KEEPALIVED, peer, &mut message);
        [message[6], message[7]]
    });
    assert!(forms[0] != forms[1] && forms[1] != forms[2] && forms[0] != forms[2]);
}

#[test]
fn over_ipv6_there_is_one_form_of_the_checksum() {
    let mut packet = first(IPV6);
    packet.resum();
    assert_eq!(packet.decode(&v6()), Err(DecodeError::Checksum));
    let mut message = [0; MAX_LENGTH];
    let identity = Identity { checksum: Checksum::NoPseudoHeader, ..v6() };
    let length = encode(&identity, 150, packet.source, packet.destination, &mut message);
    assert_eq!(message[..length], first(IPV6).message);
}

#[test]
fn versions_are_told_apart() {
    assert_eq!(first(VERSION_2).decode(&v3()), Err(DecodeError::Version { theirs: 2, ours: 3 }));
    assert_eq!(first(MULTICAST).decode(&v2()), Err(DecodeError::Version { theirs: 3, ours: 2 }));
}

#[test]
fn the_ttl_counts_on_unicast_too() {
    assert_eq!(first(HOP_LIMIT_64).decode(&v6()), Err(DecodeError::Ttl(64)));
    let packet = Packet { ttl: 254, ..first(capture!("v2-unicast")) };
    assert_eq!(packet.decode(&v2()), Err(DecodeError::Ttl(254)));
}

#[test]
fn each_check_of_version_3_has_its_error() {
    let good = first(MULTICAST);
    let check = |packet: Packet| packet.decode(&v3());
    let changed = |at: usize, value: u8| check(good.change(|message| message[at] = value));
    assert_eq!(check(Packet { ttl: 254, ..good.clone() }), Err(DecodeError::Ttl(254)));
    assert_eq!(changed(0, 0x41), Err(DecodeError::Version { theirs: 4, ours: 3 }));
    assert_eq!(changed(0, 0x32), Err(DecodeError::Type(2)));
    assert_eq!(changed(1, 52), Err(DecodeError::Vrid(52)));
    assert_eq!(changed(11, 101), Err(DecodeError::AddressList));
    assert_eq!(changed(5, 0), Err(DecodeError::Interval(Duration::ZERO)));
    assert_eq!(changed(3, 0), Err(DecodeError::Length));
    assert_eq!(changed(3, 2), Err(DecodeError::Length));
    let mut wrong = good.clone();
    wrong.message[2] ^= 1;
    assert_eq!(check(wrong), Err(DecodeError::Checksum));
    for length in 0..good.message.len() {
        let short = Packet { message: good.message[..length].to_vec(), ..good.clone() };
        assert_eq!(check(short), Err(DecodeError::Length), "{length} bytes");
    }
}

#[test]
fn each_check_of_version_2_has_its_error() {
    let good = first(PASSWORD);
    let check = |packet: &Packet| packet.decode(&with_password());
    let changed = |at: usize, value: u8| check(&good.change(|message| message[at] = value));
    assert_eq!(changed(0, 0x22), Err(DecodeError::Type(2)));
    assert_eq!(changed(1, 52), Err(DecodeError::Vrid(52)));
    assert_eq!(changed(4, 2), Err(DecodeError::AuthTypeUnknown(2)));
    assert_eq!(changed(4, 0), Err(DecodeError::AuthType { theirs: 0, ours: 1 }));
    assert_eq!(changed(5, 2), Err(DecodeError::Interval(Duration::from_secs(2))));
    assert_eq!(changed(11, 101), Err(DecodeError::AddressList));
    for at in 12..20 {
        assert_eq!(changed(at, b'x'), Err(DecodeError::AuthFailure), "byte {at}");
    }
    assert_eq!(good.decode(&v2()), Err(DecodeError::AuthType { theirs: 1, ours: 0 }));
    assert_eq!(changed(3, 0), Err(DecodeError::Length));
    assert_eq!(changed(3, 2), Err(DecodeError::Length));
    let mut wrong = good.clone();
    wrong.message[2] ^= 1;
    assert_eq!(check(&wrong), Err(DecodeError::Checksum));
    for length in 0..good.message.len() {
        let short = Packet { message: good.message[..length].to_vec(), ..good.clone() };
        assert_eq!(check(&short), Err(DecodeError::Length), "{length} bytes");
    }
    // Without a password nobody looks at the field of it.
    let packet = first(VERSION_2).change(|message| message[12] = 1);
    assert_eq!(packet.decode(&v2()).unwrap().priority, 150);
}

#[test]
fn a_password_shows_up_in_no_text() {
    let error = first(PASSWORD).decode(&identity(VrrpVersion::V2, &["10.90.0.100"], Some("secret77"))).unwrap_err();
    let texts = [error.to_string(), format!("{error:?}"), format!("{:?}", with_password())];
    assert!(texts.iter().all(|text| !text.contains("1234") && !text.contains("secret77")), "{texts:?}");
}

#[test]
fn one_of_the_addresses_is_enough_and_another_family_is_another_router() {
    let packet = first(capture!("v3-addresses"));
    for address in ["10.90.0.100", "10.90.0.101", "10.90.0.102"] {
        let other = identity(VrrpVersion::V3, &[address, "10.90.0.7"], None);
        assert_eq!(packet.decode(&other).unwrap().priority, 150);
    }
    let second = identity(VrrpVersion::V3, &["10.90.0.7", "10.90.0.100"], None);
    assert_eq!(packet.decode(&second), Err(DecodeError::AddressList));
    assert_eq!(first(MULTICAST).decode(&v6()), Err(DecodeError::AddressList));
    assert_eq!(first(IPV6).decode(&v3()), Err(DecodeError::AddressList));
    let nameless = Identity { addresses: Vec::new(), ..v3() };
    assert_eq!(packet.decode(&nameless), Err(DecodeError::AddressList));
}

#[test]
fn ip_options_and_padding_are_skipped() {
    let mut packet = bytes(MULTICAST).remove(0);
    packet[0] = 0x46;
    packet[3] += 4;
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet.extend([0; 14]);
    assert_eq!(decode(&split_ipv4(&packet).unwrap(), &v3()).unwrap().priority, 150);
}

#[test]
fn a_header_length_below_twenty_is_no_way_into_the_header() {
    let mut packet = bytes(MULTICAST).remove(0);
    packet[0] = 0x40;
    assert_eq!(decode(&split_ipv4(&packet).unwrap(), &v3()).unwrap().source, KEEPALIVED);
    for length in 0..packet.len() {
        assert_eq!(split_ipv4(&packet[..length]).unwrap_err(), DecodeError::Length);
    }
}

#[test]
fn reserved_bits_are_ignored_and_the_longest_intervals_fit() {
    let packet = first(MULTICAST).change(|message| message[4..6].copy_from_slice(&[0xff, 0xff]));
    let longest = Duration::from_millis(40_950);
    assert_eq!(packet.decode(&v3()).unwrap().interval, longest);
    let mut message = [0; MAX_LENGTH];
    encode(&Identity { interval: longest * 2, ..v3() }, 100, KEEPALIVED, GROUP_V4.into(), &mut message);
    assert_eq!(message[4..6], [0x0f, 0xff]);
    encode(&Identity { interval: longest * 9, ..v2() }, 100, KEEPALIVED, GROUP_V4.into(), &mut message);
    assert_eq!(message[5], 255);
}

#[test]
fn the_longest_list_fits() {
    let most: Vec<IpAddr> = (0..30).map(|n| Ipv6Addr::new(0xfd90, 0, 0, 0, 0, 0, 0, n).into()).collect();
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        let identity = Identity { addresses: most.clone(), ..identity(version, &[], None) };
        let mut message = [0; MAX_LENGTH];
        encode(&identity, 1, KEEPALIVED, KEEPALIVED, &mut message);
        assert_eq!(usize::from(message[3]), MAX_ADDRESSES);
    }
}

fn any_identity() -> impl Strategy<Value = Identity> {
    let four = prop::collection::vec(any::<Ipv4Addr>().prop_map(IpAddr::V4), 1..=MAX_ADDRESSES);
    let six = prop::collection::vec(any::<Ipv6Addr>().prop_map(IpAddr::V6), 1..=MAX_ADDRESSES);
    let checksum = prop_oneof![Just(Checksum::Rfc), Just(Checksum::OldUnicast), Just(Checksum::NoPseudoHeader)];
    let password = prop::option::of("[!-~]{1,8}".prop_map(|text| AuthPass::new(&text).unwrap()));
    (any::<bool>(), prop_oneof![four, six], checksum, password, 1_u8..=255, 1_u32..=255).prop_map(
        |(old, addresses, checksum, auth_pass, vrid, count)| {
            let old = old && addresses[0].is_ipv4();
            let (version, unit) = if old { (VrrpVersion::V2, 1000) } else { (VrrpVersion::V3, 10) };
            let interval = Duration::from_millis(unit) * count;
            Identity { vrid: Vrid::new(vrid).unwrap(), version, addresses, interval, auth_pass, checksum }
        },
    )
}

proptest! {
    #[test]
    fn bytes_of_any_kind_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        identity in any_identity(),
        source: IpAddr,
        destination: IpAddr,
    ) {
        if let Ok(received) = split_ipv4(&bytes) {
            let _ = decode(&received, &identity);
        }
        let _ = decode(&Received { source, destination, ttl: TTL, message: &bytes }, &identity);
    }

    #[test]
    fn one_changed_bit_never_changes_what_is_read(which in 0..14_usize, at in 0_usize..400, bit in 0_u8..8) {
        let (capture, identity) = captures().swap_remove(which);
        let mut packet = first(capture);
        let at = at % packet.message.len();
        packet.message[at] ^= 1 << bit;
        prop_assert!(packet.decode(&identity).is_err());
    }

    #[test]
    fn what_is_sent_is_what_is_read(identity in any_identity(), priority: u8, from: [u8; 16], to: [u8; 16]) {
        let address = |bytes: [u8; 16]| match identity.addresses[0] {
            IpAddr::V4(_) => IpAddr::from(*bytes.first_chunk::<4>().unwrap()),
            IpAddr::V6(_) => IpAddr::from(bytes),
        };
        let (source, destination) = (address(from), address(to));
        let mut message = [0xff; MAX_LENGTH];
        let length = encode(&identity, priority, source, destination, &mut message);
        let received = Received { source, destination, ttl: TTL, message: &message[..length] };
        let expected = Advert { source, priority, interval: identity.interval };
        prop_assert_eq!(decode(&received, &identity), Ok(expected));
    }

    #[test]
    fn nothing_is_accepted_that_could_not_have_been_sent(
        which in 0..14_usize,
        changes in prop::collection::vec((0_usize..400, any::<u8>()), 0..6),
        repair: bool,
    ) {
        let (capture, identity) = captures().swap_remove(which);
        let mut packet = first(capture);
        for (at, value) in changes {
            let at = at % packet.message.len();
            packet.message[at] = value;
        }
        if repair {
            packet.resum();
        }
        if let Ok(advert) = packet.decode(&identity) {
            prop_assert!(could_be_sent(&packet, &identity, advert), "{:?}", packet);
        }
    }
}

/// Whether `encode` gives this very message for some router of this VRID: reserved bits aside, and the password's field where
/// there is none.
fn could_be_sent(packet: &Packet, identity: &Identity, advert: Advert) -> bool {
    let width = if packet.source.is_ipv6() { 16 } else { 4 };
    let end = HEADER + usize::from(packet.message[3]) * width;
    let address = |octets: &[u8]| match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
    };
    let addresses: Vec<_> = packet.message[HEADER..end].chunks(width).map(address).collect();
    if !addresses.contains(&identity.addresses[0]) || advert.interval.is_zero() {
        return false;
    }
    let mut clean = packet.message.clone();
    match identity.version {
        VrrpVersion::V3 => clean[4] &= 0x0f,
        VrrpVersion::V2 if identity.auth_pass.is_none() => clean[end..].fill(0),
        VrrpVersion::V2 => {}
    }
    clean[6..8].fill(0);
    let mut message = [0; MAX_LENGTH];
    let sender = Identity { addresses, interval: advert.interval, ..identity.clone() };
    let length = encode(&sender, advert.priority, packet.source, packet.destination, &mut message);
    message[6..8].fill(0);
    // The checksum is another test's business: here a third form of it may be right.
    message[..length] == clean[..] && advert.source == packet.source
}
