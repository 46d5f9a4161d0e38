//! What the real-time thread says to the thread that tells clients: nothing here waits, allocates or takes a lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Who is master of what, as far as this host is concerned.
#[derive(Debug)]
pub(super) struct Notice {
    wake: EventFd,
    /// For each virtual router: odd while this host is its master; counts every change.
    terms: Box<[AtomicU32]>,
    stop: AtomicBool,
}

impl Notice {
    /// For so many virtual routers, of none of which this host is master.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(instances: usize) -> io::Result<Self> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let terms = (0..instances).map(|_| AtomicU32::new(0)).collect();
        Ok(Self { wake, terms, stop: AtomicBool::new(false) })
    }

    /// This host has become master. Only the real-time thread calls this.
    pub(super) fn begin_term(&self, instance: usize) {
        self.change(instance, next_term);
    }

    /// It is master no longer. Only the real-time thread calls this.
    pub(super) fn end_term(&self, instance: usize) {
        self.change(instance, end_of_term);
    }

    /// Ends the thread that reads this.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the thread is to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The term of a virtual router: a new number for each change.
    pub(super) fn term(&self, instance: usize) -> u32 {
        self.terms[instance].load(Ordering::Acquire)
    }

    /// Makes the descriptor wait for the next change.
    pub(super) fn clear(&self) {
        // There is nothing to read where only time has passed.
        let _ = self.wake.read();
    }

    fn change(&self, instance: usize, change: impl FnOnce(u32) -> u32) {
        if let Some(term) = self.terms.get(instance) {
            term.store(change(term.load(Ordering::Relaxed)), Ordering::Release);
            self.wake();
        }
    }

    fn wake(&self) {
        // It fails where it has been woken 2^64 times and not looked.
        let _ = self.wake.write(1);
    }
}

/// Readable when something has changed.
impl AsFd for Notice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The number of a new term as master, also right after one whose end was not told.
const fn next_term(term: u32) -> u32 {
    term.wrapping_add(if is_master(term) { 2 } else { 1 })
}

/// The number once the term is over.
const fn end_of_term(term: u32) -> u32 {
    if is_master(term) { term.wrapping_add(1) } else { term }
}

/// Whether this host is master in that term.
pub(super) const fn is_master(term: u32) -> bool {
    term % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_the_term_is_seen_and_says_whether_this_host_is_master() {
        let notice = Notice { terms: [0, u32::MAX - 1].map(AtomicU32::new).into(), ..Notice::new(0).unwrap() };
        for instance in 0..2 {
            let mut seen = notice.term(instance);
            let mut change = |change: fn(u32) -> u32, differs: bool, master: bool| {
                notice.change(instance, change);
                let term = notice.term(instance);
                assert_eq!((term != seen, is_master(term)), (differs, master), "{seen} to {term}");
                seen = term;
            };
            change(end_of_term, false, false);
            change(next_term, true, true);
            change(next_term, true, true);
            change(end_of_term, true, false);
            change(end_of_term, false, false);
            change(next_term, true, true);
        }
        assert!(notice.wake.read().is_ok(), "the thread is woken");
        // One that is not there is nobody's.
        notice.change(2, next_term);
    }
}
