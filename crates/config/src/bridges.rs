//! `[[bridges]]` as validated types: connections to brokers that are not of the cluster.

use std::path::PathBuf;
use std::time::Duration;

use crate::names::HostName;
use crate::roles::for_host;

/// One `[[bridges]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// `name`: unique.
    pub name: String,
    /// `addresses`: `HOST:PORT` or `[IPv6]:PORT`, in the order in which they are tried; at least one.
    pub addresses: Vec<String>,
    /// `hosts`: the first of them that is up keeps the connection; those with role `broker` in the file's order where not
    /// given.
    pub hosts: Vec<HostName>,
    /// `protocol_version`.
    pub version: BridgeVersion,
    /// `try_private`: says in a CONNECT of MQTT 3.1.1 that this is a bridge.
    pub try_private: bool,
    /// `client_id` at the remote broker.
    pub client_id: String,
    /// `username` at the remote broker.
    pub username: Option<String>,
    /// `password_file`: holds the password, and nothing else.
    pub password_file: Option<PathBuf>,
    /// `keep_alive`.
    pub keep_alive: Duration,
    /// `reconnect_min`: about how long the first wait after a connection is.
    pub reconnect_min: Duration,
    /// `reconnect_max`: the longest wait.
    pub reconnect_max: Duration,
    /// `takeover_delay`: how long a host that is ahead in `hosts` has not been seen before the next one connects.
    pub takeover_delay: Duration,
    /// `max_queued_messages`: that wait for the remote broker.
    pub max_queued_messages: usize,
    /// `max_queued_bytes`: of these messages.
    pub max_queued_bytes: usize,
    /// `ca` and what belongs to it; none: plain TCP.
    pub tls: Option<BridgeTls>,
    /// `topics`: at least one.
    pub topics: Vec<BridgeTopic>,
}

/// MQTT as the remote broker speaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeVersion {
    /// 3.1.1.
    V311,
    /// 5.0.
    V50,
}

/// TLS towards the remote broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeTls {
    /// `ca`: who may have signed the remote broker's certificate.
    pub ca: PathBuf,
    /// `cert` and `key`: shown to the remote broker.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `server_name`: what the remote broker's certificate is for; the host of the address where not given.
    pub server_name: Option<String>,
}

/// One line of `topics`, as mosquitto writes them: `PATTERN [DIRECTION [QOS [LOCAL-PREFIX [REMOTE-PREFIX]]]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeTopic {
    /// What is behind the prefixes, wildcards included; empty: nothing is.
    pub pattern: String,
    /// Which way messages go.
    pub direction: Direction,
    /// Of the subscriptions: 0, 1 or 2.
    pub qos: u8,
    /// Before the pattern here; may be empty.
    pub local_prefix: String,
    /// Before the pattern there; may be empty.
    pub remote_prefix: String,
}

/// Which way messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the cluster to the remote broker.
    Out,
    /// From the remote broker to the cluster.
    In,
    /// Both ways.
    Both,
}

/// A bridge as one host of it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The entry, with this host's name in its paths.
    pub bridge: Bridge,
    /// The hosts that are before this one in `hosts`: while one of them is up, this one stands by.
    pub ahead: Vec<HostName>,
    /// All other hosts of the bridge.
    pub others: Vec<HostName>,
}

/// Why a line is no topic of a bridge, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadTopic {
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

/// A prefix that is left out.
const EMPTY: &str = "\"\"";
const SYNTAX: &str =
    "write 'PATTERN DIRECTION QOS LOCAL-PREFIX REMOTE-PREFIX', such as 'sensors/# out 1 \"\" plant-7/'";

impl Direction {
    /// Messages go to the remote broker.
    #[must_use]
    pub const fn is_out(self) -> bool {
        matches!(self, Self::Out | Self::Both)
    }

    /// Messages come from the remote broker.
    #[must_use]
    pub const fn is_in(self) -> bool {
        matches!(self, Self::In | Self::Both)
    }
}

impl Bridge {
    /// As one of its hosts sees it; none for a host that has no part in it.
    pub(crate) fn at(&self, me: &HostName) -> Option<BridgeConfig> {
        let place = self.hosts.iter().position(|host| host == me)?;
        let mut bridge = self.clone();
        let own = |path: &mut PathBuf| *path = for_host(path, me);
        bridge.password_file.iter_mut().for_each(own);
        if let Some(tls) = &mut bridge.tls {
            own(&mut tls.ca);
            tls.identity.iter_mut().flat_map(|(cert, key)| [cert, key]).for_each(own);
        }
        let others = self.hosts.iter().filter(|host| *host != me).cloned().collect();
        Some(BridgeConfig { bridge, ahead: self.hosts[..place].to_vec(), others })
    }
}

impl BridgeTopic {
    /// The filter here.
    #[must_use]
    pub fn local(&self) -> String {
        format!("{}{}", self.local_prefix, self.pattern)
    }

    /// The filter at the remote broker.
    #[must_use]
    pub fn remote(&self) -> String {
        format!("{}{}", self.remote_prefix, self.pattern)
    }

