//! Sessions that outlive their connections: how many there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Places for them.
#[derive(Debug)]
pub struct Lasting {
    max: AtomicUsize,
    taken: AtomicUsize,
    is_logged: AtomicBool,
}

/// One session's place, given back when dropped.
#[derive(Debug)]
pub struct LastingPlace(Arc<Lasting>);

impl Lasting {
    /// `max` of them.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), taken: AtomicUsize::new(0), is_logged: AtomicBool::new(false) }
    }

    /// How many there may be.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// More, or fewer: those that are there stay.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.is_logged.store(false, Ordering::Relaxed);
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place; `replaces` if another one is given back for it.
    pub fn take(self: &Arc<Self>, replaces: bool) -> Option<LastingPlace> {
        let max = self.max().saturating_add(replaces.into());
        let more = |taken: usize| (taken < max).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            return Some(LastingPlace(Arc::clone(self)));
        }
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                max,
                "the sessions that outlive their connections are as many as there may be; clients that want a new one are refused: raise broker.max_sessions, or lower max_session_expiry"
            );
        }
        None
    }

    /// A place whether there is one or not: for a session that was there before.
    #[must_use]
    pub fn force(self: &Arc<Self>) -> LastingPlace {
        self.taken.fetch_add(1, Ordering::Relaxed);
        LastingPlace(Arc::clone(self))
    }
}

impl Drop for LastingPlace {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_may_be_but_for_those_that_were_there() {
        let lasting = Arc::new(Lasting::new(1));
        let one = lasting.take(false).unwrap();
        assert!(lasting.take(false).is_none());
        // In the place of the one that is there.
        let other = lasting.take(true).unwrap();
        drop(one);
        assert_eq!(lasting.taken(), 1);
        let recovered = lasting.force();
        drop(other);
        assert!(lasting.take(false).is_none());
        drop(recovered);
        assert!(lasting.take(false).is_some());
        lasting.set_max(0);
        assert!(lasting.take(false).is_none());
    }
}
