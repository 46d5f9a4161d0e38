//! Every rule, and what of them concerns one client: those of `[[broker.acl]]`, or of mosquitto's `acl_file`.
//!
//! | `[[broker.acl]]`, the entries that concern the client | verdict |
//! |---|---|
//! | one denies it | no |
//! | one allows it | yes |
//! | none does | no |
//!
//! For `acl_file` see [`mosquitto`](crate::mosquitto).
//!
//! A subscription is for many topics. It is granted where some topic of it may be received, and refused where none may: what
//! comes through it is asked about message by message, so a filter that is wider than the rules brings what they allow. With
//! `acl_file` it is always granted, as mosquitto does.

use std::fmt;
use std::sync::Arc;

use evermq_config::broker::AclRule;
use evermq_mqtt::{TopicFilter, TopicName};

use crate::filters::{self, FilterError, Filters, Grant};
use crate::mosquitto::AclFile;
use crate::substitution::{self, Subject, Substituted, has_wildcard, is_template};

/// The rules for everyone.
#[derive(Debug, Clone)]
pub enum Rules {
    /// `[[broker.acl]]`.
    Entries(Entries),
    /// `acl_file`.
    File(AclFile),
}

/// Those of `[[broker.acl]]`.
#[derive(Debug, Clone)]
pub struct Entries(Vec<Entry>);

/// One `[[broker.acl]]`.
#[derive(Debug, Clone)]
struct Entry {
    users: Vec<String>,
    clients: Vec<String>,
    fixed: Arc<Filters>,
    templates: Vec<(Box<str>, Grant)>,
}

/// A filter of `[[broker.acl]]` that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRule {
    /// Which entry, from 1.
    pub entry: usize,
    /// The filter.
    pub filter: String,
    /// Why.
    pub error: FilterError,
}

/// What one client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permits {
    /// Asked first: of `acl_file`, the user's own rules. What they allow or deny is decided.
    first: Option<Arc<Filters>>,
    /// What is the same for many clients: of `[[broker.acl]]`, the entries that concern this one; of `acl_file`, patterns.
    shared: Box<[Arc<Filters>]>,
    /// What is said with this client's names put in.
    own: Filters,
    /// The rules are mosquitto's.
    is_file: bool,
}

impl Rules {
    /// The rules of `[[broker.acl]]`; none where there are no entries, so that everyone may do everything.
    ///
    /// # Errors
    /// A rule's filter is none.
    pub fn of_entries(entries: &[AclRule]) -> Result<Option<Self>, BadRule> {
        if entries.is_empty() {
            return Ok(None);
        }
        let entries = entries.iter().enumerate().map(|(index, rule)| Entry::new(index + 1, rule));
        Ok(Some(Self::Entries(Entries(entries.collect::<Result<_, _>>()?))))
    }

    /// What this client may do.
    #[must_use]
    pub fn of(&self, subject: Subject<'_>) -> Permits {
        let mut own = Filters::default();
        let (first, shared): (_, Vec<_>) = match self {
            Self::Entries(Entries(entries)) => {
                let mine = entries.iter().filter(|entry| entry.concerns(subject));
                let shared = mine.inspect(|entry| put_in(&entry.templates, subject, &mut own));
                (None, shared.map(|entry| &entry.fixed).filter(|fixed| !fixed.is_empty()).cloned().collect())
            }
            Self::File(file) => {
                let first = match subject.user {
                    Some(user) => file.users.get(user),
                    None => file.nobody.as_ref(),
                };
                // CVE-2017-7650: as mosquitto does, nothing from any pattern.
                let is_dangerous = subject.user.is_some_and(has_wildcard) || has_wildcard(subject.client_id);
                if !is_dangerous {
                    put_in(&file.templates, subject, &mut own);
                }
                let fixed = Some(&file.fixed).filter(|fixed| !is_dangerous && !fixed.is_empty());
                (first.cloned(), fixed.into_iter().cloned().collect())
            }
        };
        own.shrink();
        Permits { first, shared: shared.into(), own, is_file: matches!(self, Self::File(_)) }
    }
}

