//! What other brokers know a client by: whoever is the same client there does not get its own messages where it has asked for that.

use std::num::NonZeroU64;

use aws_lc_rs::digest::{Context, SHA256};
use evermq_bridge::Publisher;

/// The client with this identifier, which belongs to this user: another user's client of the same identifier is another one.
#[must_use]
pub fn of(client_id: &str, user: Option<&str>) -> Publisher {
    let mut digest = Context::new(&SHA256);
    digest.update(b"publisher");
    digest.update(&(client_id.len() as u64).to_be_bytes());
    digest.update(client_id.as_bytes());
    if let Some(user) = user {
        digest.update(b"of");
        digest.update(user.as_bytes());
    }
    let digest = digest.finish();
    let first = digest.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes);
    Publisher(NonZeroU64::new(first).unwrap_or(NonZeroU64::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_identifier_and_user_on_every_broker() {
        // Brokers of any version have to agree on it.
        assert_eq!(of("c", None).0.get(), 0xd1b8_8f2a_a82c_38bb);
        let all = [
            of("c", None),
            of("c", Some("")),
            of("c", Some("u")),
            of("cofu", None),
            of("co", Some("fu")),
            of("", None),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(index));
        }
    }
}
