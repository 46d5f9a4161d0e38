//! An allocator that counts what the present thread asks for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { calls: 0, bytes: 0, live: 0, peak: 0 }) };
}

/// What was allocated since the last [`reset`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that took or enlarged memory.
    pub calls: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    live: i64,
    /// Most bytes held at once.
    pub peak: i64,
}

/// The system's allocator, counted.
pub struct Counting;

/// Off while time is measured: counting costs some of it.
static IS_ON: AtomicBool = AtomicBool::new(true);

/// Switches counting on or off.
pub fn switch(on: bool) {
    IS_ON.store(on, Ordering::Relaxed);
}

/// Starts anew.
pub fn reset() {
    COUNTS.set(Counts::default());
}

/// What has been allocated on this thread since [`reset`].
#[must_use]
pub fn counts() -> Counts {
    COUNTS.get()
}

fn count(taken: usize, given: usize) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    // A thread that ends may free after its counters are gone.
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        if taken > 0 {
            counts.calls += 1;
            counts.bytes += taken as u64;
        }
        counts.live += taken as i64 - given as i64;
        counts.peak = counts.peak.max(counts.live);
        cell.set(counts);
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's duties are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's duties are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's duties are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's duties are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
