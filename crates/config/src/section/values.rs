//! Values of each kind, with what to write where one is none.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::Section;
use crate::lb::IpNetwork;
use crate::value;

impl Section<'_> {
    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let value = self.read(key, "true or false", DeValue::as_bool);
        self.or_default(key, value, default)
    }

    pub(crate) fn integer<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let value = self.optional_integer(key, &range, default);
        self.or_default(key, value, default)
    }

    pub(crate) fn optional_integer<T>(&mut self, key: &'static str, range: &RangeInclusive<T>, example: T) -> Option<T>
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let wanted = format!("a whole number from {} to {}, such as {example}", range.start(), range.end());
        self.read(key, &wanted, |value| {
            let integer = value.as_integer()?;
            let number = T::try_from(i64::from_str_radix(integer.as_str(), integer.radix()).ok()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    pub(crate) fn duration(&mut self, key: &'static str, default: &str, range: RangeInclusive<&str>) -> Duration {
        let parse = |text| value::duration(text).expect("defaults are durations");
        let (least, most) = (parse(range.start()), parse(range.end()));
        let wanted = format!(
            "a duration from {} to {}, such as \"{default}\" (units: ms, s, m, h, d)",
            range.start(),
            range.end()
        );
        let value = self.read(key, &wanted, |value| {
            value::duration(value.as_str()?).filter(|duration| (least..=most).contains(duration))
        });
        self.or_default(key, value, parse(default))
    }

    pub(crate) fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let wanted = format!(
            "a size from {} to {}, such as \"{}\" (units: B, KiB, MiB, GiB)",
            value::show_size(*range.start()),
            value::show_size(*range.end()),
            value::show_size(default)
        );
        let value = self.read(key, &wanted, |value| value::size(value.as_str()?).filter(|size| range.contains(size)));
        self.or_default(key, value, default)
    }

    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let value = self.optional_choice(key, choices);
        let default = choices.first().expect("the first choice is the default").1;
        self.or_default(key, value, default)
    }

    /// One of `choices`; none where the key is left out.
    pub(crate) fn optional_choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.read(key, &names.join(" or "), |value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
    }

    /// A number that stands for one of `choices`, the first of which is the default.
    pub(crate) fn choice_of<T: Copy>(&mut self, key: &'static str, choices: &[(u8, T)]) -> T {
        let numbers: Vec<_> = choices.iter().map(|(number, _)| number.to_string()).collect();
        let value = self.read(key, &numbers.join(" or "), |value| {
            let integer = value.as_integer()?;
            let number = u8::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            choices.iter().find(|(choice, _)| *choice == number).map(|(_, choice)| *choice)
        });
        let default = choices.first().expect("the first choice is the default").1;
        self.or_default(key, value, default)
    }

    /// A list of at least one string, of which the first is not empty.
    pub(crate) fn strings(&mut self, key: &'static str, wanted: &str) -> Option<Vec<String>> {
        self.read(key, wanted, |value| {
            let strings = value.as_array()?.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned));
            let strings: Vec<String> = strings.collect::<Option<_>>()?;
            let good =
                strings.first().is_some_and(|first| !first.is_empty()) && !strings.iter().any(|s| s.contains('\0'));
            good.then_some(strings)
        })
    }

    /// A list of at least one string, all of which are good.
    pub(crate) fn names(&mut self, key: &'static str, wanted: &str, is_good: fn(&str) -> bool) -> Option<Vec<String>> {
        self.read(key, wanted, |value| {
            let names = value.as_array()?.iter().map(|entry| entry.get_ref().as_str().filter(|name| is_good(name)));
            let names: Vec<String> = names.map(|name| name.map(str::to_owned)).collect::<Option<_>>()?;
            (!names.is_empty()).then_some(names)
        })
    }

    /// A string that `parse` takes.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.read(key, wanted, |value| parse(value.as_str()?))
    }

    pub(crate) fn address(&mut self, key: &'static str, example: &str) -> Option<Ipv4Addr> {
        let wanted = format!("an IPv4 address of a host, such as \"{example}\"");
        let value = self.parsed(key, &wanted, |text| {
            text.parse().ok().filter(|address: &Ipv4Addr| is_a_hosts(IpAddr::V4(*address)))
        });
        self.required(key, value, &format!("\"{example}\""))
    }

    pub(crate) fn optional_address(&mut self, key: &'static str, example: &str) -> Option<Ipv4Addr> {
        let wanted = format!("an IPv4 address of a host, such as \"{example}\"");
        self.parsed(key, &wanted, |text| text.parse().ok().filter(|address| is_a_hosts(IpAddr::V4(*address))))
    }

    pub(crate) fn optional_address6(&mut self, key: &'static str, example: &str) -> Option<Ipv6Addr> {
        let wanted = format!("an IPv6 address of a host, such as \"{example}\"");
        self.parsed(key, &wanted, |text| text.parse().ok().filter(|address| is_a_hosts(IpAddr::V6(*address))))
    }

    /// A virtual address of either family.
    pub(crate) fn virtual_address(&mut self, key: &'static str, example: &str) -> Option<IpAddr> {
        let wanted = format!("an IPv4 or IPv6 address of a host, such as \"{example}\"");
        self.parsed(key, &wanted, virtual_address)
    }

    /// At most `most` of them.
    pub(crate) fn virtual_addresses(&mut self, key: &'static str, example: &str, most: usize) -> Option<Vec<IpAddr>> {
        let wanted = format!("a list of at most {most} addresses, such as {example}");
        self.read(key, &wanted, |value| {
            let addresses = value.as_array()?.iter().map(|entry| virtual_address(entry.get_ref().as_str()?));
            addresses.collect::<Option<Vec<_>>>().filter(|addresses| addresses.len() <= most)
        })
    }

    pub(crate) fn socket_address(&mut self, key: &'static str, default: &str) -> SocketAddr {
        let value = self.optional_socket_address(key, default);
        self.or_default(key, value, default.parse().expect("defaults are addresses"))
    }

    pub(crate) fn optional_socket_address(&mut self, key: &'static str, example: &str) -> Option<SocketAddr> {
        let wanted = format!("an address and a port, such as \"{example}\"");
        self.parsed(key, &wanted, |text| text.parse().ok().filter(|address: &SocketAddr| address.port() != 0))
    }

    /// A list of networks of either family, empty where it is left out.
    pub(crate) fn networks(&mut self, key: &'static str, example: &str) -> Vec<IpNetwork> {
        let wanted = format!("a list of addresses or networks, such as {example}");
        let networks = self.read(key, &wanted, |value| {
            value.as_array()?.iter().map(|entry| IpNetwork::parse(entry.get_ref().as_str()?)).collect()
        });
        self.or_default(key, networks, Vec::new())
    }

    /// A path, taken from the file's directory where it is relative.
    pub(crate) fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        let wanted = format!("a path, such as \"{default}\"");
        let value = self.parsed(key, &wanted, |text| (!text.is_empty()).then(|| text.to_owned()));
        let path = self.or_default(key, value, default.to_owned());
        self.absolute(&path)
    }

    /// Likewise, for a key that may be left out.
    pub(crate) fn optional_path(&mut self, key: &'static str, example: &str) -> Option<PathBuf> {
        let wanted = format!("a path, such as \"{example}\"");
        let path = self.parsed(key, &wanted, |text| (!text.is_empty()).then(|| text.to_owned()))?;
        Some(self.absolute(&path))
    }

    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        let directory = self.source.path.parent().unwrap_or_else(|| Path::new(""));
        let directory = if directory.is_absolute() {
            directory.to_owned()
        } else {
            std::env::current_dir().unwrap_or_default().join(directory)
        };
        directory.join(path)
    }
}

fn virtual_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address| is_a_hosts(*address))
}

/// Whether one host can have the address.
fn is_a_hosts(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast
}
