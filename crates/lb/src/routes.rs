//! Where a client goes by what it said first: SNI routes and rules for client identifiers, the first that matches counts.
//!
//! Pure. A name is found in one step for each of its labels, however many routes there are. A client identifier is matched
//! in time linear in its length for each rule, whatever it and the pattern are: strangers choose identifiers.
//!
//! Generic over how a group is named, which the file does by text and the pool by number.

use std::collections::HashMap;

use evermq_config::lb::{ClientIdAction, ClientIdRule, Route};
use memchr::memmem;

/// All routes and rules.
#[derive(Debug)]
pub struct Routes<G> {
    /// Whole names, with the route's place in the file.
    names: HashMap<Box<str>, (usize, G)>,
    /// What stands behind `*.`, likewise.
    domains: HashMap<Box<str>, (usize, G)>,
    client_ids: Vec<(Glob, Verdict<G>)>,
}

/// What the rules say of a client identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<G> {
    /// In, to the group that it would have without rules.
    Allow,
    /// Refused: not authorized.
    Deny,
    /// To this group.
    Group(G),
}

impl<G: Copy> Routes<G> {
    /// Out of the file; `group` knows its groups.
    ///
    /// # Errors
    /// The first group that `group` does not know.
    pub fn new(
        routes: &[Route],
        client_ids: &[ClientIdRule],
        group: impl Fn(&str) -> Option<G>,
    ) -> Result<Self, String> {
        let group = |name: &str| group(name).ok_or_else(|| name.to_owned());
        let (mut names, mut domains) = (HashMap::new(), HashMap::new());
        for (index, route) in routes.iter().enumerate() {
            let target = (index, group(&route.group)?);
            for name in &route.sni {
                let (map, name) = name.strip_prefix("*.").map_or((&mut names, &name[..]), |name| (&mut domains, name));
                // A later route for the same name never counts.
                map.entry(name.into()).or_insert(target);
            }
        }
        let rules = client_ids.iter().map(|rule| {
            let verdict = match &rule.action {
                ClientIdAction::Allow => Verdict::Allow,
                ClientIdAction::Deny => Verdict::Deny,
                ClientIdAction::Group(name) => Verdict::Group(group(name)?),
            };
            Ok::<_, String>((Glob::new(&rule.pattern), verdict))
        });
        Ok(Self { names, domains, client_ids: rules.collect::<Result<_, _>>()? })
    }

    /// Whether any route goes by name: a listener without any need not read a ClientHello to its end.
    #[must_use]
    pub fn looks_at_sni(&self) -> bool {
        !(self.names.is_empty() && self.domains.is_empty())
    }

    /// Whether there are rules for client identifiers.
    #[must_use]
    pub fn looks_at_client_ids(&self) -> bool {
        !self.client_ids.is_empty()
    }

    /// The group for clients that ask for `sni` (lower case, no dot at its end), if a route names it.
    #[must_use]
    pub fn by_sni(&self, sni: Option<&str>) -> Option<G> {
        let sni = sni?;
        // `*.example.org` is for names with one label more, or several, not for `example.org` itself.
        let behind_dots = sni.match_indices('.').filter_map(|(at, _)| self.domains.get(&sni[at + 1..]));
        self.names.get(sni).into_iter().chain(behind_dots).min_by_key(|(index, _)| *index).map(|(_, group)| *group)
    }

    /// What the first rule for `client_id` says; [`Verdict::Allow`] without one.
    #[must_use]
    pub fn by_client_id(&self, client_id: &[u8]) -> Verdict<G> {
        self.client_ids
            .iter()
            .find(|(pattern, _)| pattern.matches(client_id))
            .map_or(Verdict::Allow, |(_, verdict)| *verdict)
    }
}

/// A pattern in which `*` stands for any characters, none included.
#[derive(Debug)]
struct Glob {
    /// Before the first `*`; all of it without one.
    start: Box<[u8]>,
    /// What stands between stars, in this order, and behind the last one; none without a star.
    rest: Option<(Vec<memmem::Finder<'static>>, Box<[u8]>)>,
}

impl Glob {
    fn new(pattern: &str) -> Self {
        let mut parts = pattern.split('*').map(str::as_bytes);
        let start = parts.next().unwrap_or_default().into();
        let rest = parts.next_back().map(|end| {
            let middle = parts.filter(|part| !part.is_empty());
            (middle.map(|part| memmem::Finder::new(part).into_owned()).collect(), end.into())
        });
        Self { start, rest }
    }

