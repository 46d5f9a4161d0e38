//! mosquitto's `acl_file`, read as mosquitto 2.0 reads it.
//!
//! ```text
//! # The first topics are for clients without a user name.
//! topic read public/#
//!
//! user anna
//! topic sensors/+/temperature              read and write
//! topic deny sensors/secret/#              goes before the user's other rules
//!
//! # For everyone, also anna: after the user's own rules.
//! pattern write devices/%c/state
//! pattern read  people/%u/#
//! ```
//!
//! What a user's own rules say counts; where they say nothing, the patterns do; what neither allows is denied. Where there are
//! patterns, whoever has `+` or `#` in its user name or client identifier gets nothing from them.

use std::path::Path;
use std::sync::Arc;

use evermq_config::{Problem, Report};
use hashbrown::HashMap;

use crate::filters::{self, Filters, Grant};
use crate::lines::{self, Line};
use crate::substitution::is_template;

/// The rules of the file.
#[derive(Debug, Clone, Default)]
pub struct AclFile {
    /// Of clients without a user name.
    pub(crate) nobody: Option<Arc<Filters>>,
    /// By user name.
    pub(crate) users: HashMap<Box<str>, Arc<Filters>>,
    /// Patterns without anything to put in.
    pub(crate) fixed: Arc<Filters>,
    /// Patterns with.
    pub(crate) templates: Vec<(Box<str>, Grant)>,
}

/// A rule's keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Topic,
    Pattern,
}

/// The file while it is read.
#[derive(Default)]
struct Reading<'a> {
    nobody: Option<Filters>,
    users: HashMap<Box<str>, Filters>,
    user: Option<&'a str>,
    fixed: Filters,
    templates: Vec<(Box<str>, Grant)>,
    problems: Vec<Problem>,
}

impl AclFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or every mistake in it.
    pub fn load(path: &Path) -> Result<(Self, Report), Report> {
        let help = "correct broker.auth.acl_file, or let the broker's user read it (chown root:evermq, chmod 0640)";
        let bytes = std::fs::read(path).map_err(|error| lines::unreadable(path, "the ACL file", &error, help))?;
        Self::parse(path, &bytes)
    }

    /// Reads `bytes` as the file at `path`; what it says and should perhaps not comes back with it.
    ///
    /// # Errors
    /// Every mistake.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Self, Report), Report> {
        let mut reading = Reading::default();
        for line in Line::all(path, bytes) {
            match line {
                Ok(line) => reading.line(line),
                Err(problem) => reading.problems.push(*problem),
            }
        }
        let report = Report { problems: reading.problems };
        if report.has_errors() {
            return Err(report);
        }
        let built = |mut filters: Filters| {
            filters.shrink();
            Arc::new(filters)
        };
        let file = Self {
            nobody: reading.nobody.map(built),
            users: reading.users.into_iter().map(|(user, filters)| (user, built(filters))).collect(),
            fixed: built(reading.fixed),
            templates: reading.templates,
        };
        Ok((file, report))
    }
}

impl<'a> Reading<'a> {
    fn line(&mut self, line: Line<'a>) {
        let text = line.text.trim_end();
        if text.starts_with('#') {
            return;
        }
        let (keyword, rest) = word(text);
        match keyword {
            "" => {}
            "topic" => self.rule(line, Kind::Topic, keyword, rest),
            "pattern" => self.rule(line, Kind::Pattern, keyword, rest),
            "user" => match rest.trim() {
                "" => self.problems.push(line.error(keyword, "a user line without a name", "write \"user NAME\"")),
                name => {
                    self.user = Some(name);
                    self.users.entry(name.into()).or_default();
                }
            },
            other => self.problems.push(line.error(
                other,
                format!("\"{other}\" begins no line of an ACL file"),
                "a line is \"user NAME\", \"topic [read|write|readwrite|deny] FILTER\", the same with pattern, or a # comment",
            )),
        }
    }

    fn rule(&mut self, line: Line<'a>, kind: Kind, keyword: &str, rest: &'a str) {
        let (first, more) = word(rest);
        if first.is_empty() {
            let help = format!("write \"{keyword} [read|write|readwrite|deny] FILTER\"");
            return self.problems.push(line.error(keyword, format!("a {keyword} line without a topic filter"), help));
        }
        let more = more.trim();
        let (grant, filter) = match (first, more) {
            (only, "") => (Grant::PUBLISH | Grant::RECEIVE, only),
            ("read", filter) => (Grant::RECEIVE, filter),
            ("write", filter) => (Grant::PUBLISH, filter),
            ("readwrite", filter) => (Grant::PUBLISH | Grant::RECEIVE, filter),
            ("deny", filter) => (Grant::DENY, filter),
            (other, _) => {
                let help = "write read, write, readwrite or deny; before a topic with spaces, one of them must stand";
                return self.problems.push(line.error(other, format!("\"{other}\" is no kind of access"), help));
            }
        };
        if let Err(error) = filters::check(filter) {
            let (message, help) = error.text();
            return self.problems.push(line.error(filter, message, help));
        }
        if filter.starts_with("$share/") {
            let help = "leave $share and the group out: rules are for topics, however they are subscribed to";
            self.problems.push(line.warning(filter, "no topic begins with $share", help));
        }
        match kind {
            Kind::Topic => self.own_rules().add(filter, grant),
            Kind::Pattern if is_template(filter) => self.templates.push((filter.into(), grant)),
            Kind::Pattern => {
                let help = "it is for everyone as it is; for one user, write \"topic\" below the user's line";
                self.problems.push(line.warning(filter, "a pattern without %u and %c", help));
                self.fixed.add(filter, grant);
            }
        }
    }

