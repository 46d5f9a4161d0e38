//! When the daemon last took a turn, and until when the quorum lets it hold the VIP: two numbers in a page that both
//! processes have mapped.
//!
//! A turn costs the daemon one store, and wakes nobody; the guard looks when the bound could be over.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::time::{ClockId, clock_gettime};

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// The shared page, mapped by this process.
#[derive(Debug)]
pub struct Beat {
    page: NonNull<Page>,
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
#[derive(Debug)]
#[repr(C)]
struct Page {
    turn: AtomicU64,
    /// [`FOREVER`] where there is no lease.
    lease_end: AtomicU64,
}

const FOREVER: u64 = u64::MAX;

// SAFETY: the page is reached only through an atomic, and belongs to this value until it is dropped.
unsafe impl Send for Beat {}

/// A file in memory. By the system call itself: glibc has a function for it from 2.27 on only, and packages are built for older ones.
fn memory() -> io::Result<OwnedFd> {
    // SAFETY: the name is a string of C's, and the call reads nothing else.
    let made = unsafe { libc::syscall(libc::SYS_memfd_create, c"evermq-vip beat".as_ptr(), libc::MFD_CLOEXEC) };
    let file = Errno::result(made)?;
    let file = i32::try_from(file).map_err(io::Error::other)?;
    // SAFETY: the kernel has made this descriptor just now, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

impl Beat {
    /// A page for a daemon and its guard.
    ///
    /// # Errors
    /// The kernel has no memory to give.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let file = memory()?;
        nix::unistd::ftruncate(&file, PAGE.get() as i64)?;
        let beat = Self::map(&file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        beat.turn(clock_now(), None)?;
        Ok((beat, file))
    }

    /// The page of another process, to be read.
    ///
    /// # Errors
    /// The descriptor is none of such a page.
    pub fn open(file: impl AsFd) -> io::Result<Self> {
        Self::map(file, ProtFlags::PROT_READ)
    }

    fn map(file: impl AsFd, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
        let page = unsafe { mmap(None, PAGE, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { page: page.cast() })
    }

    /// Writes that the daemon takes a turn, and when its lease ends. Only for the one that [`Beat::create`] made.
    ///
    /// # Errors
    /// The machine has no clock.
    pub fn turn(&self, now: Instant, lease_end: Option<Instant>) -> io::Result<()> {
        let turn = monotonic()?;
        let end = lease_end.map_or(FOREVER, |end| nanos(turn + end.saturating_duration_since(now)));
        let page = self.page();
        // Whoever reads this turn reads at worst the lease of the turn before, which ends sooner.
        page.turn.store(nanos(turn), Ordering::Relaxed);
        page.lease_end.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// The last turn, and the end of the lease, as instants of this process.
    ///
    /// # Errors
    /// The machine has no clock.
    pub fn last(&self, now: Instant) -> io::Result<(Instant, Option<Instant>)> {
        let (page, clock) = (self.page(), monotonic()?);
        let instant = |nanos: u64| {
            let then = Duration::from_nanos(nanos);
            now.checked_sub(clock.saturating_sub(then)).unwrap_or(now) + then.saturating_sub(clock)
        };
        let end = page.lease_end.load(Ordering::Relaxed);
        Ok((instant(page.turn.load(Ordering::Relaxed)), (end != FOREVER).then(|| instant(end))))
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping lives as long as this value, is page-aligned, larger than what is read, and zeros are valid.
        unsafe { self.page.as_ref() }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1)
}

impl Drop for Beat {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers to it any more.
        let _ = unsafe { munmap(self.page.cast(), PAGE.get()) };
    }
}

#[expect(clippy::disallowed_methods, reason = "the page holds real time")]
fn clock_now() -> Instant {
    Instant::now()
}

fn monotonic() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "the page holds real time")]

    use super::*;

    #[test]
    fn the_other_side_reads_the_last_turn() {
        // Two readings of the clock lie between the store and what is read, with as much in between as the scheduler likes.
        let before = Instant::now();
        let (writer, file) = Beat::create().unwrap();
        let reader = Beat::open(&file).unwrap();
        let (first, lease) = reader.last(Instant::now()).unwrap();
        assert_eq!(lease, None);
        let slack = before.elapsed() + Duration::from_millis(1);
        assert!(first + slack >= before && first <= Instant::now() + slack);
        while Instant::now() < before + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        let (now, end) = (Instant::now(), Duration::from_millis(190));
        writer.turn(now, Some(now + end)).unwrap();
        let (second, lease) = reader.last(Instant::now()).unwrap();
        let slack = now.elapsed() + Duration::from_millis(1);
        assert!(second + slack >= before + Duration::from_millis(20), "{:?}", second - before);
        let left = lease.unwrap().saturating_duration_since(second);
        assert!(left + slack > end && left < end + slack, "{left:?}");
    }
}
