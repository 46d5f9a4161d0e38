//! Durations, sizes and networks as they are written in the file.

use std::net::Ipv4Addr;
use std::time::Duration;

/// Units of a duration, in milliseconds.
const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Units of a size in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A duration such as `20ms`, `1s`, `5m`, `12h`, `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    quantity(text, DURATION_UNITS).map(Duration::from_millis)
}

/// A size in bytes such as `64KiB`, `1MiB`, `512B`.
pub(crate) fn size(text: &str) -> Option<u64> {
    quantity(text, SIZE_UNITS)
}

/// A size in the largest unit that shows it exactly.
pub(crate) fn show_size(bytes: u64) -> String {
    let (name, factor) = SIZE_UNITS
        .iter()
        .filter(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor)
        .max_by_key(|(_, factor)| factor)
        .unwrap_or(&("B", 1));
    format!("{}{name}", bytes / factor)
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// An IPv4 network such as `192.168.10.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_length: u8,
}

impl Network {
    /// The network of `prefix_length` that holds `address`.
    pub(crate) fn around(address: Ipv4Addr, prefix_length: u8) -> Self {
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask(prefix_length)), prefix_length }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let network = Self { address: address.parse().ok()?, prefix_length: length.parse().ok()? };
        (network.prefix_length <= 32 && network == Self::around(network.address, network.prefix_length))
            .then_some(network)
    }

    /// Whether `address` is one that a host of the network can have.
    pub(crate) fn has_host(self, address: Ipv4Addr) -> bool {
        let host_bits = address.to_bits() & !mask(self.prefix_length);
        let special = self.prefix_length < 31 && (host_bits == 0 || host_bits == !mask(self.prefix_length));
        Self::around(address, self.prefix_length) == self && !special
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

fn mask(prefix_length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("20ms"), Some(Duration::from_millis(20)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(size("64KiB"), Some(65_536));
        for bad in ["", "20", "ms", "1.5s", "-1s", "20 parsecs", "99999999999999999d", "1S"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(show_size(1 << 20), "1MiB");
        assert_eq!(show_size(0), "0B");
    }

    #[test]
    fn networks() {
        let network = Network::parse("192.168.10.0/24").expect("a network");
        assert!(network.has_host(Ipv4Addr::new(192, 168, 10, 9)));
        for other in [[192, 168, 11, 9], [192, 168, 10, 0], [192, 168, 10, 255]] {
            assert!(!network.has_host(other.into()), "{other:?}");
        }
        assert_eq!(Network::parse("192.168.10.1/24"), None, "host bits set");
        assert_eq!(Network::parse("192.168.10.0/33"), None);
        assert!(Network::parse("0.0.0.0/0").expect("everything").has_host([1, 2, 3, 4].into()));
    }
}
