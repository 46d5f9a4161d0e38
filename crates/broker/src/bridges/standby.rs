//! ◆ Which of a bridge's hosts keeps its connection: the first in the file's order that is up.
//!
//! ```text
//!   Waiting ── a host ahead is up ──▶ Standby ◀── a host ahead is up ──┐
//!      │                                 └── none for takeover_delay ──▶ Active
//!      └── none, and all others heard, or takeover_delay over ────────▶ Active
//! ```
//!
//! A host is up while its link to this one is. A host that starts waits until it has heard how far the others are, so that it
//! does not pass on again what they have passed on while it was away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evermq_config::{BridgeConfig, HostName};

/// One host's part.
#[derive(Debug)]
pub struct Standby {
    ahead: Vec<HostName>,
    others: usize,
    delay: Duration,
    heard: BTreeSet<HostName>,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Waiting { since: Instant },
    Standby { alone_since: Option<Instant> },
    Active,
}

impl Standby {
    /// At the start.
    #[must_use]
    pub fn new(config: &BridgeConfig, now: Instant) -> Self {
        Self {
            ahead: config.ahead.clone(),
            others: config.others.len(),
            delay: config.bridge.takeover_delay,
            heard: BTreeSet::new(),
            part: if config.others.is_empty() { Part::Active } else { Part::Waiting { since: now } },
        }
    }

    /// The bridge has these hosts from now on. Who keeps the connection does so until the next look.
    pub fn handle_hosts(&mut self, config: &BridgeConfig, now: Instant) {
        let is_active = self.is_active() || config.others.is_empty();
        let part = if is_active { Part::Active } else { Part::Waiting { since: now } };
        let heard = std::mem::take(&mut self.heard);
        *self = Self { heard, part, ..Self::new(config, now) };
        self.heard.retain(|host| config.others.contains(host));
    }

    /// Whether it keeps the connection.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.part == Part::Active
    }

    /// Another host has said how far it is.
    pub fn handle_word(&mut self, host: &HostName) {
        if !self.heard.contains(host) {
            self.heard.insert(host.clone());
        }
    }

    /// Which hosts are up now.
    pub fn handle_look(&mut self, is_up: impl Fn(&HostName) -> bool, now: Instant) {
        let is_behind = self.ahead.iter().any(is_up);
        self.part = match (self.part, is_behind) {
            (_, true) => Part::Standby { alone_since: None },
            (Part::Waiting { since }, false) => {
                let all_heard = self.ahead.is_empty() && self.heard.len() >= self.others;
                if all_heard || self.is_over(since, now) { Part::Active } else { Part::Waiting { since } }
            }
            (Part::Standby { alone_since }, false) => {
                let since = alone_since.unwrap_or(now);
                if self.is_over(since, now) { Part::Active } else { Part::Standby { alone_since: Some(since) } }
            }
            (Part::Active, false) => Part::Active,
        };
    }

    fn is_over(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= self.delay
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const DELAY: Duration = Duration::from_secs(3);

    /// The bridge's view of one of three hosts.
    fn standby(host: &str, now: Instant) -> Standby {
        Standby::new(&view(host), now)
    }

    fn view(host: &str) -> BridgeConfig {
        let host_entry = |number: u8| {
            format!("[[hosts]]\nname = \"b{number}\"\naddress = \"10.0.0.{number}\"\nroles = [\"broker\"]\n")
        };
        let text = format!(
            "[cluster]\nname = \"c\"\n[[bridges]]\nname = \"b\"\naddresses = [\"m\"]\ntopics = [\"#\"]\n\
             [[hosts]]\nname = \"lb\"\naddress = \"10.0.0.9\"\nroles = [\"lb\"]\n{}{}{}",
            host_entry(1),
            host_entry(2),
            host_entry(3)
        );
        let cluster =
            evermq_config::parse(Path::new("/c.toml"), &text).unwrap_or_else(|report| panic!("{report}")).cluster;
        cluster.broker_for(host).unwrap().bridges.remove(0)
    }

    fn name(host: &str) -> HostName {
        HostName::new(host).unwrap()
    }

    #[test]
    fn the_first_that_is_up_keeps_it() {
        let start = crate::connection::clock();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut second = standby("b2", start);
        second.handle_look(|_| true, at(0));
        assert!(!second.is_active());
        second.handle_look(|host| *host == name("b3"), at(10));
        second.handle_look(|host| *host == name("b3"), at(12));
        assert!(!second.is_active());
        // Seen again: the time begins anew.
        second.handle_look(|host| *host == name("b1"), at(12));
        second.handle_look(|_| false, at(13));
        second.handle_look(|_| false, at(15));
        assert!(!second.is_active());
        second.handle_look(|_| false, at(16));
        assert!(second.is_active());
        second.handle_look(|host| *host == name("b1"), at(16));
        assert!(!second.is_active(), "at once");
    }

    #[test]
    fn other_hosts_change_nothing_until_somebody_is_ahead() {
        let start = crate::connection::clock();
        let mut last = standby("b3", start);
        last.handle_look(|_| false, start);
        last.handle_look(|_| false, start + DELAY);
        assert!(last.is_active());
        let alone = BridgeConfig { ahead: Vec::new(), others: Vec::new(), ..view("b3") };
        last.handle_hosts(&alone, start + DELAY);
        last.handle_look(|_| true, start + DELAY);
        assert!(last.is_active());
        last.handle_hosts(&view("b3"), start + DELAY);
        assert!(last.is_active());
        last.handle_look(|_| true, start + DELAY);
        assert!(!last.is_active());
        last.handle_hosts(&alone, start + DELAY);
        assert!(last.is_active(), "nobody else is left");
    }

    #[test]
    fn who_starts_hears_the_others_first() {
        let start = crate::connection::clock();
        let mut first = standby("b1", start);
        first.handle_look(|_| true, start);
        first.handle_word(&name("b2"));
        first.handle_look(|_| true, start);
        assert!(!first.is_active());
        first.handle_word(&name("b3"));
        first.handle_look(|_| true, start);
        assert!(first.is_active());
        let mut alone = standby("b1", start);
        alone.handle_look(|_| false, start + DELAY - Duration::from_millis(1));
        assert!(!alone.is_active());
        alone.handle_look(|_| false, start + DELAY);
        assert!(alone.is_active());
        // One that is behind others waits for them however much it has heard.
        let mut second = standby("b2", start);
        for host in ["b1", "b3"] {
            second.handle_word(&name(host));
        }
        second.handle_look(|_| false, start);
        assert!(!second.is_active());
        second.handle_look(|_| false, start + DELAY);
        assert!(second.is_active());
    }
}
