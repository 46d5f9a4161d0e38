//! Between fork and exec: the child gives up what only evermq-vip should have. System calls only; nothing is allocated, as a
//! child of a process with several threads must not.

use std::io;

use nix::errno::Errno;
use nix::libc;

use super::Leftovers;
use crate::account::Account;

/// In the parent: whether the kernel spares this process when memory runs out (systemd: OOMScoreAdjust=).
pub(super) fn protected_from_oom() -> bool {
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    score.trim().parse::<i32>().is_ok_and(|score| score < 0)
}

/// In the child.
pub(super) fn shed(account: &Account, protected: bool, leftovers: Leftovers) -> io::Result<()> {
    const ZERO: libc::c_ulong = 0;
    if protected {
        spend_protection();
    }
    // SAFETY: the pointers are valid for the calls; everything else is numbers, and concerns the calling process only.
    unsafe {
        let policy = libc::sched_getscheduler(0);
        if policy == libc::SCHED_RR || policy == libc::SCHED_FIFO {
            let ordinary = libc::sched_param { sched_priority: 0 };
            Errno::result(libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary))?;
        }
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        Errno::result(libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const none))?;
        let cleared =
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, ZERO, ZERO, ZERO);
        match Errno::result(cleared) {
            // A kernel that knows no ambient capabilities has none to clear.
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
        for signal in 1..=libc::SIGRTMAX() {
            // SIGKILL, SIGSTOP and the C library's own are refused, and are as they should be.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut nothing = std::mem::zeroed();
        libc::sigemptyset(&raw mut nothing);
        Errno::result(libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut()))?;
    }
    account.assume()?;
    if leftovers == Leftovers::Kill {
        // SAFETY: numbers only. After the change of user, which would undo it.
        let tied = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, ZERO, ZERO, ZERO) };
        Errno::result(tied)?;
    }
    Ok(())
}

/// A program that eats the memory must not be the last one that the kernel kills. Asking for more protection would need a
/// privilege, asking for less needs none.
fn spend_protection() {
    // SAFETY: constant strings with their end and their length; the descriptor is this function's own.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}
