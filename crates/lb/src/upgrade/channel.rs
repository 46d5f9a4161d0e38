//! Frames over a pair of Unix sockets, with descriptors beside them.
//!
//! [`Channel::receive`] is cancel-safe; [`Channel::send`] is not.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frame::{FrameError, HEADER, Header, MAX_DESCRIPTORS};
use super::message::Message;

/// Descriptors beside one piece of a frame: the kernel takes 253 (SCM_MAX_FD).
pub(super) const AT_ONCE: usize = 240;
/// Read at once.
const BUFFER: usize = 64 * 1024;

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
    /// Frames that were said in advance.
    said: Option<File>,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// A [`Channel`] between two runtimes.
#[derive(Debug)]
pub struct Left {
    socket: OwnedFd,
    said: Option<File>,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Left {
    /// From a process that has ended: the frames that it left, with the descriptors of all of them.
    pub(super) fn behind(words: File, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let (socket, _) = pair()?;
        Ok(Self { socket, said: Some(words), received: Vec::new(), descriptors: descriptors.into() })
    }

    /// Goes on, on the runtime that this is called on.
    ///
    /// # Errors
    /// See [`Channel::new`].
    pub fn enter(self) -> io::Result<Channel> {
        let Self { socket, said, received, descriptors } = self;
        Ok(Channel { said, received, descriptors, ..Channel::new(socket)? })
    }
}

/// One frame that came.
#[derive(Debug)]
pub struct Frame {
    /// What it says.
    pub message: Message,
    /// Raw bytes.
    pub raw: Vec<u8>,
    /// Descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// Why the other process is not understood, or not there.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It is gone.
    #[error("the other process has ended")]
    Ended,
    /// The socket.
    #[error("cannot speak with the other process: {0}")]
    Io(#[from] io::Error),
    /// Its frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its words.
    #[error("the other process says what is not understood here: {0}")]
    Json(#[from] serde_json::Error),
    /// The system kept descriptors back.
    #[error("descriptors were lost on the way: the limit of open files is too low")]
    Truncated,
    /// It speaks of descriptors that have not come.
    #[error("descriptors are missing")]
    Missing,
}

impl From<Errno> for ChannelError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::EPIPE | Errno::ECONNRESET => Self::Ended,
            _ => Self::Io(error.into()),
        }
    }
}

/// Both ends, closed on exec.
///
/// # Errors
/// The system lacks something.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}

/// The bytes of a frame that has so many descriptors.
pub(super) fn encode(message: &Message, raw: &[u8], descriptors: usize) -> Result<Vec<u8>, ChannelError> {
    let json = serde_json::to_vec(message)?;
    let header = Header { descriptors, json: json.len(), raw: raw.len() }.encode()?;
    Ok([&header, json.as_slice(), raw].concat())
}

/// The descriptors beside what has come.
pub(super) fn rights<S>(message: &RecvMsg<'_, '_, S>) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made them for this process, and nobody else has seen them.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Ok(descriptors)
}

