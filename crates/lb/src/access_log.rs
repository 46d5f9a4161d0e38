//! The access log: one line when a connection ends, in the program's own log or in a file.
//!
//! Workers hand records over a bounded channel and never wait: what does not fit is dropped, counted, and said. One thread
//! of its own writes, so a disk that hangs holds up nobody. A file is appended to, and opened again on reload, as logrotate
//! wants it. Where the disk is full lines are lost, counted, and that is said once until it is better.
//!
//! | thread | owner | ends |
//! |---|---|---|
//! | `access-log` | [`AccessLog`], which joins it | when told, after all that waits has been written |

mod line;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use evermq_config::cluster::LogFormat;
use evermq_config::lb;

pub use record::Record;
pub(crate) use record::Times;
#[cfg(test)]
pub(crate) use record::example;

/// Records that wait to be written: all clients of a large lb may be closed at once. Each has a few hundred bytes.
pub const QUEUE: usize = 32 * 1024;
/// Records are gathered for so long once one has come, so that workers need not wake the thread for each.
const GATHER: Duration = Duration::from_millis(20);
/// A line is in the file after this at the latest.
const FLUSH: Duration = Duration::from_millis(250);
/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;
/// Between two words about dropped records.
const REPEAT: Duration = Duration::from_secs(60);

/// The access log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {path}: {source}; correct lb.access_log, or who may write there", path = path.display())]
pub struct AccessLogError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Where lines go.
#[derive(Debug)]
pub enum Target {
    /// Nowhere.
    Off,
    /// To the program's log.
    Log,
    /// To this file.
    File(File, PathBuf),
}

impl Target {
    /// Opens what the file asks for. Blocks while it does.
    ///
    /// # Errors
    /// The file cannot be opened or made.
    pub fn open(wanted: &lb::AccessLog) -> Result<Self, AccessLogError> {
        match wanted {
            lb::AccessLog::Off => Ok(Self::Off),
            lb::AccessLog::Log => Ok(Self::Log),
            lb::AccessLog::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                file.map(|file| Self::File(file, path.clone()))
                    .map_err(|source| AccessLogError { path: path.clone(), source })
            }
        }
    }
}

/// Figures of the log itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Lines that were written.
    pub written: u64,
    /// Records that did not fit into the channel.
    pub dropped: u64,
    /// Lines that the disk did not take.
    pub failed: u64,
}

enum Message {
    Ended(Box<Record>),
    /// Look at what else there is to do.
    Wake,
    /// Write what waits, and end.
    Stop,
}

#[derive(Debug, Default)]
struct Shared {
    on: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    /// Where lines go from now on.
    next: Mutex<Option<Target>>,
}

/// The log and its thread.
#[derive(Debug)]
pub struct AccessLog {
    hand: Hand,
    thread: Option<JoinHandle<()>>,
}

