//! Who votes: the hosts of the cluster file, and whether two hosts' files are near enough for a majority to mean the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use evermq_config::{ClusterName, HostName};
use sha2::{Digest as _, Sha256};

use crate::key::Key;

/// The cluster, as it stands in messages: the first bytes of its name's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterId(pub u64);

/// A host of a cluster, as it stands in messages: the first bytes of the SHA-256 of cluster and host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostId(pub u64);

/// The hosts of a file, as they stand in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Members {
    /// How many.
    pub count: u8,
    /// All ids combined by exclusive or, so that the difference of two files that differ by one host is that host.
    pub digest: u64,
}

/// A host that votes.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Where its heartbeats go to and come from.
    pub address: SocketAddr,
    /// Its name in messages.
    pub id: HostId,
}

/// What a member of the quorum works with. Made on an ordinary thread: it reads the key and allocates.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster.
    pub cluster: ClusterId,
    /// All hosts that vote, this one included.
    pub hosts: Vec<Host>,
    /// This host's place among them.
    pub own: usize,
    /// How long a vote holds.
    pub lease: Duration,
    /// The gateway that counts where there is no majority.
    pub gateway: Option<Ipv4Addr>,
    /// All hosts, for comparison with others' files.
    pub members: Members,
    /// The cluster's key.
    pub key: Key,
}

/// Why these hosts cannot vote.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// This host is not among them.
    #[error("host \"{0}\" is not among the hosts that vote; run it on a host of the cluster file")]
    NotAMember(HostName),
    /// A count that messages have no room for.
    #[error("{0} hosts are too many to vote: 255 at most")]
    TooMany(usize),
    /// Two names with one id: twice the same name, or a chance of one in 2^64.
    #[error("the hosts \"{0}\" and \"{1}\" cannot be told apart in heartbeats; rename one of them")]
    Alike(HostName, HostName),
}

impl Settings {
    /// The settings of `own` among `hosts`.
    ///
    /// # Errors
    /// `own` is not among them, or there are too many, or two alike.
    pub fn new(
        cluster: &ClusterName,
        own: &HostName,
        hosts: impl IntoIterator<Item = (HostName, SocketAddr)>,
        lease: Duration,
        gateway: Option<Ipv4Addr>,
        key: Key,
    ) -> Result<Self, MembershipError> {
        let hosts: Vec<Host> =
            hosts.into_iter().map(|(name, address)| Host { id: HostId::new(cluster, &name), name, address }).collect();
        for (index, host) in hosts.iter().enumerate() {
            if let Some(other) = hosts[..index].iter().find(|other| other.id == host.id) {
                return Err(MembershipError::Alike(other.name.clone(), host.name.clone()));
            }
        }
        let count = u8::try_from(hosts.len()).map_err(|_| MembershipError::TooMany(hosts.len()))?;
        let position = hosts.iter().position(|host| host.name == *own);
        let own = position.ok_or_else(|| MembershipError::NotAMember(own.clone()))?;
        let digest = hosts.iter().fold(0, |digest, host| digest ^ host.id.0);
        let cluster = ClusterId(digest_of(&[cluster.as_str()]));
        Ok(Self { cluster, hosts, own, lease, gateway, members: Members { count, digest }, key })
    }

    /// This host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.hosts[self.own]
    }

    /// How many votes win.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.hosts.len() / 2 + 1
    }

    /// Whether a vote between this host and one whose file has `theirs` may count, as far as this side can tell.
    ///
    /// A majority of n hosts and one of the same hosts and one more always share a host, so that a file with one host
    /// more or less can be rolled out host by host while someone holds the VIP. The side with the longer file can tell
    /// which host the other lacks; the side with the shorter one leaves the check to it.
    #[must_use]
    pub fn is_compatible(&self, theirs: Members) -> bool {
        let ours = self.members;
        let difference = HostId(ours.digest ^ theirs.digest);
        if ours.count == theirs.count {
            ours == theirs
        } else if ours.count.checked_sub(1) == Some(theirs.count) {
            self.hosts.iter().any(|host| host.id == difference)
        } else {
            theirs.count.checked_sub(1) == Some(ours.count)
        }
    }
}

impl HostId {
    fn new(cluster: &ClusterName, host: &HostName) -> Self {
        Self(digest_of(&[cluster.as_str(), host.as_str()]))
    }
}

/// Names have no byte 0, so that it separates them.
fn digest_of(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {

    use super::*;

    fn settings(own: &str, names: &[&str]) -> Result<Settings, MembershipError> {
        let cluster = ClusterName::new("one").unwrap();
        let own = HostName::new(own).unwrap();
        let address = "10.0.0.1:9002".parse().unwrap();
        let hosts = names.iter().map(|name| (HostName::new(name).unwrap(), address));
        Settings::new(&cluster, &own, hosts, Duration::from_secs(1), None, Key::new(&[1; 32]).unwrap())
    }

    #[test]
    fn majorities() {
        let names = ["a", "b", "c", "d", "e"];
        for (count, majority) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(settings("a", &names[..count]).unwrap().majority(), majority);
        }
    }

    #[test]
    fn files_may_differ_by_one_host_that_is_added_or_removed() {
        let both = |one: &[&str], other: &[&str]| {
            let (one, other) = (settings("a", one).unwrap(), settings("a", other).unwrap());
            one.is_compatible(other.members) && other.is_compatible(one.members)
        };
        assert!(both(&["a", "b", "c"], &["c", "a", "b"]));
        assert!(both(&["a", "b", "c"], &["a", "b", "c", "d"]));
        assert!(both(&["a"], &["a", "b"]));
        assert!(!both(&["a", "b", "c"], &["a", "b", "c", "d", "e"]));
        assert!(!both(&["a", "b", "c"], &["a", "b", "d"]));
        assert!(!both(&["a", "b", "c"], &["a", "b", "d", "e"]));
        assert!(!both(&["a", "b", "c"], &["a", "d"]));
    }

    #[test]
    fn what_cannot_vote_is_refused() {
        assert!(matches!(settings("z", &["a", "b"]), Err(MembershipError::NotAMember(_))));
        assert!(matches!(settings("a", &["a", "b", "a"]), Err(MembershipError::Alike(..))));
        let many: Vec<String> = (0..256).map(|n| format!("h{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(settings("h0", &many), Err(MembershipError::TooMany(256))));
    }

    #[test]
    fn ids_depend_on_the_cluster() {
        let ids = ["one", "two"]
            .map(|cluster| HostId::new(&ClusterName::new(cluster).unwrap(), &HostName::new("a").unwrap()));
        assert_ne!(ids[0], ids[1]);
    }
}
