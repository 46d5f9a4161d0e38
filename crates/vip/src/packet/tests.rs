use proptest::prelude::*;

use super::*;

const MULTICAST: &str = include_str!("../../../../tests/captures/vrrp/keepalived-v3-multicast.hex");
const UNICAST: &str = include_str!("../../../../tests/captures/vrrp/keepalived-v3-unicast.hex");
const OLD_UNICAST: &str = include_str!("../../../../tests/captures/vrrp/keepalived-v3-unicast-old-checksum.hex");
const VERSION_2: &str = include_str!("../../../../tests/captures/vrrp/keepalived-v2-multicast.hex");

const KEEPALIVED: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);

fn identity() -> Identity {
    Identity {
        vrid: Vrid::new(51).unwrap(),
        address: Ipv4Addr::new(10, 90, 0, 100),
        interval: Duration::from_millis(20),
    }
}

/// The packets of a capture: the first advertisement and the last one, which leaves.
fn packets(hex: &str) -> [Vec<u8>; 2] {
    let packets: Vec<Vec<u8>> = hex
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let digits: Vec<_> = line.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
            digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
        })
        .collect();
    packets.try_into().unwrap()
}

fn multicast() -> Vec<u8> {
    packets(MULTICAST).into_iter().next().unwrap()
}

/// The message's checksum made right again, without a pseudo-header.
fn resum(packet: &mut [u8]) {
    packet[26..28].fill(0);
    let checksum = !fold(sum(&packet[20..]));
    packet[26..28].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn keepaliveds_adverts_are_understood() {
    for capture in [MULTICAST, UNICAST, OLD_UNICAST] {
        for (packet, priority) in packets(capture).iter().zip([150, 0]) {
            let expected = Advert { source: KEEPALIVED, priority, interval: Duration::from_millis(20) };
            assert_eq!(decode(packet, &identity()), Ok(expected));
            assert_eq!(source(packet), Some(KEEPALIVED));
        }
    }
}

#[test]
fn ours_are_byte_for_byte_keepaliveds() {
    for (capture, destination) in [(MULTICAST, GROUP), (UNICAST, PEER)] {
        for (packet, priority) in packets(capture).iter().zip([150, 0]) {
            assert_eq!(encode(&identity(), priority, KEEPALIVED, destination), packet[20..]);
        }
    }
}

#[test]
fn a_checksum_without_pseudo_header_is_accepted() {
    let mut packet = multicast();
    let before = packet.clone();
    resum(&mut packet);
    assert_ne!(packet, before);
    assert_eq!(decode(&packet, &identity()).unwrap().priority, 150);
}

#[test]
fn vrrp_2_is_told_apart() {
    for packet in packets(VERSION_2) {
        assert_eq!(decode(&packet, &identity()), Err(DecodeError::Version(2)));
    }
}

#[test]
fn each_check_has_its_error() {
    let broken = |change: fn(&mut Vec<u8>)| {
        let mut packet = multicast();
        change(&mut packet);
        decode(&packet, &identity())
    };
    assert_eq!(broken(|packet| packet[8] = 254), Err(DecodeError::Ttl(254)));
    assert_eq!(broken(|packet| packet[20] = 0x41), Err(DecodeError::Version(4)));
    assert_eq!(broken(|packet| packet[20] = 0x32), Err(DecodeError::Type(2)));
    assert_eq!(broken(|packet| packet[22] ^= 1), Err(DecodeError::Checksum));
    let resummed = |packet: &mut Vec<u8>, at: usize, value: u8| {
        packet[at] = value;
        resum(packet);
        decode(packet, &identity())
    };
    assert_eq!(resummed(&mut multicast(), 21, 52), Err(DecodeError::Vrid(52)));
    assert_eq!(resummed(&mut multicast(), 31, 101), Err(DecodeError::AddressList));
    assert_eq!(resummed(&mut multicast(), 25, 0), Err(DecodeError::Interval));
    assert_eq!(resummed(&mut multicast(), 23, 0), Err(DecodeError::Length));
    assert_eq!(resummed(&mut multicast(), 23, 2), Err(DecodeError::Length));
    assert_eq!(decode(&[], &identity()), Err(DecodeError::Length));
    for length in 0..32 {
        assert_eq!(decode(&multicast()[..length], &identity()), Err(DecodeError::Length), "{length} bytes");
    }
}

#[test]
fn ip_options_and_padding_are_skipped() {
    let mut packet = multicast();
    packet[0] = 0x46;
    packet[3] += 4;
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet.extend([0; 14]);
    assert_eq!(decode(&packet, &identity()).unwrap().priority, 150);
}

#[test]
fn a_header_length_below_twenty_is_no_way_into_the_header() {
    let mut packet = multicast();
    packet[0] = 0x40;
    assert_eq!(decode(&packet, &identity()).unwrap().source, KEEPALIVED);
}

#[test]
fn more_addresses_than_ours_are_still_our_virtual_router() {
    let mut packet = multicast();
    packet[3] += 4;
    packet[23] = 2;
    packet.splice(28..28, [10, 90, 0, 99]);
    resum(&mut packet);
    assert_eq!(decode(&packet, &identity()).unwrap().priority, 150);
}

#[test]
fn reserved_bits_are_ignored_and_the_longest_interval_fits() {
    let mut packet = multicast();
    packet[24..26].copy_from_slice(&[0xff, 0xff]);
    resum(&mut packet);
    let longest = Duration::from_millis(40_950);
    assert_eq!(decode(&packet, &identity()).unwrap().interval, longest);
    let message = encode(&Identity { interval: longest, ..identity() }, 100, KEEPALIVED, GROUP);
    assert_eq!(message[4..6], [0x0f, 0xff]);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&bytes, &identity());
    }

    #[test]
    fn one_changed_bit_never_changes_what_is_read(at in 20_usize..32, bit in 0_u8..8) {
        let mut packet = multicast();
        packet[at] ^= 1 << bit;
        prop_assert!(decode(&packet, &identity()).is_err());
    }

    #[test]
    fn what_is_sent_is_what_is_read(
        vrid in 1_u8..=255,
        priority: u8,
        address: Ipv4Addr,
        from: Ipv4Addr,
        to: Ipv4Addr,
        centiseconds in 1_u32..=4095,
    ) {
        let interval = Duration::from_millis(10) * centiseconds;
        let identity = Identity { vrid: Vrid::new(vrid).unwrap(), address, interval };
        let mut packet = vec![0x45, 0xc0, 0, 32, 0, 0, 0, 0, 255, PROTOCOL, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(encode(&identity, priority, from, to));
        prop_assert_eq!(decode(&packet, &identity), Ok(Advert { source: from, priority, interval }));
    }
}
