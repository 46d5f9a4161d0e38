//! What `ppoll` waits for: filled anew at each turn, in room that is allocated once.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::time::TimeSpec;

/// Where input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Signals of this process.
    Signals,
    /// Interfaces and addresses.
    Watch,
    /// Letters of the control thread.
    Mailbox,
    /// The local lb.
    Lb,
    /// Votes.
    Quorum,
    /// The guard, which never says anything but that it is gone.
    Guard,
    /// Other hosts' claims of the addresses of this slot's virtual router.
    Claims(usize),
    /// The advertisements for the virtual router of this slot.
    Adverts(usize),
}

/// Descriptors and what they stand for.
#[derive(Debug, Default)]
pub(super) struct Polls {
    fds: Vec<libc::pollfd>,
    sources: Vec<Source>,
}

impl Polls {
    pub(super) fn clear(&mut self) {
        self.fds.clear();
        self.sources.clear();
    }

    /// `fd` must stay open until [`Polls::wait`] returns.
    pub(super) fn add(&mut self, source: Source, fd: &impl AsFd) {
        self.fds.push(libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 });
        self.sources.push(source);
    }

    /// Waits for input, or until the time is over; without one for ever.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(TimeSpec::from);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| std::ptr::from_ref(timeout.as_ref()));
        // SAFETY: the pointers are valid for the call: the list for as many entries as are named, the time or null.
        let ready =
            unsafe { libc::ppoll(self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t, timeout, std::ptr::null()) };
        match Errno::result(ready) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.fds.len()
    }

    /// What the entry at `index` stands for, if there is input. Errors and hang-ups count: reading tells what they are.
    pub(super) fn ready(&self, index: usize) -> Option<Source> {
        self.fds.get(index).filter(|fd| fd.revents != 0).and(self.sources.get(index)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_what_has_input_is_ready() {
        let (quiet, _kept) = UnixStream::pair().unwrap();
        let (loud, mut speaker) = UnixStream::pair().unwrap();
        speaker.write_all(b"x").unwrap();
        let mut polls = Polls::default();
        for _ in 0..2 {
            polls.clear();
            polls.add(Source::Lb, &quiet);
            polls.add(Source::Adverts(3), &loud);
            polls.wait(None).unwrap();
            assert_eq!((polls.ready(0), polls.ready(1), polls.ready(2)), (None, Some(Source::Adverts(3)), None));
        }
        polls.clear();
        polls.add(Source::Lb, &quiet);
        polls.wait(Some(Duration::from_millis(1))).unwrap();
        assert_eq!((polls.len(), polls.ready(0)), (1, None));
    }
}
