//! The control socket: JSON lines over a Unix socket.
//!
//! | request, one line | answer |
//! |---|---|
//! | `{"request":"state"}` | one line, `{"ok": STATE}` |
//! | `{"request":"health"}` | a line `{"health":"up"}` (or `degraded`, `down`) at once, on each change, and every [`HEALTH_BEAT`]; end-of-file says that the program is dead |
//! | `{"request":"events","after":N}` | one line, `{"ok": PAGE}`: see [`crate::events::Page`] |
//! | `{"request":"about"}` | one line, `{"ok": ABOUT}`: see [`crate::process::About`] |
//! | any other that the program knows | as [`Answer`] says |
//! | anything else | one line, `{"error": TEXT}` |
//!
//! Tasks: [`serve`] owns one task for each connection, in a set that ends with it. At most [`MAX_CLIENTS`] connections and
//! [`MAX_REQUEST`] bytes a request. The socket can pass to another process of the program with everybody who is connected:
//! see [`Lender`].

mod server;

use std::future::Future;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::server::{Client, Estate, Lender, Lending, Placement, lending, serve_estate};
#[cfg(doc)]
use crate::health::HEALTH_BEAT;
use crate::health::Health;

/// Connections served at once: a handful of operators and the vip.
pub const MAX_CLIENTS: usize = 64;
/// Longest request: with a topic name or client identifier of any length that MQTT has.
pub const MAX_REQUEST: u64 = 512 * 1024;

/// Longest answer that is read: root asks programs that are not root's.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Why a control socket does not work.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process answers there.
    #[error("{path} answers: this program runs already with the same run_dir; stop that one first", path = .0.display())]
    InUse(PathBuf),
    /// The socket could not be made.
    #[error("cannot make the control socket {path}: {source}; the directory must exist and be writable for this user", path = path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no answer from {path}: {source}", path = path.display())]
    Unreachable {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program would not do it.
    #[error("{path}: {text}", path = path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Its words.
        text: String,
    },
    /// An answer that is not of the protocol.
    #[error("{path} answered something else than a control socket does: {text}", path = path.display())]
    Answer {
        /// Where.
        path: PathBuf,
        /// What came.
        text: String,
    },
}

/// What a program shows on its control socket.
#[derive(Clone)]
pub struct Control {
    /// Makes the answer to `state`.
    pub state: Arc<dyn Fn() -> Value + Send + Sync>,
    /// The program's health.
    pub health: watch::Receiver<Health>,
    /// The requests that only this program knows.
    pub requests: Requests,
}

/// Answers a request by its name and the whole of it; none where it is unknown.
pub type Requests = Arc<dyn Fn(&str, &Value) -> Option<Answer> + Send + Sync>;

/// The answer to a program's own request.
pub enum Answer {
    /// One line, `{"ok": VALUE}`.
    Ok(Value),
    /// These lines, as they are.
    Lines(Vec<Value>),
    /// One line, `{"error": TEXT}`.
    Error(String),
    /// These lines as they come, until there are no more or nobody reads them any more; then the receiver is dropped.
    Stream(mpsc::Receiver<Value>),
    /// Another answer, once there is one. It is given up when the program ends.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// No requests beyond `state` and `health`.
#[must_use]
pub fn no_requests() -> Requests {
    Arc::new(|_, _| None)
}

/// Where it is told what a request has brought about, or why it has not.
pub type Reply = oneshot::Sender<Result<Value, String>>;

/// Answers a request that another part of `program` carries out, which gets it through `ask` as `request` makes it.
pub fn pass_on<T>(program: &'static str, ask: &mpsc::Sender<T>, request: impl FnOnce(Reply) -> T) -> Answer {
    let (reply, outcome) = oneshot::channel();
    if ask.try_send(request(reply)).is_err() {
        return Answer::Error("too many such requests wait already".to_owned());
    }
    Answer::Later(Box::pin(async move {
        match outcome.await {
            Ok(Ok(done)) => Answer::Ok(done),
            Ok(Err(text)) => Answer::Error(text),
            Err(_) => Answer::Error(format!("{program} stops")),
        }
    }))
}

/// Makes the socket, with its directory if need be. A socket that a dead process left is replaced.
///
/// # Errors
/// Another process answers there, or the socket cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    match connect(path) {
        Ok(_) => return Err(ControlError::InUse(path.to_owned())),
        // A full queue: whoever listens is stuck, but there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ControlError::InUse(path.to_owned())),
        Err(_) => {}
    }
    let make = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    make().map_err(|source| ControlError::Bind { path: path.to_owned(), source })
}

/// The process that listens there; none where nobody does, or is too stuck to take a connection. Never waits.
#[must_use]
pub fn listener(path: &Path) -> Option<i32> {
    let stream = connect(path).ok()?;
    getsockopt(&stream, sockopt::PeerCredentials).ok().map(|peer| peer.pid())
}

/// Answers requests until `shutdown`.
///
/// # Errors
/// The listener does not belong to a runtime that can drive it.
pub async fn serve(listener: UnixListener, control: Control, shutdown: CancellationToken) -> io::Result<()> {
    let estate = Estate { listener, clients: Vec::new() };
    serve_estate(estate, control, Placement::default(), lending().1, shutdown).await
}

/// Asks a program; blocks for at most `timeout` for each read or write. Gives what stands under `ok`.
///
/// # Errors
/// Nobody answers in time, or the answer is an error.
pub fn request(path: &Path, request: &Value, timeout: Duration) -> Result<Value, ControlError> {
    let ask = || -> io::Result<String> {
        let mut stream = connect(path)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        io::BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
        Ok(line)
    };
    let line = ask().map_err(|source| ControlError::Unreachable { path: path.to_owned(), source })?;
    unwrap_ok(path, &line)
}

/// Asks a program for lines that come one after the other ([`Answer::Stream`], or [`Answer::Lines`]) and gives each to
/// `take`, until there are no more or it breaks. Only for the first one it waits no longer than `timeout`; it stands under `ok`, as
/// that of any other answer.
///
/// # Errors
/// Nobody answers in time, or the answer is an error or no JSON.
pub fn follow(
    path: &Path,
    request: &Value,
    timeout: Duration,
    mut take: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), ControlError> {
    let unreachable = |source| ControlError::Unreachable { path: path.to_owned(), source };
    let ask = || -> io::Result<_> {
        let mut stream = connect(path)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut reader = io::BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        reader.get_ref().set_read_timeout(None)?;
        Ok((first, reader))
    };
    let (first, reader) = ask().map_err(unreachable)?;
    let mut flow = take(unwrap_ok(path, &first)?);
    let mut lines = reader.lines();
    while flow.is_continue() {
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(unreachable)?;
        let value = serde_json::from_str(&line);
        flow = take(value.map_err(|_| ControlError::Answer { path: path.to_owned(), text: line })?);
    }
    Ok(())
}

/// What stands under `ok`.
fn unwrap_ok(path: &Path, line: &str) -> Result<Value, ControlError> {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut answer)) if answer.contains_key("ok") => Ok(answer.remove("ok").unwrap_or_default()),
        Ok(Value::Object(answer)) if answer.get("error").is_some_and(Value::is_string) => {
            let text = answer["error"].as_str().unwrap_or_default().to_owned();
            Err(ControlError::Refused { path: path.to_owned(), text })
        }
        _ => Err(ControlError::Answer { path: path.to_owned(), text: line.trim_end().to_owned() }),
    }
}

/// Connects without waiting: the queue of a stuck process may be full, which is an error here.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

#[cfg(test)]
mod tests;
