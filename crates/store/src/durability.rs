//! Who waits until its records are on the disk.
//!
//! A task is found again by its waker, so however often it looks it is there once, and a wait costs no allocation. In shards,
//! so that thousands of tasks do not meet at one lock; the writer walks all of them once for each commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

use crate::position::Position;

const SHARDS: usize = 64;

/// Tasks that wait, one entry at most for each.
#[derive(Debug)]
pub(crate) struct Waiters {
    shards: [Mutex<Vec<Waiter>>; SHARDS],
    count: AtomicUsize,
}

#[derive(Debug)]
struct Waiter {
    at: Position,
    waker: Waker,
}

impl Waiters {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), count: AtomicUsize::new(0) }
    }

    /// The task of `cx` wants to be woken when `at` is reached. It has to look once more afterwards: what came to be between
    /// its first look and this does not wake it.
    pub(crate) fn wait(&self, at: Position, cx: &Context<'_>) {
        let waker = cx.waker();
        let mut shard = self.shards[shard_of(waker)].lock();
        if let Some(waiter) = shard.iter_mut().find(|waiter| waiter.waker.will_wake(waker)) {
            // The earlier one, so that nothing is missed; who is woken too early looks again.
            waiter.at = waiter.at.min(at);
            return;
        }
        shard.push(Waiter { at, waker: waker.clone() });
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes all who wait for `reached` or less. `woken` is a buffer.
    pub(crate) fn wake(&self, reached: Position, woken: &mut Vec<Waker>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut index = 0;
            while let Some(waiter) = shard.get(index) {
                if waiter.at <= reached {
                    woken.push(shard.swap_remove(index).waker);
                } else {
                    index += 1;
                }
            }
        }
        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
        for waker in woken.drain(..) {
            waker.wake();
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

fn shard_of(waker: &Waker) -> usize {
    // Tasks are allocated, so the lowest bits of their addresses are equal.
    let address = waker.data().addr();
    (address >> 7 ^ address >> 13) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Wake;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_task_is_woken_once_when_its_position_is_reached() {
        let waiters = Waiters::new();
        let tasks: Vec<Arc<Task>> = (0..1000).map(|_| Arc::default()).collect();
        for (index, task) in tasks.iter().enumerate() {
            let waker = Waker::from(Arc::clone(task));
            for again in 0..3 {
                waiters.wait(Position(index as u64 + 1 + again), &Context::from_waker(&waker));
            }
        }
        assert_eq!(waiters.len(), 1000);
        let mut buffer = Vec::new();
        waiters.wake(Position(400), &mut buffer);
        assert_eq!(waiters.len(), 600);
        waiters.wake(Position(400), &mut buffer);
        let woken = |task: &Arc<Task>| task.0.load(Ordering::SeqCst);
        assert!(tasks[..400].iter().all(|task| woken(task) == 1));
        assert!(tasks[400..].iter().all(|task| woken(task) == 0));
        waiters.wake(Position(u64::MAX), &mut buffer);
        assert!(tasks.iter().all(|task| woken(task) == 1));
        assert_eq!(waiters.len(), 0);
    }
}
