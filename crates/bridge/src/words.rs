//! What the store has of an entry of the log besides its message: where it is to go, and who published it.
//!
//! ```text
//!  | directions, see [`crate::directions`]: of no groups where there are none | publisher u64 |
//! ```
//!
//! Nothing at all stands for neither. A broker that does not know of publishers leaves out what is behind the directions, so it can go on
//! with the store of a newer one.
//!
//! Pure.

use std::borrow::Cow;
use std::num::NonZeroU64;

use crate::directions::Directions;
use crate::message::Publisher;

/// Directions of no groups.
const NOWHERE: [u8; 3] = [0; 3];
const PUBLISHER: usize = 8;

/// Room for an entry that has no directions, as nearly all have none.
pub(crate) type Room = [u8; NOWHERE.len() + PUBLISHER];

/// As they are stored.
pub(crate) fn write<'a>(
    directions: Option<&'a Directions>,
    publisher: Option<Publisher>,
    room: &'a mut Room,
) -> Cow<'a, [u8]> {
    match (directions, publisher) {
        (None, None) => Cow::Borrowed(&[]),
        (Some(directions), None) => Cow::Borrowed(directions.as_bytes()),
        (None, Some(Publisher(publisher))) => {
            room[..NOWHERE.len()].copy_from_slice(&NOWHERE);
            room[NOWHERE.len()..].copy_from_slice(&publisher.get().to_be_bytes());
            Cow::Borrowed(room)
        }
        (Some(directions), Some(Publisher(publisher))) => {
            Cow::Owned([&directions.as_bytes()[..], &publisher.get().to_be_bytes()].concat())
        }
    }
}

/// What was stored.
#[must_use]
pub fn read(bytes: &[u8]) -> (Option<Directions>, Option<Publisher>) {
    let Some(directions) = Directions::parse(bytes) else { return (None, None) };
    let publisher = bytes[directions.as_bytes().len()..].first_chunk().copied().map(u64::from_be_bytes);
    let publisher = publisher.and_then(NonZeroU64::new).map(Publisher);
    (Some(directions).filter(|directions| !directions.is_empty()), publisher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directions::GroupId;

    #[test]
    fn as_they_stand_in_the_store() {
        let directions = Directions::new(GroupId([7; 16]), "mq1");
        let publisher = NonZeroU64::new(0x0102).map(Publisher);
        let all = [(None, None), (Some(&directions), None), (None, publisher), (Some(&directions), publisher)];
        for (to, by) in all {
            let mut room = Room::default();
            let written = write(to, by, &mut room);
            assert_eq!(read(&written), (to.cloned(), by));
            let newer = [&written[..], b"more"].concat();
            if by.is_some() {
                assert_eq!(read(&newer), (to.cloned(), by), "what a newer broker says besides is left out");
            }
            for end in 0..written.len() {
                let (to, by) = read(&written[..end]);
                assert!(by.is_none() && to.is_none_or(|to| to == directions));
            }
        }
        assert_eq!(write(None, publisher, &mut Room::default())[..], *b"\0\0\0\0\0\0\0\0\0\x01\x02");
        assert!(write(None, None, &mut Room::default()).is_empty());
        // What a broker that knows of no publishers makes of it: nothing for any group, and for everybody else.
        let older = Directions::parse(&write(None, publisher, &mut Room::default())).unwrap();
        assert!(!older.is_handed_over() && !older.has("mq1") && older.broker_of(GroupId([7; 16])).is_none());
        assert_eq!(read(b"\0\0\0\0\0\0\0\0\0\0\0"), (None, None));
    }
}