    fn own_rules(&mut self) -> &mut Filters {
        match self.user {
            None => self.nobody.get_or_insert_default(),
            Some(user) => self.users.entry(user.into()).or_default(),
        }
    }
}

/// The first word, and what comes after it. Only spaces part words, as in mosquitto.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(' ');
    text.split_once(' ').unwrap_or((text, &text[text.len()..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let report = AclFile::parse(Path::new("/etc/acl"), text.as_bytes()).expect_err("the file is wrong");
        report
            .problems
            .iter()
            .map(|problem| problem.to_string().lines().next().unwrap_or_default().to_owned())
            .collect()
    }

    fn good(text: &str) -> (AclFile, usize) {
        let (file, warnings) =
            AclFile::parse(Path::new("/etc/acl"), text.as_bytes()).unwrap_or_else(|report| panic!("{report}"));
        (file, warnings.problems.len())
    }

    #[test]
    fn a_file_as_mosquitto_ships_it() {
        let (file, warnings) = good(
            "# This affects access control for clients with no username.\ntopic read $SYS/#\n\n\
             # This only affects clients with username \"roger\".\nuser roger\ntopic foo/bar\r\n\
             topic   deny   with blanks/#  \nuser anna of Bath\ntopic write x\n\
             # This affects all clients.\npattern write $SYS/broker/connection/%c/state\n",
        );
        assert_eq!(warnings, 0);
        assert_eq!(file.nobody.as_ref().map(|rules| rules.of_topic("$SYS/x")), Some(Grant::RECEIVE));
        assert_eq!(file.users["roger"].of_topic("foo/bar"), Grant::PUBLISH | Grant::RECEIVE);
        assert_eq!(file.users["roger"].of_topic("with blanks/x"), Grant::DENY);
        assert_eq!(file.users["anna of Bath"].of_topic("x"), Grant::PUBLISH);
        assert_eq!(file.templates, [("$SYS/broker/connection/%c/state".into(), Grant::PUBLISH)]);
        assert!(file.fixed.is_empty());
    }

    #[test]
    fn a_user_named_twice_has_both() {
        let (file, _) = good("user a\ntopic read x\nuser b\ntopic read z\nuser a\ntopic write y\nuser quiet\n");
        assert_eq!(file.users["a"].of_topic("x"), Grant::RECEIVE);
        assert_eq!(file.users["a"].of_topic("y"), Grant::PUBLISH);
        assert!(file.users["quiet"].is_empty());
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        assert_eq!(
            problems("topic\nuser  \ntopics a\npattern write\ntopic rad a/b\ntopic read a/#/b\n  pattern deny x+\n"),
            [
                "/etc/acl:1:1: error: a topic line without a topic filter",
                "/etc/acl:2:1: error: a user line without a name",
                "/etc/acl:3:1: error: \"topics\" begins no line of an ACL file",
                "/etc/acl:4:9: warning: a pattern without %u and %c",
                "/etc/acl:5:7: error: \"rad\" is no kind of access",
                "/etc/acl:6:12: error: a wildcard must be a whole level, and # the last one",
                "/etc/acl:7:16: error: a wildcard must be a whole level, and # the last one",
            ]
        );
        let report = AclFile::parse(Path::new("a"), b"topic x\n\xff\n").expect_err("not UTF-8");
        assert_eq!(report.problems[0].place.as_ref().map(|place| place.line), Some(2));
    }

    #[test]
    fn what_is_odd_is_said_and_taken() {
        let (file, warnings) = good("pattern read a/b\ntopic $share/g/x\n");
        assert_eq!(warnings, 2);
        assert_eq!(file.fixed.of_topic("a/b"), Grant::RECEIVE);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = AclFile::parse(Path::new("a"), &bytes);
        }

        #[test]
        fn no_text_panics(lines in prop::collection::vec("(topic|pattern|user|#)? ?(read|write|deny)? ?.{0,12}", 0..8)) {
            let text = lines.join("\n");
            if let Err(report) = AclFile::parse(Path::new("a"), text.as_bytes()) {
                prop_assert!(!report.to_string().is_empty());
            }
        }
    }
}