impl Entry {
    fn new(number: usize, rule: &AclRule) -> Result<Self, BadRule> {
        let mut fixed = Filters::default();
        let mut templates = Vec::new();
        let granted = [(&rule.publish, Grant::PUBLISH), (&rule.subscribe, Grant::RECEIVE), (&rule.deny, Grant::DENY)];
        for (list, grant) in granted {
            for filter in list {
                filters::check(filter).map_err(|error| BadRule { entry: number, filter: filter.clone(), error })?;
                if is_template(filter) {
                    templates.push((filter.as_str().into(), grant));
                } else {
                    fixed.add(filter, grant);
                }
            }
        }
        fixed.shrink();
        Ok(Self { users: rule.users.clone(), clients: rule.clients.clone(), fixed: Arc::new(fixed), templates })
    }

    fn concerns(&self, subject: Subject<'_>) -> bool {
        let named = |globs: &[String], name: Option<&str>| {
            globs.is_empty() || name.is_some_and(|name| globs.iter().any(|glob| is_like(name, glob)))
        };
        named(&self.users, subject.user) && named(&self.clients, Some(subject.client_id))
    }
}

impl Permits {
    /// Whether these are the same rules: out of the same files, with the same names put in. Does not look at them one by one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_first = match (&self.first, &other.first) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        };
        let same = |(own, other): (&Arc<Filters>, &Arc<Filters>)| Arc::ptr_eq(own, other);
        is_same_first
            && self.is_file == other.is_file
            && self.shared.len() == other.shared.len()
            && self.shared.iter().zip(&other.shared).all(same)
            && self.own == other.own
    }

    /// Whether a message, or a will, may be published to the topic.
    #[must_use]
    pub fn may_publish(&self, topic: &TopicName) -> bool {
        self.allows(Grant::PUBLISH, &|list, grant| list.of_topic(topic.as_str()).has(grant))
    }

    /// Whether a message of the topic may come to the client.
    #[must_use]
    pub fn may_receive(&self, topic: &TopicName) -> bool {
        self.allows(Grant::RECEIVE, &|list, grant| list.of_topic(topic.as_str()).has(grant))
    }

    /// Whether anything that the filter matches may come to the client; of a shared subscription, its plain filter.
    #[must_use]
    pub fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        if self.is_file {
            return true;
        }
        let filter = filter.share().map_or(filter.as_str(), |(_, filter)| filter);
        // What is denied in part is for `may_receive`.
        self.allows(Grant::RECEIVE, &|list, grant| match grant {
            Grant::DENY => list.of_every(filter).has(grant),
            _ => list.of_some(filter).has(grant),
        })
    }

    /// Whether the rules are mosquitto's, so that a will which they do not allow is left out instead of being refused.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        self.is_file
    }

    fn allows(&self, wanted: Grant, ask: &impl Fn(&Filters, Grant) -> bool) -> bool {
        let first = self.first.as_deref().and_then(|first| verdict(|grant| ask(first, grant), wanted));
        let rest =
            || verdict(|grant| ask(&self.own, grant) || self.shared.iter().any(|shared| ask(shared, grant)), wanted);
        first.or_else(rest).unwrap_or(false)
    }
}

/// Whether it is allowed, where anything is said of it.
fn verdict(has: impl Fn(Grant) -> bool, wanted: Grant) -> Option<bool> {
    if has(Grant::DENY) { Some(false) } else { has(wanted).then_some(true) }
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, help) = self.error.text();
        write!(f, "[[broker.acl]], entry {}: \"{}\": {message}; {help}", self.entry, self.filter)
    }
}

impl std::error::Error for BadRule {}

fn put_in(templates: &[(Box<str>, Grant)], subject: Subject<'_>, filters: &mut Filters) {
    for (template, grant) in templates {
        match substitution::substitute(template, subject) {
            Substituted::Filter(filter) => filters.add(&filter, *grant),
            Substituted::Dangerous(filter) if *grant == Grant::DENY => filters.add(&filter, *grant),
            Substituted::Dangerous(_) | Substituted::NotApplicable => {}
        }
    }
}

/// Whether `name` is `glob` with some characters for each `*`.
fn is_like(name: &str, glob: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return name == glob };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        // The first place will do: it leaves the most for what comes after.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests;
