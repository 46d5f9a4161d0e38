//! What a process leaves for the unit's next one where systemd restarts it: all that an upgrade would have handed over, said in
//! advance.
//!
//! | systemd keeps | |
//! |---|---|
//! | `words` | a file without a name, in the directory of the control sockets, which is in memory: how many queues and descriptors there are (8 bytes each, little endian), then the frames of an upgrade, from `Offer` to `Settled` |
//! | `files-0`, `files-1`, ... | Unix sockets in whose queues the frames' descriptors wait (SCM_RIGHTS, unix(7)), in their order |
//! | `ends-0`, `ends-1`, ... | their other ends: systemd before 246 lets go of a socket that hangs up |
//!
//! The descriptors themselves are no matter for systemd: it compares each one that it is given with all that it has.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use evermq_daemon::kept;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, sendmsg};

use super::channel::{self, AT_ONCE, Left};
use super::message::Message;

const WORDS: &str = "words";
const FILES: &str = "files-";
const ENDS: &str = "ends-";

/// What is being left.
#[derive(Debug)]
pub(crate) struct Bequest {
    words: File,
    queues: Vec<Queue>,
    /// In all queues.
    descriptors: u64,
}

/// Descriptors that wait.
#[derive(Debug)]
struct Queue {
    from: OwnedFd,
    to: OwnedFd,
}

impl Bequest {
    /// Its words are in that directory, and nobody else finds them there. (glibc 2.17 has no memfd_create.)
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".bequest-{}", std::process::id()));
        let mut words = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        words.seek(SeekFrom::Start(Counts::LENGTH))?;
        Ok(Self { words, queues: vec![Queue::new()?], descriptors: 0 })
    }

    /// One more frame. `descriptors` stay the caller's, too.
    pub(crate) fn put(&mut self, message: &Message, raw: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = channel::encode(message, raw, descriptors.len()).map_err(io::Error::other)?;
        for piece in descriptors.chunks(AT_ONCE) {
            self.queue(piece)?;
            self.descriptors += piece.len() as u64;
        }
        self.words.write_all(&frame)
    }

    fn queue(&mut self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(last) = self.queues.last() else { return Err(io::ErrorKind::NotConnected.into()) };
        if last.send(descriptors)? {
            return Ok(());
        }
        let more = Queue::new()?;
        let sent = more.send(descriptors)?;
        self.queues.push(more);
        if sent { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// Gives it to systemd. From then on it is the next process's.
    ///
    /// # Errors
    /// It was not told of all; then it has nothing of it.
    pub(crate) fn leave(mut self) -> io::Result<()> {
        self.words.rewind()?;
        let counts = Counts { queues: self.queues.len() as u64, descriptors: self.descriptors };
        self.words.write_all(&counts.to_bytes())?;
        self.words.rewind()?;
        // Of one that came to nothing.
        kept::take_back(self.names());
        self.tell().inspect_err(|_| kept::take_back(self.names()))
    }

    fn tell(&self) -> io::Result<()> {
        for (number, queue) in self.queues.iter().enumerate() {
            kept::bequeath(&format!("{FILES}{number}"), queue.to.as_fd())?;
            kept::bequeath(&format!("{ENDS}{number}"), queue.from.as_fd())?;
        }
        // Last what makes a bequest of it: without the words nothing is looked at.
        kept::bequeath(WORDS, self.words.as_fd())
    }

    fn names(&self) -> impl Iterator<Item = String> + use<> {
        let queues = 0..self.queues.len();
        queues.flat_map(|number| [FILES, ENDS].map(|name| format!("{name}{number}"))).chain([WORDS.to_owned()])
    }
}

/// What has to be there for a bequest to be whole.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    queues: u64,
    descriptors: u64,
}

impl Counts {
    const LENGTH: u64 = 16;

    fn to_bytes(&self) -> Vec<u8> {
        [self.queues.to_le_bytes(), self.descriptors.to_le_bytes()].concat()
    }

    fn read(words: &mut File) -> io::Result<Self> {
        let mut number = [0; 8];
        words.read_exact(&mut number)?;
        let queues = u64::from_le_bytes(number);
        words.read_exact(&mut number)?;
        Ok(Self { queues, descriptors: u64::from_le_bytes(number) })
    }
}

impl Queue {
    fn new() -> io::Result<Self> {
        let (from, to) = channel::pair()?;
        Ok(Self { from, to })
    }

    /// Whether there was room.
    fn send(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match sendmsg::<()>(
            self.from.as_raw_fd(),
            &[IoSlice::new(b"+")],
            &[ControlMessage::ScmRights(&raw)],
            flags,
            None,
        ) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What the process before has left, if it has left something that is whole.
///
/// # Errors
/// It cannot be read.
pub(crate) fn receive() -> io::Result<Option<Left>> {
    let mut given = kept::bequeathed();
    let Some(words) = given.iter().position(|(name, _)| name == WORDS) else { return Ok(None) };
    let mut words = File::from(given.swap_remove(words).1);
    let said = Counts::read(&mut words)?;
    let number = |name: &str| name.strip_prefix(FILES).and_then(|number| number.parse::<usize>().ok());
    let mut queues: Vec<_> = given.iter().filter_map(|(name, queue)| Some((number(name)?, queue))).collect();
    queues.sort_by_key(|(number, _)| *number);
    let mut descriptors = Vec::new();
    for (_, queue) in &queues {
        take_out(queue, &mut descriptors)?;
    }
    // One too many or too few, and clients would get each other's connections.
    let found = Counts { queues: queues.len() as u64, descriptors: descriptors.len() as u64 };
    if found != said {
        return Err(io::Error::other(format!("{said:?} were left, and {found:?} are there")));
    }
    Ok(Some(Left::behind(words, descriptors)?))
}

/// All that waits.
fn take_out(queue: &OwnedFd, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!([RawFd; 253]);
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        match recvmsg::<()>(queue.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) if message.bytes == 0 => return Ok(()),
            Ok(message) => descriptors.extend(channel::rights(&message)?),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
