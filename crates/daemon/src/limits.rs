//! Open files: each connection is one, so the limit is raised as far as the system allows.

use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises this process's limit of open files to its hard limit, and warns where `needed` would not fit.
pub fn raise_open_files(needed: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let now = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    if now < needed {
        tracing::warn!(
            open_files = now,
            needed,
            "the limit of open files is too low for max_connections; set LimitNOFILE= in the unit, or lower max_connections"
        );
    }
}

/// The same open file under a descriptor of at least `lowest`. A process that is killed closes its descriptors by their
/// order, so what must be closed apart from all else is given one that is apart.
///
/// # Errors
/// There is none left that high.
pub fn raise_descriptor(file: impl AsFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let descriptor = fcntl(file.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the kernel has made this descriptor just now, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_raised_descriptor_is_high_and_the_same_file() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let raised = raise_descriptor(&one, 200).unwrap();
        assert!(raised.as_raw_fd() >= 200);
        drop(one);
        let mut raised = std::os::unix::net::UnixStream::from(raised);
        std::io::Write::write_all(&mut raised, b"x").unwrap();
        std::io::Read::read_exact(&mut &other, &mut [0]).unwrap();
    }
}
