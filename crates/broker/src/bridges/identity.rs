//! The client identifiers of bridges' sessions: nobody else has them.

use evermq_mqtt::Text;

/// What they begin with.
const PREFIX: &str = "$bridge/";

/// That of the session of a bridge; `None` only for a name that is longer than the cluster file allows.
#[must_use]
pub fn client_id(name: &str) -> Option<Text> {
    Text::new(&format!("{PREFIX}{name}")).ok()
}

/// Whether an identifier is a bridge's: clients are not let in with it, and rules and limits of clients do not hold for it.
#[must_use]
pub fn is_reserved(client_id: &str) -> bool {
    client_id.starts_with(PREFIX)
}

/// The bridge whose identifier it is.
#[must_use]
pub fn name_of(client_id: &str) -> Option<&str> {
    client_id.strip_prefix(PREFIX)
}
