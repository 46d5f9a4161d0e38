//! Packages in a directory, and which one suits a host.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// How a host takes a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// dpkg
    Deb,
    /// rpm
    Rpm,
    /// Neither: an archive of the same files.
    Tar,
}

/// A package's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its version, as `evermq --version` has it.
    pub version: String,
    /// Its machine, as `uname -m` has it.
    pub machine: String,
}

impl Kind {
    /// By the tools that a host has.
    #[must_use]
    pub fn of(tools: &[&str], is_rpm_system: bool) -> Option<Self> {
        let has = |tool| tools.contains(&tool);
        // Either system may have the other's tool installed.
        match (has("dpkg"), has("rpm")) {
            (true, true) if is_rpm_system => Some(Self::Rpm),
            (true, _) => Some(Self::Deb),
            (false, true) => Some(Self::Rpm),
            (false, false) => has("tar").then_some(Self::Tar),
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deb => ".deb",
            Self::Rpm => ".rpm",
            Self::Tar => ".tar.gz",
        }
    }
}

impl Package {
    /// Out of a file's name: `evermq_VERSION_ARCH.deb`, `evermq-VERSION-1.ARCH.rpm`, `evermq-VERSION-ARCH.tar.gz`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (kind, version, machine) = if let Some(stem) = name.strip_suffix(".deb") {
            let (version, machine) = stem.strip_prefix("evermq_")?.split_once('_')?;
            (Kind::Deb, plain_version(version), machine)
        } else if let Some(stem) = name.strip_suffix(".rpm") {
            let (rest, machine) = stem.strip_prefix("evermq-")?.rsplit_once('.')?;
            (Kind::Rpm, plain_version(rest.rsplit_once('-')?.0), machine)
        } else {
            let (version, machine) = name.strip_suffix(".tar.gz")?.strip_prefix("evermq-")?.rsplit_once('-')?;
            (Kind::Tar, plain_version(version), machine)
        };
        let machine = match machine {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let good = version.starts_with(|c: char| c.is_ascii_digit()) && !machine.is_empty();
        good.then(|| Self { path: path.to_owned(), kind, version, machine: machine.to_owned() })
    }
}

/// A version without Debian's revision, and without the mark of both systems for what comes before a release.
#[must_use]
pub fn plain_version(version: &str) -> String {
    version.strip_suffix("-1").unwrap_or(version).replace('~', "-")
}

/// The newest package for a host.
#[must_use]
pub fn newest<'a>(packages: &'a [Package], kind: Kind, machine: &str) -> Option<&'a Package> {
    let suits = packages.iter().filter(|package| package.kind == kind && package.machine == machine);
    suits.max_by(|one, other| compare(&one.version, &other.version))
}

/// Which of two versions is newer: numbers as numbers, the rest as text; what follows a hyphen comes before the release.
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    fn parts(version: &str) -> (Vec<(u64, String)>, bool, String) {
        let (version, build) = version.split_once('+').unwrap_or((version, ""));
        let (release, before) = version.split_once('-').map_or((version, ""), |(release, before)| (release, before));
        let part = |part: &str| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            (part[..digits].parse().unwrap_or(0), part[digits..].to_owned())
        };
        (release.split('.').map(part).collect(), before.is_empty(), format!("{before}+{build}"))
    }
    parts(one).cmp(&parts(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_package_is() {
        for (name, kind, version, machine) in [
            ("evermq_0.2.0_amd64.deb", Kind::Deb, "0.2.0", "x86_64"),
            ("evermq_0.2.0-1_arm64.deb", Kind::Deb, "0.2.0", "aarch64"),
            ("evermq-0.2.0-1.x86_64.rpm", Kind::Rpm, "0.2.0", "x86_64"),
            ("evermq-0.2.0+next1-1.aarch64.rpm", Kind::Rpm, "0.2.0+next1", "aarch64"),
            ("evermq-0.2.0-x86_64.tar.gz", Kind::Tar, "0.2.0", "x86_64"),
            ("evermq-0.2.0-rc.1-x86_64.tar.gz", Kind::Tar, "0.2.0-rc.1", "x86_64"),
        ] {
            let package = Package::of(Path::new(name)).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((package.kind, package.version.as_str(), package.machine.as_str()), (kind, version, machine));
        }
        for name in ["evermq", "other_1_amd64.deb", "evermq-.tar.gz", "evermq-x-y.tar.gz", "evermq.rpm", "evermq_1.deb"]
        {
            assert_eq!(Package::of(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn the_newest_that_suits_is_taken() {
        let names = [
            "evermq_0.9.0_amd64.deb",
            "evermq_0.10.0_amd64.deb",
            "evermq_0.11.0_arm64.deb",
            "evermq-0.12.0-x86_64.tar.gz",
        ];
        let packages: Vec<Package> = names.iter().filter_map(|name| Package::of(Path::new(name))).collect();
        assert_eq!(newest(&packages, Kind::Deb, "x86_64").unwrap().version, "0.10.0");
        assert_eq!(newest(&packages, Kind::Deb, "aarch64").unwrap().version, "0.11.0");
        assert_eq!(newest(&packages, Kind::Rpm, "x86_64"), None);
        let ordered = ["0.1.0-rc.1", "0.1.0", "0.1.0+next1", "0.1.1", "0.2.0", "0.10.0", "1.0.0"];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn hosts_have_kinds() {
        assert_eq!(Kind::of(&["dpkg", "tar"], false), Some(Kind::Deb));
        assert_eq!(Kind::of(&["rpm", "tar"], true), Some(Kind::Rpm));
        assert_eq!(Kind::of(&["dpkg", "rpm"], true), Some(Kind::Rpm));
        assert_eq!(Kind::of(&["dpkg", "rpm"], false), Some(Kind::Deb));
        assert_eq!(Kind::of(&["tar"], false), Some(Kind::Tar));
        assert_eq!(Kind::of(&[], false), None);
    }
}
