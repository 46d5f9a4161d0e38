//! A worker's connections by backend, so that all of one backend can be woken at once.

use std::task::Waker;

use slab::Slab;

/// Where a connection stands in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    backend: u32,
    key: u32,
}

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Registry {
    backends: Box<[Slab<Waker>]>,
}

impl Registry {
    pub(crate) fn new(backends: usize) -> Self {
        Self { backends: (0..backends).map(|_| Slab::new()).collect() }
    }

    /// Enters a connection of `backend`.
    pub(crate) fn insert(&mut self, backend: usize, waker: Waker) -> Seat {
        let key = self.backends[backend].insert(waker);
        Seat {
            backend: u32::try_from(backend).expect("a file with fewer than 2^32 hosts"),
            key: u32::try_from(key).expect("fewer than 2^32 descriptors"),
        }
    }

    /// Removes a connection.
    pub(crate) fn remove(&mut self, seat: Seat) {
        self.backends[seat.backend as usize].remove(seat.key as usize);
    }

    /// Wakes every connection of every backend for which `stale` says so.
    pub(crate) fn wake(&self, mut stale: impl FnMut(usize) -> bool) {
        for (backend, wakers) in self.backends.iter().enumerate() {
            if stale(backend) {
                for (_, waker) in wakers {
                    waker.wake_by_ref();
                }
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.backends.iter().map(Slab::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_those_of_one_backend_that_are_still_there() {
        let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
        let mut registry = Registry::new(2);
        let gone = registry.insert(1, Waker::from(Arc::clone(&counts[0])));
        registry.insert(1, Waker::from(Arc::clone(&counts[1])));
        registry.insert(0, Waker::from(Arc::clone(&counts[2])));
        registry.remove(gone);
        assert_eq!(registry.len(), 2);
        registry.wake(|backend| backend == 1);
        let woken: Vec<_> = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [0, 1, 0]);
    }
}