/// A worker's end.
#[derive(Debug, Clone)]
pub struct Hand {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl AccessLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(target: Target, format: LogFormat) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        shared.on.store(!matches!(target, Target::Off), Ordering::Relaxed);
        let mut writer = Writer::new(Arc::clone(&shared), target, format);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { hand: Hand { sender, shared }, thread: Some(thread) })
    }

    /// For a worker.
    #[must_use]
    pub fn hand(&self) -> Hand {
        self.hand.clone()
    }

    /// Lines go there from now on; those that wait already too.
    pub fn turn_to(&self, target: Target) {
        let on = !matches!(target, Target::Off);
        *self.hand.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.hand.shared.on.store(on, Ordering::Relaxed);
        // In a channel that is full something else wakes the thread.
        let _ = self.hand.sender.try_send(Message::Wake);
    }

    /// As of now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.hand.figures()
    }

    /// Writes what waits. Whoever hands over more after this is not heard.
    pub fn finish(mut self) {
        // An error: the thread has gone already.
        let _ = self.hand.sender.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Hand {
    /// Whether anything is written at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// Has the record written, if there is room. Never waits.
    pub fn write(&self, ended: Box<Record>) {
        if !self.is_on() {
            return;
        }
        match self.sender.try_send(Message::Ended(ended)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// As of now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { written, dropped, failed, .. } = &*self.shared;
        Figures { written: load(written), dropped: load(dropped), failed: load(failed) }
    }
}

/// The thread.
struct Writer {
    shared: Arc<Shared>,
    target: Target,
    format: LogFormat,
    buffer: Vec<u8>,
    lines: u64,
    /// When the buffer must be written.
    due: Option<Instant>,
    /// The last write failed.
    failing: bool,
    /// The file may end within a line.
    torn: bool,
    drops_said: u64,
    said_at: Option<Instant>,
}

impl Writer {
    fn new(shared: Arc<Shared>, target: Target, format: LogFormat) -> Self {
        Self {
            shared,
            target,
            format,
            buffer: Vec::with_capacity(BUFFER),
            lines: 0,
            due: None,
            failing: false,
            torn: false,
            drops_said: 0,
            said_at: None,
        }
    }

    fn run(&mut self, receiver: &Receiver<Message>) {
        loop {
            let mut message = match self.due {
                None => receiver.recv().map_err(RecvTimeoutError::from),
                Some(due) => receiver.recv_timeout(due.saturating_duration_since(clock())),
            };
            if matches!(message, Ok(Message::Ended(_))) {
                gather();
            }
            loop {
                match message {
                    Ok(Message::Ended(ended)) => self.take(&ended),
                    Ok(Message::Wake) => {}
                    Err(RecvTimeoutError::Timeout) => self.flush_if_due(),
                    Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                        self.turn();
                        self.flush();
                        return self.say_drops();
                    }
                }
                // Before the next record: it may have come after the change.
                self.turn();
                match receiver.try_recv() {
                    Ok(next) => message = Ok(next),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => message = Err(RecvTimeoutError::Disconnected),
                }
            }
            self.say_drops();
        }
    }

    fn flush_if_due(&mut self) {
        if self.due.is_some_and(|due| due <= clock()) {
            self.flush();
        }
    }

    fn take(&mut self, ended: &Record) {
        let wall = wall_clock().checked_sub(clock().saturating_duration_since(ended.ended)).unwrap_or_else(wall_clock);
        match (&self.target, self.format) {
            (Target::Off, _) => return,
            (Target::Log, _) => {
                say(ended);
                self.shared.written.fetch_add(1, Ordering::Relaxed);
                return;
            }
            (Target::File(..), LogFormat::Text) => line::text(ended, wall, &mut self.buffer),
            (Target::File(..), LogFormat::Json) => line::json(ended, wall, &mut self.buffer),
        }
        self.lines += 1;
        if self.buffer.len() >= BUFFER {
            self.flush();
        } else if self.due.is_none() {
            self.due = Some(clock() + FLUSH);
        }
    }

    /// Goes on with another target, if there is one.
    fn turn(&mut self) {
        let next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(next) = next {
            self.flush();
            self.target = next;
            (self.failing, self.torn) = (false, false);
        }
    }

    fn flush(&mut self) {
        self.due = None;
        let lines = std::mem::take(&mut self.lines);
        let Target::File(file, path) = &mut self.target else { return self.buffer.clear() };
        if lines == 0 {
            return;
        }
        let begin: &[u8] = if self.torn { b"\n" } else { b"" };
        match file.write_all(begin).and_then(|()| file.write_all(&self.buffer)) {
            Ok(()) => {
                self.torn = false;
                self.shared.written.fetch_add(lines, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(
                        path = %path.display(),
                        from = "failing",
                        to = "written",
                        lost = self.shared.failed.load(Ordering::Relaxed),
                        reason = "a write has succeeded",
                        "access log"
                    );
                }
            }
            Err(error) => {
                self.torn = true;
                self.shared.failed.fetch_add(lines, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(path = %path.display(), %error, "the access log cannot be written: its lines are lost");
                }
            }
        }
        self.buffer.clear();
    }

    fn say_drops(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let now = clock();
        if dropped > self.drops_said && self.said_at.is_none_or(|at| now >= at + REPEAT) {
            tracing::warn!(
                dropped = dropped - self.drops_said,
                "connections ended faster than the access log could be written: their lines are lost"
            );
            (self.drops_said, self.said_at) = (dropped, Some(now));
        }
    }
}

/// A line of the program's own log.
fn say(ended: &Record) {
    let times = ended.times;
    tracing::info!(
        target: "access",
        id = ended.id,
        client = %ended.client,
        listener = &*ended.listener,
        mode = ended.mode.name(),
        sni = ended.sni.as_deref(),
        client_id = ended.client_id.as_deref(),
        backend = ended.backend.as_deref(),
        why = ended.why.name(),
        bytes_in = ended.bytes_in,
        bytes_out = ended.bytes_out,
        greeting_ms = times.greeting.map(line::millis),
        queue_ms = times.queue.map(line::millis),
        connect_ms = times.connect.map(line::millis),
        handshake_ms = times.handshake.map(line::millis),
        total_ms = line::millis(times.total),
        tls = ended.tls_version,
        cn = ended.common_name.as_deref(),
        "connection ended"
    );
}

#[expect(clippy::disallowed_methods, reason = "the access log has a thread of its own, on which nobody waits")]
fn gather() {
    std::thread::sleep(GATHER);
}

#[expect(clippy::disallowed_methods, reason = "the access log thread has a clock of its own")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "people read wall time in logs")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
