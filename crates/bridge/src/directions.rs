//! Where a message is to go besides everywhere: which broker gives it to each group of a shared subscription.
//!
//! ```text
//!  | flags u8 | count u16 | count times: group, 16 bytes | length u8 | broker |
//! ```
//!
//! The broker that a message is published to chooses, once, when it puts the message into its log; this is what it has chosen, the
//! same bytes in memory, in the store and on the way to the others. A group that is not in it had no members as far as that broker
//! knew. The two lowest of `flags` are a number: so often was the message *handed over*. Then it is for these groups at these brokers,
//! and for nobody else, because everybody else has had it. What follows behind the last group is ignored.
//!
//! Pure.

use bytes::{BufMut, Bytes, BytesMut};

/// Groups whose brokers can be named for one message. With the longest names this is less than any frame may have.
pub(crate) const MAX_GROUPS: usize = 512;

/// Bits of `flags`, and the most that they say: nobody who is left sends a message round in circles.
const HANDED_OVER: u8 = 3;
const HEAD: usize = 3;
const GROUP: usize = 16;

/// A group in few bytes, the same on every broker: made of its topic filter, `$share/` and its name included, so that no two groups
/// of a cluster have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(pub [u8; GROUP]);

/// Where a message is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directions(Bytes);

impl Directions {
    /// This broker gives it to that group.
    ///
    /// # Panics
    /// The broker's name is longer than a host name can be.
    #[must_use]
    pub fn new(group: GroupId, broker: &str) -> Self {
        let mut out = BytesMut::with_capacity(HEAD + GROUP + 1 + broker.len());
        out.put_u8(0);
        out.put_u16(1);
        out.put_slice(&group.0);
        out.put_u8(u8::try_from(broker.len()).expect("a host name has at most 63 bytes"));
        out.put_slice(broker.as_bytes());
        Self(out.freeze())
    }

    /// Both; `None` if these are too many groups.
    #[must_use]
    pub fn and(&self, other: &Self) -> Option<Self> {
        let count = self.len() + other.len();
        let count = u16::try_from(count).ok().filter(|_| count <= MAX_GROUPS)?;
        let mut out = BytesMut::with_capacity(self.0.len() + other.0.len());
        out.put_u8(self.0[0] | other.0[0]);
        out.put_u16(count);
        out.put_slice(&self.0[HEAD..]);
        out.put_slice(&other.0[HEAD..]);
        Some(Self(out.freeze()))
    }

    /// Whether no group is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further group can be named.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= MAX_GROUPS
    }

    /// The same for a message that everybody else has had; it came here as `before` says. `None` if it was handed over often
    /// enough.
    #[must_use]
    pub fn handed_over(&self, before: Option<&Self>) -> Option<Self> {
        let times = before.map_or(0, |before| before.0[0] & HANDED_OVER);
        let mut out = BytesMut::from(&self.0[..]);
        out[0] = (out[0] & !HANDED_OVER) | (times + 1);
        (times < HANDED_OVER).then(|| Self(out.freeze()))
    }

    /// Whether everybody else has had it.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.0[0] & HANDED_OVER != 0
    }

    /// Who gives it to that group, if that was said.
    #[must_use]
    pub fn broker_of(&self, group: GroupId) -> Option<&str> {
        self.groups().find(|(of, _)| **of == group.0).map(|(_, broker)| broker)
    }

    /// Whether there is a group to which that broker gives it.
    #[must_use]
    pub fn has(&self, broker: &str) -> bool {
        self.of(broker).next().is_some()
    }

    /// The groups to which that broker gives it.
    pub fn of(&self, broker: &str) -> impl Iterator<Item = GroupId> {
        self.groups().filter(move |(_, of)| *of == broker).map(|(group, _)| GroupId(*group))
    }

    /// As it crosses the mesh and is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Reads such bytes. The copy shares nothing with them.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(HEAD..)?;
        let count = usize::from(u16::from_be_bytes([bytes[1], bytes[2]]));
        for _ in 0..count {
            let length = usize::from(*rest.get(GROUP)?);
            std::str::from_utf8(rest.get(GROUP + 1..GROUP + 1 + length)?).ok()?;
            rest = &rest[GROUP + 1 + length..];
        }
        (count <= MAX_GROUPS).then(|| Self(Bytes::copy_from_slice(&bytes[..bytes.len() - rest.len()])))
    }

    fn len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[1], self.0[2]]))
    }

    fn groups(&self) -> impl Iterator<Item = (&[u8; GROUP], &str)> {
        let mut rest = &self.0[HEAD..];
        std::iter::from_fn(move || {
            let (group, named) = rest.split_first_chunk::<GROUP>()?;
            let (length, named) = named.split_first()?;
            let (broker, behind) = named.split_at_checked(usize::from(*length))?;
            rest = behind;
            Some((group, std::str::from_utf8(broker).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: GroupId = GroupId([0xa; 16]);
    const B: GroupId = GroupId([0xb; 16]);

    #[test]
    fn as_it_stands_in_the_store_and_on_the_wire() {
        let one = Directions::new(A, "mq1");
        assert_eq!(
            one.as_bytes()[..],
            *b"\0\0\x01\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x03mq1"
        );
        let both = one.and(&Directions::new(B, "mq2")).unwrap();
        assert_eq!((both.broker_of(A), both.broker_of(B)), (Some("mq1"), Some("mq2")));
        assert_eq!((one.broker_of(B), both.has("mq2"), both.has("mq3")), (None, true, false));
        assert!(!both.is_handed_over());
        assert_eq!(both.of("mq2").collect::<Vec<_>>(), [B]);
        let mut handed_over = both.handed_over(None).unwrap();
        for times in 1..=3 {
            assert!(handed_over.is_handed_over() && handed_over.has("mq1"));
            assert_eq!(handed_over.as_bytes()[0], times);
            handed_over = one.handed_over(Some(&handed_over)).unwrap_or(handed_over);
        }
        assert_eq!(one.handed_over(Some(&handed_over)), None);
    }

    #[test]
    fn there_is_an_end_to_groups() {
        let mut all = Directions::new(A, &"h".repeat(63));
        for _ in 1..MAX_GROUPS {
            all = all.and(&Directions::new(B, &"h".repeat(63))).unwrap();
        }
        assert!(all.as_bytes().len() < 66_000, "it fits into every frame");
        assert_eq!(all.and(&Directions::new(B, "h")), None);
        assert_eq!(Directions::parse(all.as_bytes()), Some(all));
        assert_eq!(Directions::parse(&[0, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(groups in prop::collection::vec((any::<[u8; 16]>(), "[a-z0-9.-]{1,63}"), 1..6), more in prop::collection::vec(any::<u8>(), 0..4)) {
            let one = |(group, broker): &([u8; 16], String)| Directions::new(GroupId(*group), broker);
            let written = groups.iter().map(one).reduce(|all, one| all.and(&one).unwrap()).unwrap();
            let bytes = [written.as_bytes(), &more[..]].concat();
            prop_assert_eq!(Directions::parse(&bytes), Some(written.clone()), "what a newer broker says besides is left out");
            for (group, broker) in &groups {
                prop_assert!(written.has(broker) && written.broker_of(GroupId(*group)).is_some());
            }
            for end in 0..written.as_bytes().len() {
                prop_assert_eq!(Directions::parse(&bytes[..end]), None);
            }
        }

        #[test]
        fn garbage_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(read) = Directions::parse(&bytes) {
                prop_assert!(!read.has("a name that nobody has"));
            }
        }
    }
}
