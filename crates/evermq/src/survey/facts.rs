//! What a host said about itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The sections of what a host said, each with its lines.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    sections: BTreeMap<String, Vec<String>>,
}

/// Somebody who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where; none for all addresses.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The program, if it is known.
    pub program: Option<String>,
}

impl Facts {
    /// Out of what the script printed; none where it did not come to its end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut facts = Self::default();
        let mut section = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("== ") {
                section = name.to_owned();
                facts.sections.entry(section.clone()).or_default();
            } else if !line.trim().is_empty() {
                facts.sections.entry(section.clone()).or_default().push(line.to_owned());
            }
        }
        facts.sections.contains_key("end").then_some(facts)
    }

    /// The lines of a section.
    #[must_use]
    pub fn lines(&self, section: &str) -> &[String] {
        self.sections.get(section).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first line of a section.
    #[must_use]
    pub fn line(&self, section: &str) -> &str {
        self.lines(section).first().map_or("", |line| line.trim())
    }

    /// Its host name up to the first dot.
    #[must_use]
    pub fn name(&self) -> &str {
        self.line("name").split('.').next().unwrap_or_default()
    }

    /// Seconds since 1970 there, when it was asked.
    #[must_use]
    pub fn clock(&self) -> Option<f64> {
        self.line("clock").parse().ok()
    }

    /// Whether a program of that name runs.
    #[must_use]
    pub fn runs(&self, program: &str) -> bool {
        // The kernel cuts names off after 15 characters.
        let short: String = program.chars().take(15).collect();
        self.lines("programs").iter().any(|line| line.trim() == short)
    }

    /// systemd's version.
    #[must_use]
    pub fn systemd(&self) -> Option<u32> {
        let version = self.line("systemd").split_whitespace().nth(1)?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Who listens on TCP and UDP.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.lines("listeners").iter().filter_map(|line| of_ss(line).or_else(|| of_proc(line))).collect()
    }

    /// The interface that has an address, and whether any has it.
    #[must_use]
    pub fn interface_of(&self, address: IpAddr) -> Option<&str> {
        let wanted = address.to_string();
        self.lines("addresses").iter().find_map(|line| {
            let mut words = line.split_whitespace();
            let interface = words.nth(1)?;
            let has = words.nth(1)?.split('/').next()? == wanted;
            has.then_some(interface)
        })
    }

    /// What names lead to there.
    pub fn names(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.lines("names").iter().filter_map(|line| {
            let (name, address) = line.split_once(' ')?;
            Some((name, address.trim().parse().ok()?))
        })
    }

    /// The hardware address that answers for the VIP.
    #[must_use]
    pub fn vip_answers(&self) -> Option<&str> {
        let line = self.lines("vip").iter().find(|line| line.contains("lladdr"))?;
        let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1)
    }

    /// The numbers of `limits`: nr_open, file-max, somaxconn.
    #[must_use]
    pub fn limit(&self, index: usize) -> Option<u64> {
        self.lines("limits").get(index)?.trim().parse().ok()
    }

    /// Kilobytes that are free where messages are to be kept.
    #[must_use]
    pub fn free_kilobytes(&self) -> Option<u64> {
        self.lines("disk").last()?.split_whitespace().nth(3)?.parse().ok()
    }
}

/// `tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=7,fd=3))`
fn of_ss(line: &str) -> Option<Listener> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let protocol = *words.first().filter(|word| matches!(**word, "tcp" | "udp"))?;
    let (address, port) = words.get(4)?.rsplit_once(':')?;
    let address = address.trim_matches(['[', ']']).split('%').next().unwrap_or_default();
    let program = line.split_once("((\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
    let address = address.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
    Some(Listener { protocol: protocol.to_owned(), address, port: port.parse().ok()?, program })
}

/// A line of /proc/net/tcp: `0: 00000000:0016 00000000:0000 0A ...`, state 0A listens.
fn of_proc(line: &str) -> Option<Listener> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let listens = words.get(3).is_some_and(|state| *state == "0A");
    let address = match address.len() {
        8 => {
            let bits = u32::from_str_radix(address, 16).ok()?;
            Some(IpAddr::from(bits.swap_bytes().to_be_bytes()))
        }
        _ => None,
    };
    let address = address.filter(|address| !address.is_unspecified());
    listens.then(|| Listener { protocol: "tcp".to_owned(), address, port, program: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_their_end() {
        assert!(Facts::parse("\n== name\nlb1\n").is_none(), "cut off");
        let facts = Facts::parse(
            "noise\n\n== name\nlb1.plant\n\n== clock\n12.5\n== systemd\nsystemd 252 (252.39-1~deb12u1)\n== end\n",
        )
        .unwrap();
        assert_eq!((facts.name(), facts.clock(), facts.systemd()), ("lb1", Some(12.5), Some(252)));
        assert_eq!((facts.line("nothing"), facts.lines("nothing").len()), ("", 0));
    }

    #[test]
    fn listeners_of_ss_and_of_proc() {
        let text = "== listeners\ntcp   LISTEN 0      511          0.0.0.0:9000      0.0.0.0:*    users:((\"nginx\",pid=7,fd=5))\n\
                    tcp LISTEN 0 128 [::]:22 [::]:*\nudp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*\n\
                    tcp LISTEN 0 100 127.0.0.1:1883 0.0.0.0:*\n   0: 0100007F:075B 00000000:0000 0A 0 0\n   1: 00000000:0016 00000000:0000 01 0\n== end\n";
        let listeners = Facts::parse(text).unwrap().listeners();
        let shown: Vec<String> = listeners
            .iter()
            .map(|l| format!("{} {:?} {} {:?}", l.protocol, l.address, l.port, l.program.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                "tcp None 9000 Some(\"nginx\")",
                "tcp None 22 None",
                "udp Some(127.0.0.53) 53 None",
                "tcp Some(127.0.0.1) 1883 None",
                "tcp Some(127.0.0.1) 1883 None"
            ]
        );
    }

    #[test]
    fn interfaces_names_and_neighbours() {
        let text = "== addresses\n1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0\n\
                    == names\nlb1 10.0.0.1\nlb2 10.0.0.99\n== vip\n10.0.0.9 dev eth0 lladdr 52:54:00:00:00:01 REACHABLE\n== limits\n1048576\n99\n128\n\
                    == disk\nFilesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 100 40 60 40% /\n== programs\nevermq-broker\n== end\n";
        let facts = Facts::parse(text).unwrap();
        assert_eq!(facts.interface_of("10.0.0.1".parse().unwrap()), Some("eth0"));
        assert_eq!(facts.interface_of("10.0.0.2".parse().unwrap()), None);
        assert_eq!(facts.names().count(), 2);
        assert_eq!(facts.vip_answers(), Some("52:54:00:00:00:01"));
        assert_eq!((facts.limit(0), facts.limit(2), facts.free_kilobytes()), (Some(1_048_576), Some(128), Some(60)));
        assert!(facts.runs("evermq-broker") && !facts.runs("nginx"));
    }
}