impl Channel {
    /// Must be called on a runtime.
    ///
    /// # Errors
    /// `socket` is none that can be waited for.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        socket2::SockRef::from(&socket).set_nonblocking(true)?;
        // SAFETY: an owned descriptor is open until it is dropped, and stays the same one.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::WRITABLE) }?;
        Ok(Self { socket, said: None, received: Vec::new(), descriptors: VecDeque::new() })
    }

    /// Leaves the runtime.
    #[must_use]
    pub fn leave(self) -> Left {
        let Self { socket, said, received, descriptors } = self;
        Left { socket: socket.into_inner(), said, received, descriptors }
    }

    /// Sends one frame. `descriptors` stay the caller's, too.
    ///
    /// # Errors
    /// The other process has ended, or the frame is too large; then nothing was sent.
    pub async fn send(
        &mut self,
        message: &Message,
        raw: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = encode(message, raw, descriptors.len())?;
        let mut rest = bytes.as_slice();
        // All but the last of these go with one byte each; header and JSON have as many as there can be.
        const { assert!(MAX_DESCRIPTORS.div_ceil(AT_ONCE) < HEADER + 2) };
        let mut pieces = descriptors.chunks(AT_ONCE).peekable();
        while let Some(piece) = pieces.next() {
            let raw_descriptors: Vec<RawFd> = piece.iter().map(AsRawFd::as_raw_fd).collect();
            let length = if pieces.peek().is_some() { 1 } else { rest.len() };
            let written = self.write(&rest[..length], &raw_descriptors).await?;
            rest = &rest[written..];
        }
        while !rest.is_empty() {
            let written = self.write(rest, &[]).await?;
            rest = &rest[written..];
        }
        Ok(())
    }

    async fn write(&self, bytes: &[u8], descriptors: &[RawFd]) -> Result<usize, ChannelError> {
        let written = self.socket.async_io(Interest::WRITABLE, |socket| {
            let rights = [ControlMessage::ScmRights(descriptors)];
            let rights = if descriptors.is_empty() { &[][..] } else { &rights[..] };
            Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?)
        });
        written.await.map_err(told)
    }

    /// The next frame.
    ///
    /// # Errors
    /// The other process has ended, or is not understood.
    pub async fn receive(&mut self) -> Result<Frame, ChannelError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, ChannelError> {
        let Some(header) = Header::decode(&self.received)? else { return Ok(None) };
        if self.received.len() < header.length() {
            return Ok(None);
        }
        // They come with the frame's own bytes, or before.
        if self.descriptors.len() < header.descriptors {
            return Err(ChannelError::Missing);
        }
        let mut bytes = self.received.drain(..header.length()).collect::<Vec<_>>();
        let descriptors = self.descriptors.drain(..header.descriptors).collect();
        let raw = bytes.split_off(HEADER + header.json);
        let message = serde_json::from_slice(&bytes[HEADER..])?;
        Ok(Some(Frame { message, raw, descriptors }))
    }

    async fn read(&mut self) -> Result<(), ChannelError> {
        let mut buffer = vec![0; BUFFER];
        if let Some(said) = &mut self.said {
            let length = said.read(&mut buffer)?;
            self.received.extend_from_slice(&buffer[..length]);
            if length == 0 {
                self.said = None;
            }
            return Ok(());
        }
        let mut space = nix::cmsg_space!([RawFd; 253]);
        let read = self.socket.async_io(Interest::READABLE, |socket| {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
            let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
            // Those that came are closed with it, where some did not.
            Ok((message.bytes, truncated, rights(&message).unwrap_or_default()))
        });
        let (length, truncated, descriptors) = read.await.map_err(told)?;
        self.descriptors.extend(descriptors);
        if truncated {
            return Err(ChannelError::Truncated);
        }
        if length == 0 {
            return Err(ChannelError::Ended);
        }
        if self.descriptors.len() > MAX_DESCRIPTORS + AT_ONCE {
            return Err(ChannelError::Missing);
        }
        self.received.extend_from_slice(&buffer[..length]);
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn told(error: io::Error) -> ChannelError {
    match error.raw_os_error() {
        Some(raw) => Errno::from_raw(raw).into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::upgrade::message::{Begin, ControlClient, Hello};

    fn channels() -> (Channel, Channel) {
        let (a, b) = pair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    #[tokio::test]
    async fn frames_arrive_with_their_descriptors_in_order() {
        let (mut a, mut b) = channels();
        // More than the socket holds at once, and more descriptors than fit beside one piece.
        let raw: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let pairs: Vec<_> = (0..AT_ONCE * 2 + 7).map(|_| UnixStream::pair().unwrap()).collect();
        let sent: Vec<_> = pairs.iter().map(|(_, theirs)| theirs.as_fd()).collect();
        let begin = Message::Begin(Begin { control: vec![ControlClient::default(); 3], words: Vec::new() });
        let send = async {
            a.send(&Message::Ready, &[], &[]).await.unwrap();
            a.send(&begin, &raw, &sent).await.unwrap();
            a.send(&Message::Began, b"x", &sent[..1]).await.unwrap();
        };
        let receive = async { [b.receive().await.unwrap(), b.receive().await.unwrap(), b.receive().await.unwrap()] };
        let ((), [first, second, third]) = tokio::join!(send, receive);
        assert_eq!((first.message, first.descriptors.len()), (Message::Ready, 0));
        assert_eq!((&second.message, second.raw == raw), (&begin, true));
        assert_eq!((third.message, third.raw), (Message::Began, b"x".to_vec()));
        assert_eq!((second.descriptors.len(), third.descriptors.len()), (sent.len(), 1));
        for (index, ((mut ours, theirs), moved)) in pairs.into_iter().zip(second.descriptors).enumerate() {
            drop(theirs);
            let word = index.to_be_bytes();
            UnixStream::from(moved).write_all(&word).unwrap();
            let mut read = [0; 8];
            ours.read_exact(&mut read).unwrap();
            assert_eq!(read, word);
        }
    }

    #[tokio::test]
    async fn the_other_process_s_end_is_seen_after_what_it_said() {
        let (mut a, mut b) = channels();
        a.send(&Message::Hello(Hello::ours()), &[], &[]).await.unwrap();
        drop(a);
        assert_eq!(b.receive().await.unwrap().message, Message::Hello(Hello::ours()));
        assert!(matches!(b.receive().await, Err(ChannelError::Ended)));
        assert!(matches!(b.send(&Message::Ready, &[], &[]).await, Err(ChannelError::Ended)));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused_and_half_a_frame_is_none() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut b = Channel::new(b.into()).unwrap();
        (&a).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(b.receive().await, Err(ChannelError::Frame(FrameError::Magic))));

        let (a, b) = UnixStream::pair().unwrap();
        let mut b = Channel::new(b.into()).unwrap();
        let header = Header { descriptors: 2, json: 20, raw: 0 }.encode().unwrap();
        (&a).write_all(&header).unwrap();
        (&a).write_all(b"{\"message\":").unwrap();
        drop(a);
        assert!(matches!(b.receive().await, Err(ChannelError::Ended)));

        let (a, b) = UnixStream::pair().unwrap();
        let mut b = Channel::new(b.into()).unwrap();
        let header = Header { descriptors: 1, json: 2, raw: 0 }.encode().unwrap();
        (&a).write_all(&header).unwrap();
        (&a).write_all(b"{}").unwrap();
        assert!(matches!(b.receive().await, Err(ChannelError::Missing)));
    }
}
