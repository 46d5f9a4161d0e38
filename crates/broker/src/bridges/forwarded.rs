//! ◆ Which messages another host has passed on already, so that this one, which stands by for it, need not.
//!
//! Every broker of the cluster has every message, so the session of a bridge fills up on each of its hosts. The one that keeps
//! the connection tells the others how far it is, for each broker that messages come from: the time stamp before that of the
//! oldest message which the remote broker has not acknowledged. What is older by [`OVERLAP`] the others drop, and do not take
//! either when it comes later.

use std::collections::BTreeMap;
use std::sync::Arc;

use evermq_bridge::Stamp;
use parking_lot::Mutex;

/// Messages of one broker may be stamped in another order than they go, by the time that a thread stands still in between. So
/// much is kept back, and sent again after a takeover. In nanoseconds.
pub const OVERLAP: u64 = 1_000_000_000;

/// Time stamps, by the broker that gave them.
pub type Marks = BTreeMap<Arc<str>, u64>;

/// What has been passed on, as the others have said.
#[derive(Debug, Default)]
pub struct Forwarded(Mutex<Marks>);

impl Forwarded {
    /// Whether a message has been passed on.
    #[must_use]
    pub fn covers(&self, stamp: &Stamp) -> bool {
        self.0.lock().get(&stamp.origin).is_some_and(|mark| stamp.time <= *mark)
    }

    /// Another host is so far; whether it was not yet, as far as was known.
    pub fn raise(&self, marks: &Marks) -> bool {
        let mut known = self.0.lock();
        let mut is_more = false;
        for (origin, mark) in marks {
            let known = known.entry(Arc::clone(origin)).or_default();
            is_more |= *mark > *known;
            *known = (*known).max(*mark);
        }
        is_more
    }
}

/// How far a host is. `latest` are the newest messages that it has had, `waiting` those that the remote broker has not
/// acknowledged.
#[must_use]
pub fn marks<'a>(latest: Marks, waiting: impl Iterator<Item = &'a Stamp>) -> Marks {
    let mut marks = latest;
    for stamp in waiting {
        if let Some(mark) = marks.get_mut(&stamp.origin) {
            *mark = (*mark).min(stamp.time.saturating_sub(1));
        }
    }
    marks.values_mut().for_each(|mark| *mark = mark.saturating_sub(OVERLAP));
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(origin: &str, time: u64) -> Stamp {
        Stamp { time, origin: origin.into() }
    }

    #[test]
    fn what_is_older_than_all_that_waits_is_passed_on() {
        let latest = Marks::from([("a".into(), 9 * OVERLAP), ("b".into(), 5 * OVERLAP)]);
        let waiting = [stamp("a", 8 * OVERLAP), stamp("a", 7 * OVERLAP + 1), stamp("unknown", 1)];
        let marks = marks(latest, waiting.iter());
        assert_eq!(marks, Marks::from([("a".into(), 6 * OVERLAP), ("b".into(), 4 * OVERLAP)]));
        let forwarded = Forwarded::default();
        assert!(!forwarded.covers(&stamp("a", 0)));
        assert!(forwarded.raise(&marks));
        assert!(!forwarded.raise(&Marks::from([("a".into(), 1)])), "nobody goes back");
        assert!(forwarded.covers(&stamp("a", 6 * OVERLAP)) && !forwarded.covers(&stamp("a", 6 * OVERLAP + 1)));
        assert!(!forwarded.covers(&stamp("c", 0)));
    }
}
