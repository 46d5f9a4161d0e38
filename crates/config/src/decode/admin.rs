//! `[admin]`.

use crate::admin::Admin;
use crate::consistency::Spans;
use crate::section::Section;

/// RFC 5280 appendix A.1, ub-common-name.
const LONGEST_NAME: usize = 64;
const NAMES: &str = "a list of common names of client certificates, such as [\"admin\"]";

pub(crate) fn admin(mut s: Section<'_>, defaulted: &mut Vec<String>, spans: &mut Spans) -> Admin {
    let listen = s.optional_socket_address("listen", "0.0.0.0:9003");
    let admins = s.names("admins", NAMES, is_name);
    let readers = s.names("readers", NAMES, is_name);
    for key in ["listen", "admins", "readers"] {
        s.note_if_absent(key);
    }
    let admin = Admin {
        listen,
        admins: admins.unwrap_or_else(|| vec!["admin".to_owned()]),
        readers: readers.unwrap_or_default(),
        anonymous_read: s.boolean("anonymous_read", false),
    };
    spans.admin_listen = s.span("listen");
    defaulted.extend(s.finish());
    admin
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control)
}
