//! How many connections there may be.
//!
//! At the limit nothing is refused: accepting rests, and who comes waits in the kernel's queue.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The connections of all workers against the limit.
#[derive(Debug)]
pub struct Admission {
    limit: AtomicUsize,
    current: AtomicUsize,
    /// The limit has been reached and that was said; below [`Admission::calm`] the end of it is said as well.
    announced: AtomicBool,
    /// Not more often than that. Touched only at the limit.
    notice: Mutex<Notice>,
    /// Somebody waits for room.
    waiting: AtomicBool,
}

/// What happened at an attempt to get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Let in: [`Admission::leave`] is owed.
    Admitted {
        /// This one has filled the last place, and it is time to say so.
        announce_full: bool,
    },
    /// No room: wait, and try again when [`Admission::leave`] has said that it is time.
    Full,
}

/// What a leaver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Wake those that wait.
    pub wake: bool,
    /// The rush is over, and it is time to say so.
    pub announce_calm: bool,
}

impl Admission {
    /// Room for `limit` connections, at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit.max(1)),
            current: AtomicUsize::new(0),
            announced: AtomicBool::new(false),
            notice: Mutex::default(),
            waiting: AtomicBool::new(false),
        }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::SeqCst)
    }

    /// Another limit from now on. Whoever is beyond it stays; with a higher one, whoever waits is to be woken.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit.max(1), Ordering::SeqCst);
    }

    /// Connections now.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current.load(Ordering::SeqCst)
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.current() >= self.limit()
    }

    /// Takes a place if there is one.
    pub fn enter(&self, now: Instant) -> Entry {
        let limit = self.limit();
        let before = self.current.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1));
        match before {
            Ok(before) => Entry::Admitted { announce_full: before + 1 == limit && self.is_news(now) },
            Err(_) => Entry::Full,
        }
    }

    /// Takes a place whether there is one or not, for somebody who is in already: [`Admission::leave`] is owed.
    pub fn enter_anyway(&self) {
        self.current.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks to be woken by a leaver. Whoever calls this must look once more whether there is room before it sleeps.
    pub fn wait(&self) {
        self.waiting.store(true, Ordering::SeqCst);
    }

    /// Gives a place back.
    #[must_use]
    pub fn leave(&self) -> Exit {
        let now = self.current.fetch_sub(1, Ordering::SeqCst) - 1;
        Exit {
            wake: self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst),
            announce_calm: now <= self.calm()
                && self.announced.load(Ordering::SeqCst)
                && self.announced.swap(false, Ordering::SeqCst),
        }
    }

    fn is_news(&self, now: Instant) -> bool {
        let mut notice = self.notice.lock().unwrap_or_else(PoisonError::into_inner);
        let news = !self.announced.load(Ordering::SeqCst) && notice.is_due(now);
        if news {
            self.announced.store(true, Ordering::SeqCst);
        }
        news
    }

    /// Nine tenths of the limit, and always below it, so that one client that comes and goes at the limit is said once.
    fn calm(&self) -> usize {
        let limit = self.limit();
        limit - limit.div_ceil(10)
    }
}

/// Something that may happen thousands of times and is said once in a while.
#[derive(Debug, Default)]
pub struct Notice {
    last: Option<Instant>,
}

impl Notice {
    /// At most one notice in this time.
    pub const INTERVAL: Duration = Duration::from_secs(10);

    /// Whether to say it now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= Self::INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

    use proptest::prelude::*;

    use super::*;

    const IN: Entry = Entry::Admitted { announce_full: false };
    const IN_LAST: Entry = Entry::Admitted { announce_full: true };
    const QUIET: Exit = Exit { wake: false, announce_calm: false };

    #[test]
    fn lets_in_up_to_the_limit_and_says_once_that_it_is_full() {
        let now = Instant::now();
        let admission = Admission::new(2);
        assert_eq!([admission.enter(now), admission.enter(now), admission.enter(now)], [IN, IN_LAST, Entry::Full]);
        assert!(admission.is_full());
        assert_eq!(admission.leave(), Exit { wake: false, announce_calm: true });
        // A crowd that leaves and one that waits make it full again and again: that is one story.
        assert_eq!(admission.enter(now + Notice::INTERVAL - Duration::from_millis(1)), IN);
        assert_eq!(admission.leave(), QUIET);
        assert_eq!(admission.enter(now + Notice::INTERVAL), IN_LAST);
    }

    #[test]
    fn a_client_that_comes_and_goes_at_the_limit_is_said_once() {
        let now = Instant::now();
        let admission = Admission::new(20);
        for _ in 0..19 {
            assert_eq!(admission.enter(now), IN);
        }
        assert_eq!(admission.enter(now), IN_LAST);
        for _ in 0..100 {
            assert_eq!(admission.leave(), QUIET);
            assert_eq!(admission.enter(now), IN);
        }
        assert_eq!(admission.leave(), QUIET);
        assert_eq!(admission.leave(), Exit { wake: false, announce_calm: true });
    }

    #[test]
    fn a_leaver_wakes_who_asked_for_it_once() {
        let now = Instant::now();
        let admission = Admission::new(20);
        for _ in 0..20 {
            let _ = admission.enter(now);
        }
        admission.wait();
        assert_eq!(admission.leave(), Exit { wake: true, announce_calm: false });
        assert_eq!(admission.leave(), Exit { wake: false, announce_calm: true });
    }

    #[test]
    fn who_is_in_already_counts_also_above_the_limit() {
        let now = Instant::now();
        let admission = Admission::new(1);
        admission.enter_anyway();
        admission.enter_anyway();
        assert_eq!((admission.current(), admission.enter(now)), (2, Entry::Full));
        assert_eq!(admission.leave(), QUIET);
        assert_eq!(admission.enter(now), Entry::Full);
        assert_eq!(admission.leave(), QUIET);
        assert_eq!(admission.enter(now), IN_LAST);
    }

    #[test]
    fn no_limit_is_below_one() {
        assert_eq!(Admission::new(0).limit(), 1);
        assert_eq!(Admission::new(0).enter(Instant::now()), IN_LAST);
    }

    #[test]
    fn a_notice_is_due_once_in_its_interval() {
        let start = Instant::now();
        let mut notice = Notice::default();
        assert!(notice.is_due(start));
        assert!(!notice.is_due(start + Notice::INTERVAL - Duration::from_millis(1)));
        assert!(notice.is_due(start + Notice::INTERVAL));
    }

    proptest! {
        #[test]
        fn never_above_the_limit_and_never_lost(limit in 1_usize..30, steps in proptest::collection::vec(any::<bool>(), 0..300)) {
            let now = Instant::now();
            let admission = Admission::new(limit);
            let mut inside = 0;
            for enter in steps {
                if enter {
                    match admission.enter(now) {
                        Entry::Admitted { .. } => inside += 1,
                        Entry::Full => prop_assert_eq!(inside, limit),
                    }
                } else if inside > 0 {
                    let _ = admission.leave();
                    inside -= 1;
                }
                prop_assert_eq!(admission.current(), inside);
                prop_assert_eq!(admission.is_full(), inside == limit);
            }
        }
    }
}
