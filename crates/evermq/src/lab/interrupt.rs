//! Ctrl-C and SIGTERM while a lab is being made or a demo runs: nothing may stay behind.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::LabError;

/// From its making on, SIGINT, SIGTERM and SIGHUP do not end this process but can be asked for here.
pub(super) struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    /// Blocks the signals in this thread and in those that it makes later.
    pub(super) fn new() -> Result<Self, LabError> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
            .map(|signals| Self { signals })
            .map_err(LabError::errno("cannot watch signals"))
    }

    /// Whether one of them has come. It stays so.
    pub(super) fn happened(&self) -> bool {
        let mut waited = [nix::poll::PollFd::new(self.signals.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut waited, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
