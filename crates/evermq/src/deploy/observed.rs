//! What a host has of EverMQ, as it said.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::packages::{Kind, plain_version};
use crate::survey::facts::Facts;

/// A host's programs.
pub const PROGRAMS: [&str; 3] = ["vip", "lb", "broker"];

/// What a host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// How it takes packages; none where it has no tool for any.
    pub kind: Option<Kind>,
    /// As `uname -m` has it.
    pub machine: String,
    /// Whether commands run as root there.
    pub root: bool,
    /// Whether it has systemd.
    pub systemd: bool,
    /// The version of `evermq` that is installed.
    pub version: Option<String>,
    /// Digests of the files that were asked about.
    pub digests: BTreeMap<PathBuf, String>,
    /// Its programs.
    pub units: BTreeMap<String, Unit>,
    /// Whether it has the VIP.
    pub holds_vip: bool,
    /// The version that `evermq rollback` would bring back; empty for none but files.
    pub previous: Option<String>,
}

/// A program as systemd has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unit {
    /// Runs.
    pub active: bool,
    /// Starts with the host.
    pub enabled: bool,
    /// Runs a file that has been replaced.
    pub old: bool,
}

impl Observed {
    /// Out of what the script printed; none where it did not come to its end.
    #[must_use]
    pub fn parse(text: &str, vips: &[IpAddr]) -> Option<Self> {
        let facts = Facts::parse(text)?;
        let tools: Vec<&str> = facts.lines("tools").iter().map(|line| line.trim()).collect();
        let like = facts.lines("os").iter().any(|line| {
            let is_key = line.starts_with("ID=") || line.starts_with("ID_LIKE=");
            is_key
                && ["rhel", "fedora", "centos", "openEuler", "openeuler", "suse"].iter().any(|name| line.contains(name))
        });
        let digests = facts.lines("digests").iter().filter_map(|line| {
            let (digest, path) = line.split_once(char::is_whitespace)?;
            Some((PathBuf::from(path.trim_start_matches([' ', '*'])), digest.to_owned()))
        });
        let units = facts.lines("units").iter().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let word = |at: usize| words.get(at).copied().unwrap_or_default();
            let active = matches!(word(1), "active" | "activating" | "reloading");
            let unit = Unit { active, enabled: word(2) == "enabled", old: words.contains(&"old") };
            (word(0).to_owned(), unit)
        });
        Some(Self {
            kind: Kind::of(&tools, like),
            machine: facts.line("machine").to_owned(),
            root: facts.line("user") == "0",
            systemd: tools.contains(&"systemctl"),
            version: facts.lines("version").first().map(|line| plain_version(line.trim())),
            digests: digests.collect(),
            units: units.collect(),
            holds_vip: vips.iter().any(|vip| facts.interface_of(*vip).is_some()),
            previous: facts.lines("previous").first().map(|line| plain_version(line.trim())),
        })
    }

    /// A program of it.
    #[must_use]
    pub fn unit(&self, program: &str) -> Unit {
        self.units.get(program).copied().unwrap_or_default()
    }

    /// Whether any of its programs runs.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.units.values().any(|unit| unit.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_runs() {
        let text = "== machine\nx86_64\n== user\n0\n== tools\ndpkg\ntar\nsystemctl\n== os\nID=debian\n== version\n0.2.0-1\n\
                    == digests\nab12  /etc/evermq/evermq.toml\n== units\nvip inactive disabled \nlb active enabled old\nbroker  \n\
                    == addresses\n2: eth0 inet 10.0.0.9/32 scope global eth0\n== previous\n0.1.0\n== end\n";
        let host = Observed::parse(text, &["10.0.0.9".parse().unwrap()]).unwrap();
        assert_eq!(
            (host.kind, host.machine.as_str(), host.root, host.systemd),
            (Some(Kind::Deb), "x86_64", true, true)
        );
        assert_eq!(host.version.as_deref(), Some("0.2.0"));
        assert_eq!(host.digests[&PathBuf::from("/etc/evermq/evermq.toml")], "ab12");
        assert_eq!(host.unit("lb"), Unit { active: true, enabled: true, old: true });
        assert_eq!(host.unit("vip"), Unit::default());
        assert!(host.holds_vip && host.is_active());
        assert_eq!(host.previous.as_deref(), Some("0.1.0"));
    }

    #[test]
    fn a_bare_host() {
        let text = "== machine\naarch64\n== user\n1000\n== tools\nrpm\n== os\nID=\"openEuler\"\n== version\n== digests\n== units\n== end\n";
        let host = Observed::parse(text, &[]).unwrap();
        assert_eq!((host.kind, host.root, host.systemd), (Some(Kind::Rpm), false, false));
        assert_eq!((host.version.clone(), host.previous.clone(), host.is_active()), (None, None, false));
        assert!(Observed::parse("== machine\nx86_64\n", &[]).is_none());
    }
}