    /// Reads a line as mosquitto does.
    pub(crate) fn parse(line: &str) -> Result<Self, BadTopic> {
        let bad = |message: String, help| Err(BadTopic { message, help });
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let mut next = || words.next();
        let (Some(pattern), direction, qos) = (next(), next(), next()) else {
            return bad("a topic of a bridge begins with a pattern".to_owned(), SYNTAX);
        };
        let (local, remote) = (next(), next());
        if let Some(more) = next() {
            return bad(format!("\"{more}\" is one word too many"), SYNTAX);
        }
        let direction = match direction {
            None | Some("out") => Direction::Out,
            Some("in") => Direction::In,
            Some("both") => Direction::Both,
            Some(other) => {
                return bad(format!("\"{other}\" is no direction"), "write out, in or both after the pattern");
            }
        };
        let qos = match qos {
            None | Some("0") => 0,
            Some("1") => 1,
            Some("2") => 2,
            Some(other) => return bad(format!("\"{other}\" is no QoS"), "write 0, 1 or 2 after the direction"),
        };
        let prefix = |word: Option<&str>| word.filter(|word| *word != EMPTY).unwrap_or_default().to_owned();
        let topic = Self {
            pattern: prefix(Some(pattern)),
            direction,
            qos,
            local_prefix: prefix(local),
            remote_prefix: prefix(remote),
        };
        topic.check().map(|()| topic)
    }

    fn check(&self) -> Result<(), BadTopic> {
        let bad = |message: String, help| Err(BadTopic { message, help });
        for prefix in [&self.local_prefix, &self.remote_prefix] {
            if prefix.contains(['+', '#']) {
                return bad(format!("the prefix \"{prefix}\" has a wildcard"), "put wildcards into the pattern only");
            }
        }
        if self.pattern.is_empty() && (self.local_prefix.is_empty() || self.remote_prefix.is_empty()) {
            return bad(
                "an empty pattern needs both prefixes: they are the whole topics".to_owned(),
                "write both prefixes, such as '\"\" out 1 local/topic remote/topic', or a pattern",
            );
        }
        let (local, remote) = (self.local(), self.remote());
        for filter in [&local, &remote] {
            if !crate::decode::is_filter(filter) {
                return bad(
                    format!("\"{filter}\" is no topic filter"),
                    "+ and # take a whole level, # the last one; end a prefix with / where a pattern follows",
                );
            }
            if filter.starts_with("$share/") {
                return bad(
                    "a bridge cannot share a subscription".to_owned(),
                    "delete $share/GROUP/: what comes has the topic without it, which no prefix fits",
                );
            }
        }
        let level = local.split('/').next().unwrap_or_default();
        if level == "$EVERMQ" || (level == "$SYS" && self.direction.is_in()) {
            return bad(
                format!("{level}/ is the cluster's own"),
                "write a local prefix, such as '# in 0 remote/ $SYS/broker/'",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(line: &str) -> BridgeTopic {
        BridgeTopic::parse(line).unwrap_or_else(|bad| panic!("{line}: {}", bad.message))
    }

    #[test]
    fn words_that_are_left_out_have_mosquittos_defaults() {
        let plain = BridgeTopic {
            pattern: "a/#".to_owned(),
            direction: Direction::Out,
            qos: 0,
            local_prefix: String::new(),
            remote_prefix: String::new(),
        };
        assert_eq!(topic("a/#"), plain);
        assert_eq!(topic("a/# in"), BridgeTopic { direction: Direction::In, ..plain.clone() });
        assert_eq!(topic("  a/#\tboth  2 "), BridgeTopic { direction: Direction::Both, qos: 2, ..plain.clone() });
        assert_eq!(topic("a/# out 0 \"\" \"\""), plain);
        let local = BridgeTopic { local_prefix: "l/".to_owned(), ..plain.clone() };
        assert_eq!(topic("a/# out 0 l/"), local);
        assert_eq!((local.local(), local.remote()), ("l/a/#".to_owned(), "a/#".to_owned()));
        let single = topic("\"\" both 1 here there");
        assert_eq!((single.pattern.as_str(), single.local(), single.remote()), ("", "here".into(), "there".into()));
    }

    /// The table of valid and invalid combinations of mosquitto.conf(5), and what is no topic at all.
    #[test]
    fn what_is_no_topic_is_said_so() {
        for good in ["p out 0 l/ r/", "p out 0 l/ \"\"", "p out 0 \"\" r/", "p out 0 \"\" \"\"", "\"\" in 0 l r"] {
            topic(good);
        }
        for (line, message) in [
            ("", "begins with a pattern"),
            ("\"\" out 0 l \"\"", "both prefixes"),
            ("\"\" out 0 \"\" r", "both prefixes"),
            ("\"\" out 0", "both prefixes"),
            ("a to", "no direction"),
            ("a out 3", "no QoS"),
            ("a out 1 b/ c/ d/", "one word too many"),
            ("a out 1 b/+/", "has a wildcard"),
            ("a out 1 \"\" b/#", "has a wildcard"),
            ("# out 1 prefix", "no topic filter"),
            ("a/#/b", "no topic filter"),
            ("$share/g/a in", "share a subscription"),
            ("$SYS/# in", "cluster's own"),
            ("$EVERMQ/# out", "cluster's own"),
        ] {
            let bad = BridgeTopic::parse(line).expect_err(line);
            assert!(bad.message.contains(message), "{line}: {}", bad.message);
            assert!(!bad.help.is_empty());
        }
        topic("$SYS/# out 0 \"\" cluster/");
    }
}
