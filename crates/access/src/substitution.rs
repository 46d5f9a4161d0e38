//! `%u` and `%c` in topic filters: the user name and the client identifier.
//!
//! Both are the client's to choose in part, so none may say more than itself (CVE-2017-7650): in what allows, a value with
//! `+`, `#` or `/`, or one that would make a topic begin with `$`, makes the rule allow nothing. In what denies it is put in
//! as it is: that can only deny more.

/// Who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// None for an anonymous client.
    pub user: Option<&'a str>,
    /// The client identifier.
    pub client_id: &'a str,
}

/// What became of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Substituted {
    /// It speaks of a user, and there is none.
    NotApplicable,
    /// The filter.
    Filter(String),
    /// The filter, with a value that must not be trusted.
    Dangerous(String),
}

/// Whether there is anything to put in.
#[must_use]
pub fn is_template(filter: &str) -> bool {
    filter.contains("%u") || filter.contains("%c")
}

/// Whether mosquitto would call the value dangerous, which it does where any pattern is.
#[must_use]
pub fn has_wildcard(value: &str) -> bool {
    value.contains(['+', '#'])
}

/// Puts the values in.
#[must_use]
pub fn substitute(template: &str, subject: Subject<'_>) -> Substituted {
    let mut filter = String::with_capacity(template.len() + subject.client_id.len());
    let mut is_dangerous = false;
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        filter.push_str(&rest[..at]);
        let value = match rest.as_bytes().get(at + 1) {
            Some(b'u') => match subject.user {
                Some(user) => user,
                None => return Substituted::NotApplicable,
            },
            Some(b'c') => subject.client_id,
            _ => {
                filter.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        };
        is_dangerous |= has_wildcard(value) || value.contains('/') || (filter.is_empty() && value.starts_with('$'));
        filter.push_str(value);
        rest = &rest[at + 2..];
    }
    filter.push_str(rest);
    if is_dangerous { Substituted::Dangerous(filter) } else { Substituted::Filter(filter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_and_never_trusted() {
        let subject = |user, client_id| Subject { user, client_id };
        let good = |text: &str| Substituted::Filter(text.to_owned());
        let bad = |text: &str| Substituted::Dangerous(text.to_owned());
        for (template, who, expected) in [
            ("a/%u/%c", subject(Some("anna"), "c1"), good("a/anna/c1")),
            ("%c", subject(None, "c1"), good("c1")),
            ("a%ub/%c%c", subject(Some("x"), "y"), good("axb/yy")),
            ("100%/%x/%%u", subject(Some("x"), "y"), good("100%/%x/%x")),
            ("%u", subject(Some("%c"), "y"), good("%c")),
            ("%", subject(None, "y"), good("%")),
            ("a/%u", subject(None, "y"), Substituted::NotApplicable),
            ("a/%u", subject(Some("+"), "y"), bad("a/+")),
            ("a/%c", subject(None, "x#"), bad("a/x#")),
            ("a/%c", subject(None, "x/y"), bad("a/x/y")),
            ("%c/a", subject(None, "$SYS"), bad("$SYS/a")),
            ("a/%c", subject(None, "$SYS"), good("a/$SYS")),
        ] {
            assert_eq!(substitute(template, who), expected, "{template} {who:?}");
        }
    }
}
