//! Real-time scheduling and locked memory for the thread that advertises, so that a busy or swapping machine does not cost
//! it the VIP.

use std::io;

use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;

/// Above ordinary programs, below the kernel's own threads (which run at 50 and more).
const PRIORITY: i32 = 40;

/// What the kernel did not permit.
#[derive(Debug, thiserror::Error)]
pub enum RealtimeError {
    /// SCHED_RR.
    #[error(
        "no real-time scheduling ({0}): grant CAP_SYS_NICE or LimitRTPRIO=40 (containers: --cap-add SYS_NICE, and a \
         real-time budget), or set `realtime = false` in [vip]"
    )]
    Scheduling(io::Error),
    /// mlockall.
    #[error(
        "memory is not locked ({0}): grant CAP_IPC_LOCK or LimitMEMLOCK=infinity, or set `realtime = false` in [vip]"
    )]
    Memory(io::Error),
}

/// Wakes the calling thread at the deadline, not up to 50 us after it. Needs no privilege.
pub fn wake_exactly() {
    // An old kernel without it is late by those 50 us, no more.
    let _ = prctl::set_timerslack(1);
}

/// Puts the calling thread under SCHED_RR, and locks this process's memory as it is touched.
///
/// Threads that the calling thread starts later are ordinary ones.
///
/// # Errors
/// Each step that was not permitted; the others have been done.
pub fn enter() -> Vec<RealtimeError> {
    enter_at(PRIORITY)
}

/// The same one step above the daemon, for its guard: on a machine that was stopped as a whole it wakes first.
///
/// # Errors
/// As for [`enter`].
pub fn enter_above() -> Vec<RealtimeError> {
    enter_at(PRIORITY + 1)
}

fn enter_at(priority: i32) -> Vec<RealtimeError> {
    let mut refused = Vec::new();
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is valid for the call; 0 names the calling thread.
    let scheduled =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if scheduled != 0 {
        refused.push(RealtimeError::Scheduling(io::Error::last_os_error()));
    }
    // On fault: locking whole thread stacks would multiply the memory that is used for nothing.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault) {
        refused.push(RealtimeError::Memory(error.into()));
    }
    refused
}
