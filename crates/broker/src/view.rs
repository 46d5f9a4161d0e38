//! Who is there, as an operator asks: clients, sessions, subscriptions, retained messages.
//!
//! Of all of it a page at a time: a request looks at no more than [`SCAN`] sessions and answers with no more than [`MOST`]
//! rows and with where to go on, so that neither the broker stands still nor memory fills, whatever there is. Who comes or
//! goes between two pages is shown or not; who stays is shown once.

pub mod clients;
pub mod pattern;
pub mod retained;
pub mod subscriptions;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::mailbox::Mailbox;
use crate::registry::Registry;

/// Rows of one answer.
pub const MOST: usize = 1000;
/// Sessions that are looked at for one answer.
pub const SCAN: usize = 10_000;

/// Where a page begins: a part of the registry, the key of a mailbox in it, and how many of its rows have been shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    shard: usize,
    key: u64,
    skip: usize,
}

/// What became of a mailbox that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// All that there is of it is on the page.
    Done,
    /// The page is full; so many of its rows are on it, or were on earlier ones.
    Full(usize),
}

impl Cursor {
    /// Reads what [`Cursor::to_json`] gave; none is the beginning.
    ///
    /// # Errors
    /// It is something else; in the words of the answer.
    pub fn read(value: &Value) -> Result<Self, String> {
        let number = |index: usize| value[index].as_u64();
        match (value, number(0), number(1), number(2)) {
            (Value::Null, ..) => Ok(Self::default()),
            (_, Some(shard), Some(key), Some(skip)) => {
                let small = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
                Ok(Self { shard: small(shard), key, skip: small(skip) })
            }
            _ => Err("`from` must be what `next` of the page before was".to_owned()),
        }
    }

    /// For the answer.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!([self.shard, self.key, self.skip])
    }
}

/// How many rows are asked for.
#[must_use]
pub fn limit(request: &Value) -> usize {
    request["limit"].as_u64().map_or(MOST, |limit| usize::try_from(limit).unwrap_or(MOST)).clamp(1, MOST)
}

/// Shows sessions to `look` from there on, with how many rows of the first one are known already. Gives where to go on; none
/// at the end.
pub fn walk(registry: &Registry, from: Cursor, mut look: impl FnMut(&Arc<Mailbox>, usize) -> Looked) -> Option<Cursor> {
    let mut scanned = 0;
    let mut at = from;
    while let Some(mut mailboxes) = registry.shard_at(at.shard) {
        mailboxes.retain(|mailbox| mailbox.key() >= at.key);
        // Only as many as may be looked at need be in order.
        let wanted = SCAN - scanned;
        if mailboxes.len() > wanted {
            mailboxes.select_nth_unstable_by_key(wanted, |mailbox| mailbox.key());
            mailboxes.truncate(wanted + 1);
        }
        mailboxes.sort_unstable_by_key(|mailbox| mailbox.key());
        for mailbox in &mailboxes {
            if scanned == SCAN {
                return Some(Cursor { shard: at.shard, key: mailbox.key(), skip: 0 });
            }
            scanned += 1;
            let skip = if mailbox.key() == at.key { at.skip } else { 0 };
            if let Looked::Full(shown) = look(mailbox, skip) {
                return Some(Cursor { shard: at.shard, key: mailbox.key(), skip: shown });
            }
        }
        at = Cursor { shard: at.shard + 1, key: 0, skip: 0 };
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use evermq_mqtt::Text;

    use super::*;
    use crate::broker::tests::broker;

    #[test]
    fn pages_show_everybody_once() {
        let (broker, _) = broker();
        let registry = Registry::default();
        for number in 0..3000 {
            let id = Text::new(&format!("c{number}")).unwrap();
            let mailbox = Mailbox::new(id.clone(), broker.limits(), None);
            let made: Result<_, Infallible> = registry.replace(&id, |_| Ok((mailbox, ())));
            made.unwrap();
        }
        // Three rows of each, seven on a page.
        let (mut seen, mut rows, mut pages) = (BTreeSet::new(), 0, 0);
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            assert_eq!(Cursor::read(&cursor.to_json()), Ok(cursor));
            pages += 1;
            let mut room = 7;
            from = walk(&registry, cursor, |mailbox, skip| {
                let more = (3 - skip).min(room);
                (rows, room) = (rows + more, room - more);
                seen.insert(mailbox.client_id().to_string());
                if skip + more == 3 { Looked::Done } else { Looked::Full(skip + more) }
            });
        }
        assert_eq!((seen.len(), rows), (3000, 9000));
        assert_eq!(pages, 9000 / 7 + 1);
        assert!(Cursor::read(&json!("x")).is_err());
    }

    #[test]
    fn one_request_looks_at_a_bounded_number() {
        let (broker, _) = broker();
        let registry = Registry::default();
        for number in 0..SCAN + 100 {
            let id = Text::new(&format!("c{number}")).unwrap();
            let mailbox = Mailbox::new(id.clone(), broker.limits(), None);
            let made: Result<_, Infallible> = registry.replace(&id, |_| Ok((mailbox, ())));
            made.unwrap();
        }
        let count = |from| {
            let mut looked = 0;
            let next = walk(&registry, from, |_, _| {
                looked += 1;
                Looked::Done
            });
            (looked, next)
        };
        let (first, next) = count(Cursor::default());
        let (second, end) = count(next.unwrap());
        assert_eq!((first, second, end), (SCAN, 100, None));
    }
}