    /// Each middle part is taken where it is found first, which leaves most for the others: no way back is needed. Finding
    /// is linear (memchr's two-way search).
    fn matches(&self, text: &[u8]) -> bool {
        let Some(text) = text.strip_prefix(&*self.start) else { return false };
        let Some((middle, end)) = &self.rest else { return text.is_empty() };
        let Some(mut text) = text.strip_suffix(&**end) else { return false };
        middle.iter().all(|part| {
            let found = part.find(text);
            if let Some(at) = found {
                text = &text[at + part.needle().len()..];
            }
            found.is_some()
        })
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;

    fn group(name: &str) -> Option<u8> {
        name.strip_prefix('g')?.parse().ok()
    }

    fn route(sni: &[&str], group: &str) -> Route {
        Route { sni: sni.iter().map(|name| (*name).to_owned()).collect(), group: group.to_owned() }
    }

    fn rule(pattern: &str, action: ClientIdAction) -> ClientIdRule {
        ClientIdRule { pattern: pattern.to_owned(), action }
    }

    #[test]
    fn the_first_route_that_matches_counts() {
        let routes = Routes::new(
            &[
                route(&["a.example.org"], "g1"),
                route(&["*.example.org", "other.net"], "g2"),
                route(&["b.example.org", "*.deep.example.org", "a.example.org"], "g3"),
                route(&["*.org", "example.org"], "g4"),
            ],
            &[],
            group,
        )
        .unwrap();
        let cases = [
            (Some("a.example.org"), Some(1)),
            // Named later, but the wildcard stands before.
            (Some("b.example.org"), Some(2)),
            (Some("x.deep.example.org"), Some(2)),
            (Some("x.y.example.org"), Some(2)),
            (Some("other.net"), Some(2)),
            (Some("x.other.net"), None),
            (Some("example.org"), Some(4)),
            (Some("org"), None),
            (Some("xexample.org"), Some(4)),
            (Some(""), None),
            (None, None),
        ];
        for (sni, expected) in cases {
            assert_eq!(routes.by_sni(sni), expected, "{sni:?}");
        }
        assert!(routes.looks_at_sni() && !routes.looks_at_client_ids());
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let routes = Routes::new(
            &[],
            &[
                rule("test-*-ok", ClientIdAction::Allow),
                rule("test-*", ClientIdAction::Deny),
                rule("legacy", ClientIdAction::Group("g7".to_owned())),
                rule("", ClientIdAction::Deny),
            ],
            group,
        )
        .unwrap();
        let cases: [(&[u8], _); 7] = [
            (b"test-1-ok", Verdict::Allow),
            (b"test-1", Verdict::Deny),
            (b"test-", Verdict::Deny),
            (b"legacy", Verdict::Group(7)),
            (b"legacy1", Verdict::Allow),
            (b"", Verdict::Deny),
            (b"other", Verdict::Allow),
        ];
        for (client_id, expected) in cases {
            assert_eq!(routes.by_client_id(client_id), expected, "{client_id:?}");
        }
        assert!(!routes.looks_at_sni() && routes.looks_at_client_ids());
    }

    #[test]
    fn a_group_that_nobody_knows_is_named() {
        let routes = Routes::new(&[route(&["a"], "nowhere")], &[], group);
        assert_eq!(routes.map(|_| ()).unwrap_err(), "nowhere");
        let rules = Routes::new(&[], &[rule("a", ClientIdAction::Group("gx".to_owned()))], group);
        assert_eq!(rules.map(|_| ()).unwrap_err(), "gx");
    }

    /// Says the same as `Glob`, by trying everything.
    fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| matches_slowly(rest, &text[at..])),
            Some((byte, rest)) => {
                text.split_first().is_some_and(|(first, text)| first == byte && matches_slowly(rest, text))
            }
        }
    }

    #[test]
    fn a_hostile_identifier_costs_no_more_than_its_length() {
        // Takes 65,535 to the power of the stars where one goes back.
        let glob = Glob::new("*aaaaaaaaaaaaaaaab*aaaaaaaaaaaaaaaab*aaaaaaaaaaaaaaaab*aaaaaaaaaaaaaaaab*c");
        assert!(!glob.matches(&[b'a'; 65_535]));
    }

    proptest! {
        #[test]
        fn globs_match_what_they_say(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Glob::new(&pattern).matches(text.as_bytes()), matches_slowly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
