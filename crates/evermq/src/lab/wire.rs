//! How the command, the keeper and the hosts talk: one JSON line as the request, one as the answer, descriptors beside it.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::LabError;

/// Longest line either way.
const MAX_LINE: u64 = 64 * 1024;
/// A request must be complete after this, so that a silent client does not hold up a host.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Descriptors that one answer can carry.
const MAX_DESCRIPTORS: usize = 8;

/// What the keeper is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeeperRequest {
    /// Which hosts live, which cables are in: a list of [`HostState`].
    Hosts,
    /// Takes a cable out or puts it in.
    Cable {
        /// Whose.
        host: String,
        /// In.
        connected: bool,
    },
    /// Cuts hosts off from each other, and from nobody else.
    Cut {
        /// Which; two or more.
        hosts: Vec<String>,
    },
    /// Takes the cable out and kills every process of the host.
    Kill {
        /// Which.
        host: String,
    },
    /// Starts a host that is dead, with its programs, puts the cable in, and ends its part in a cut.
    Heal {
        /// Which.
        host: String,
    },
}

/// A host, as the keeper sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HostState {
    /// Its name.
    pub(super) name: String,
    /// It lives.
    pub(super) alive: bool,
    /// Its cable is in.
    pub(super) connected: bool,
    /// It does not reach the other hosts that are cut.
    pub(super) cut: bool,
}

/// What a host is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostRequest {
    /// Descriptors of its namespaces and of its root directory.
    Enter,
    /// A list of [`ProgramState`].
    Programs,
    /// Starts a program, or each of the host's programs that does not run.
    Start {
        /// Its name.
        program: Option<String>,
    },
    /// Asks a program to end (SIGTERM), and does not start it again.
    Stop {
        /// Its name.
        program: String,
    },
    /// Sends a program a signal.
    Signal {
        /// Its name.
        program: String,
        /// The signal's number.
        signal: i32,
    },
}

/// A program of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ProgramState {
    /// Its name.
    pub(super) name: String,
    /// Its process id in the host, while it runs.
    pub(super) pid: Option<i32>,
    /// How it ended last, in words.
    pub(super) ended: Option<String>,
    /// How often it was started.
    pub(super) starts: u32,
}

/// What a new keeper or host says to the process that started it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Started {
    /// It serves.
    Ready,
    /// It does not, and ends.
    Failed(String),
}

/// Asks whoever listens on `socket`.
pub(super) fn ask<A: DeserializeOwned>(
    socket: &Path,
    request: &impl Serialize,
    timeout: Duration,
) -> Result<A, LabError> {
    ask_for_descriptors(socket, request, timeout).map(|(answer, _)| answer)
}

/// Asks whoever listens on `socket`; gives the descriptors that came with the answer, too.
pub(super) fn ask_for_descriptors<A: DeserializeOwned>(
    socket: &Path,
    request: &impl Serialize,
    timeout: Duration,
) -> Result<(A, Vec<OwnedFd>), LabError> {
    let exchange = || {
        let mut stream = connect(socket)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        write_line(&mut stream, request)?;
        let (first, descriptors) = receive(&stream)?;
        let mut line = first;
        if !line.ends_with(b"\n") {
            BufReader::new((&stream).take(MAX_LINE)).read_until(b'\n', &mut line)?;
        }
        let answer: Result<Value, String> = serde_json::from_slice(&line)?;
        Ok((answer, descriptors))
    };
    let (answer, descriptors) = exchange().map_err(LabError::io(format!("no answer from {}", socket.display())))?;
    let answer = answer.map_err(LabError::Refused)?;
    let answer = serde_json::from_value(answer).map_err(|error| {
        LabError::Refused(format!("{} belongs to another version of evermq: {error}", socket.display()))
    })?;
    Ok((answer, descriptors))
}

/// Reads one request.
pub(super) fn read_request<R: DeserializeOwned>(stream: &UnixStream) -> io::Result<R> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Answers a request.
pub(super) fn answer(
    stream: &UnixStream,
    answer: &Result<Value, String>,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let parts = [IoSlice::new(&line)];
    let sent = uninterrupted(|| sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, rights, MsgFlags::empty(), None))?;
    let mut stream = stream;
    stream.write_all(line.get(sent..).unwrap_or_default())
}

/// Writes one line of JSON.
pub(super) fn write_line(stream: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Listens on `name` in `directory`, however long its path is (sun_path holds 108 bytes).
pub(super) fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let directory = open_directory(directory)?;
    UnixListener::bind(through(&directory, name))
}

/// Opens a directory as a place to resolve paths from.
pub(super) fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(directory, flags, Mode::empty())?)
}

/// The path of `name` in an open directory.
pub(super) fn through(directory: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    match (socket.parent(), socket.file_name().and_then(|name| name.to_str())) {
        (Some(directory), Some(name)) => UnixStream::connect(through(&open_directory(directory)?, name)),
        _ => UnixStream::connect(socket),
    }
}

/// Calls again what the process did not finish because it stood still meanwhile, stopped or frozen: signal(7) has EINTR for
/// a socket with a timeout then.
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (bytes, descriptors) = uninterrupted(|| receive_once(stream))?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((bytes, descriptors))
}

fn receive_once(stream: &UnixStream) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut descriptors = Vec::new();
    let received = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for this process; nobody else owns them.
                descriptors.extend(received.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        message.bytes
    };
    Ok((bytes.get(..received).unwrap_or_default().to_vec(), descriptors))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn descriptors_come_with_the_answer_over_a_long_path() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("d".repeat(120));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("file"), "words").unwrap();
        let listener = listen(&directory, "test.sock").unwrap();
        let place = directory.clone();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            assert!(matches!(read_request(&stream).unwrap(), HostRequest::Enter));
            let file = open_directory(&place).unwrap();
            answer(&stream, &Ok(Value::from("x".repeat(10_000))), &[file.as_fd()]).unwrap();
        });
        let socket = directory.join("test.sock");
        let (text, descriptors) =
            ask_for_descriptors::<String>(&socket, &HostRequest::Enter, Duration::from_secs(5)).unwrap();
        server.join().unwrap();
        assert_eq!(text.len(), 10_000);
        assert_eq!(std::fs::read_to_string(through(&descriptors[0], "file")).unwrap(), "words");
    }

    #[test]
    fn a_refusal_is_the_error_text() {
        let directory = tempfile::tempdir().unwrap();
        let listener = listen(directory.path(), "test.sock").unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let _: HostRequest = read_request(&stream).unwrap();
            answer(&stream, &Err("no such program".to_owned()), &[]).unwrap();
        });
        let socket = directory.path().join("test.sock");
        let error = ask::<Value>(&socket, &HostRequest::Programs, Duration::from_secs(5)).unwrap_err();
        server.join().unwrap();
        assert_eq!(error.to_string(), "no such program");
    }
}
