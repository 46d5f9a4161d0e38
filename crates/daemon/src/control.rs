//! The control socket: JSON lines over a Unix socket.
//!
//! | request, one line | answer |
//! |---|---|
//! | `{"request":"state"}` | one line, `{"ok": STATE}` |
//! | `{"request":"health"}` | a line `{"health":"up"}` (or `degraded`, `down`) at once, on each change, and every [`HEALTH_BEAT`]; end-of-file says that the program is dead |
//! | anything else | one line, `{"error": TEXT}` |
//!
//! Tasks: [`serve`] owns one task for each connection, in a set that ends with it. At most [`MAX_CLIENTS`] connections and
//! [`MAX_REQUEST`] bytes a request.

use std::io::{self, BufRead as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::health::{HEALTH_BEAT, Health, HealthLine};

/// Connections served at once: a handful of operators and the vip.
pub const MAX_CLIENTS: usize = 64;
/// Longest request.
pub const MAX_REQUEST: u64 = 4096;
/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    State,
    Health,
}

#[derive(Deserialize)]
struct RequestLine {
    request: Request,
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

/// Answers requests until `shutdown`.
///
/// # Errors
/// The listener does not belong to a runtime that can drive it.
pub async fn serve(listener: UnixListener, control: Control, shutdown: CancellationToken) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let control = control.clone();
                    clients.spawn(async move {
                        if let Err(error) = answer(stream, control).await {
                            tracing::debug!(%error, "control connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, mut control: Control) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(reader.take(MAX_REQUEST)).read_line(&mut line).await?;
    match serde_json::from_str::<RequestLine>(&line) {
        Ok(RequestLine { request: Request::State }) => {
            write_line(&mut writer, &json!({ "ok": (control.state)() })).await
        }
        Ok(RequestLine { request: Request::Health }) => stream_health(&mut writer, &mut control.health).await,
        Err(error) => write_line(&mut writer, &json!({ "error": format!("not a request: {error}") })).await,
    }
}

async fn stream_health(
    writer: &mut tokio::net::unix::OwnedWriteHalf,
    health: &mut watch::Receiver<Health>,
) -> io::Result<()> {
    loop {
        let line = HealthLine { health: *health.borrow_and_update() };
        write_line(writer, &serde_json::to_value(line)?).await?;
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return Ok(()); },
            () = tokio::time::sleep(HEALTH_BEAT) => {}
        }
    }
}

async fn write_line(writer: &mut tokio::net::unix::OwnedWriteHalf, value: &Value) -> io::Result<()> {
    let mut line = value.to_string();
    line.push('\n');
    writer.write_all(line.as_bytes()).await
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
        io::BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    let line = ask().map_err(|source| ControlError::Unreachable { path: path.to_owned(), source })?;
    match serde_json::from_str::<Value>(&line) {
        Ok(Value::Object(mut answer)) if answer.contains_key("ok") => Ok(answer.remove("ok").unwrap_or_default()),
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
