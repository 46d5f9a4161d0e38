//! Opening a store: the directory, its lock, what is in it, its threads.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::Uid;
use parking_lot::{Condvar, Mutex};

use super::{Settings, Store, Sync};
use crate::batch::Batch;
use crate::checkpoint::{self, Mover};
use crate::disk::{Directory, Disk};
use crate::durability::Waiters;
use crate::error::StoreError;
use crate::figures::Counters;
use crate::frame::Framing;
use crate::log::{Log, NEVER, Open};
use crate::message::Ledger;
use crate::position::Position;
use crate::record::{self, Record, WallTime};
use crate::recovery::{Recovered, recover};
use crate::segment;
use crate::space::Space;
use crate::writer;

const LOCK_FILE: &str = "lock";
/// Fewer segments than this, the reserve included, and there is nothing to move.
const MIN_SEGMENTS: u64 = 8;

/// Opens the store of `settings.path`, for this process alone, and gives what is in it.
///
/// # Errors
/// See [`StoreError`]: the text says what to do.
pub fn open(settings: &Settings, now: WallTime) -> Result<(Arc<Store>, Recovered), StoreError> {
    let path = &settings.path;
    let directory = |source| StoreError::Directory { path: path.clone(), user: Uid::effective().as_raw(), source };
    let disk = Directory::make(path).map_err(directory)?;
    let lock = lock(path).map_err(directory)?.map_err(|holder| StoreError::InUse { path: path.clone(), holder })?;
    open_with(settings, Arc::new(disk), Some(lock), now)
}

/// Opens the store that is on `disk`.
///
/// # Errors
/// See [`StoreError`].
#[cfg(any(test, feature = "simulated-disk"))]
pub(crate) fn open_on(
    settings: &Settings,
    disk: Arc<dyn Disk>,
    now: WallTime,
) -> Result<(Arc<Store>, Recovered), StoreError> {
    open_with(settings, disk, None, now)
}

fn open_with(
    settings: &Settings,
    disk: Arc<dyn Disk>,
    lock: Option<std::fs::File>,
    now: WallTime,
) -> Result<(Arc<Store>, Recovered), StoreError> {
    let mut settings = settings.clone();
    settings.segment_size = settings.segment_size.min(settings.max_size / MIN_SEGMENTS);
    let ledger = Arc::new(Ledger::default());
    let (opened, recovered) = recover(&*disk, &settings.path, &ledger)?;
    let identity = opened.identity.unwrap_or_else(new_identity);
    let file_error = |source| StoreError::File { what: "make room in", file: settings.path.clone(), source };
    let space = Space::new(disk, settings.segment_size, settings.max_size, opened.segments).map_err(file_error)?;
    let start = Position::new(opened.next_segment, segment::HEADER);
    let log = Arc::new(Log {
        open: Mutex::new(Open {
            batch: Batch::new(start, settings.segment_size),
            is_idle: false,
            sync_to: Position::default(),
            is_closing: false,
            is_over: false,
        }),
        identity,
        framing: Framing::new(identity),
        work: Condvar::new(),
        durable: AtomicU64::new(match settings.sync {
            Sync::Always => opened.end.0,
            Sync::Interval(_) | Sync::Never => NEVER.0 - 1,
        }),
        synced: AtomicU64::new(opened.end.0),
        flags: AtomicU8::new(0),
        trouble: Mutex::new(None),
        waiters: Waiters::new(),
        ready_waiters: Waiters::new(),
        ledger,
        next_message: AtomicU64::new(opened.next_message.max(1)),
        next_session: AtomicU64::new(opened.next_session.max(1)),
        last_stamp: AtomicU64::new(recovered.last_stamp),
        moving: AtomicU64::new(0),
        is_moving: AtomicBool::new(false),
        space: Mutex::new(space),
        counters: Counters::default(),
        damaged_bytes: recovered.report.damage.iter().map(|damage| damage.len).sum(),
        settings,
    });
    log.note(&log.space.lock());
    for (session, message) in opened.forgotten {
        // The next one to read the log must not take it for complete, whatever comes behind it.
        let dropped = Record::Dropped { session, message };
        log.framed(|out| Some(record::encode(&dropped, out)), |frame, _| log.push(frame));
    }
    let mover = Arc::new(Mover::new(Arc::clone(&log)));
    let writer = writer::Writer::new(Arc::clone(&log), Arc::clone(&mover), opened.end, now);
    let store = Arc::new(Store {
        log,
        mover: Mutex::new(Some(Arc::clone(&mover))),
        threads: Mutex::default(),
        lock: Mutex::new(lock),
    });
    let mut threads = vec![spawn("store-writer", move || writer.run())?];
    let weak = Arc::downgrade(&store);
    let moves = spawn("store-moves", move || checkpoint::run(&mover, &weak));
    let result = moves.map(|thread| threads.push(thread));
    *store.threads.lock() = threads;
    result.map(|()| (store, recovered))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StoreError::Thread)
}

/// Takes the directory for this process, or says who has it. The lock goes when the process does, however it ends.
fn lock(path: &Path) -> io::Result<Result<std::fs::File, String>> {
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK_FILE))?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => {}
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => return Ok(Err(holder(&mut file))),
        Err(error) => return Err(error.into()),
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Ok(file))
}

/// Gives the directory up, now: a process that is just being started has a copy of the descriptor until it runs its program.
pub(super) fn unlock(file: std::fs::File) {
    if let Err(error) = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK))) {
        tracing::warn!(%error, "store: its lock goes only with the process");
    }
}

/// The process that has the store in `path` open, if one has.
pub(crate) fn held_by(path: &Path) -> io::Result<Option<String>> {
    let mut file = match std::fs::File::open(path.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut asked = whole_file(libc::F_RDLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    let is_held = i32::from(asked.l_type) != libc::F_UNLCK;
    Ok(is_held.then(|| holder(&mut file)))
}

fn holder(file: &mut std::fs::File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "(unknown)".to_owned(),
    }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// A number that nobody else has and no client can guess: it is in what makes a frame a frame.
fn new_identity() -> [u8; 16] {
    let mut identity = [0; 16];
    for half in identity.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_given_up_is_nobodys_while_a_copy_of_the_descriptor_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = lock(directory.path()).unwrap().unwrap();
        let copy = file.try_clone().unwrap();
        assert_eq!(held_by(directory.path()).unwrap(), Some(std::process::id().to_string()));
        unlock(file);
        assert_eq!(held_by(directory.path()).unwrap(), None);
        drop(copy);
    }
}
