//! The thread that writes: takes what has come, writes it with one call, asks the disk to keep it, and wakes all who waited
//! for it. Meanwhile the next batch comes together: the slower the disk, the more each of its answers is worth.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, error, info, warn};

use crate::batch::{Batch, Piece};
use crate::checkpoint::Mover;
use crate::disk::{File, is_full};
use crate::frame::Kind;
use crate::log::{Log, Open};
use crate::position::{Position, SegmentId};
use crate::record::{self, WallTime};
use crate::segment::Header;
use crate::store::{Status, Sync, Trouble};

/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Where nobody waits for the disk, records come together this long before they are written.
const GATHER: Duration = Duration::from_millis(2);
/// Unless so many have.
const GATHERED: usize = 256 << 10;
/// How long a store that is closed goes on trying to write to a full disk.
const LAST_TRIES: u32 = 4;

/// The writer.
#[derive(Debug)]
pub(crate) struct Writer {
    log: Arc<Log>,
    mover: Arc<Mover>,
    batch: Batch,
    /// The segment that is written.
    tail: Option<Tail>,
    /// Where the segment before it ends.
    previous: Position,
    written: Position,
    /// The last mark of what is synced.
    marked: Position,
    last_sync: Instant,
    /// When the reserve was last looked after.
    last_try: Instant,
    woken: Vec<Waker>,
    opened: WallTime,
}

#[derive(Debug)]
struct Tail {
    segment: SegmentId,
    file: Box<dyn File>,
    end: u64,
}

/// Why a batch is not on the disk.
#[derive(Debug)]
enum Failure {
    /// There is no room: it may be tried again.
    Full(std::io::Error),
    /// The disk has failed.
    Disk(&'static str, std::io::Error),
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
struct Work {
    sync: bool,
    close: bool,
}

impl Writer {
    pub(crate) fn new(log: Arc<Log>, mover: Arc<Mover>, previous: Position, opened: WallTime) -> Self {
        let batch = Batch::new(previous, log.settings.segment_size);
        Self {
            log,
            mover,
            batch,
            tail: None,
            previous,
            written: previous,
            marked: Position::default(),
            last_sync: now(),
            last_try: now(),
            woken: Vec::new(),
            opened,
        }
    }

    /// Writes until the store is closed or the disk fails.
    pub(crate) fn run(mut self) {
        self.refill();
        loop {
            let work = self.wait();
            let result = self.commit(work);
            if let Err((what, error)) = result {
                self.fail(&format!(
                    "cannot {what} the store: {error}; check the disk, then restart the broker: what was durable is still \
                     there"
                ));
                return;
            }
            if work.close {
                return self.end();
            }
        }
    }

    /// Sleeps until there is something to do, and takes it.
    fn wait(&mut self) -> Work {
        let log = Arc::clone(&self.log);
        let mut open = log.open.lock();
        loop {
            let sync = self.is_sync_due(&open);
            if open.is_closing || sync || !open.batch.is_empty() {
                break;
            }
            open.is_idle = true;
            match self.next_look() {
                None => log.work.wait(&mut open),
                Some(time) => drop(log.work.wait_for(&mut open, time)),
            }
            open.is_idle = false;
            if self.is_retry_due() {
                drop(open);
                self.refill();
                open = log.open.lock();
            }
        }
        if log.settings.sync != Sync::Always && !open.is_closing && open.batch.len() < GATHERED {
            // Who appends does not wake it meanwhile.
            let _ = log.work.wait_for(&mut open, GATHER);
        }
        let work = Work { sync: self.is_sync_due(&open) || open.is_closing, close: open.is_closing };
        self.mark(&mut open);
        open.batch.take(&mut self.batch);
        work
    }

    fn is_sync_due(&self, open: &Open) -> bool {
        let synced = self.log.synced();
        open.sync_to > synced
            || match self.log.settings.sync {
                Sync::Always | Sync::Never => false,
                Sync::Interval(interval) => self.written > synced && now() >= self.last_sync + interval,
            }
    }

    fn is_retry_due(&self) -> bool {
        self.log.status() == Status::Full && now() >= self.last_try + RETRY
    }

    fn next_look(&self) -> Option<Duration> {
        if self.log.status() == Status::Full {
            return Some(RETRY);
        }
        match self.log.settings.sync {
            Sync::Interval(interval) if self.written > self.log.synced() => {
                Some((self.last_sync + interval).saturating_duration_since(now()))
            }
            Sync::Always | Sync::Interval(_) | Sync::Never => None,
        }
    }

    /// Writes down how much of the segment is on the disk, with the next records.
    fn mark(&mut self, open: &mut Open) {
        let synced = self.log.synced();
        let is_news = synced > self.marked && synced.segment() == open.batch.segment();
        if is_news && (!open.batch.is_empty() || open.is_closing) {
            let encode = |out: &mut bytes::BytesMut| {
                record::encode_commit(synced.offset(), out);
                Some(Kind::Commit)
            };
            self.log.framed(encode, |frame, _| {
                // In the next segment it would speak of that one.
                if open.batch.fits(frame.len()) {
                    open.batch.push(frame);
                }
            });
            self.marked = synced;
        }
    }

    fn commit(&mut self, work: Work) -> Result<(), (&'static str, std::io::Error)> {
        let started = now();
        let sync = work.sync || self.log.settings.sync == Sync::Always;
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(self.written, self.log.settings.segment_size));
        let mut tries = 0;
        let result = loop {
            match self.try_commit(&batch, sync) {
                Ok(()) => break Ok(()),
                Err(Failure::Disk(what, error)) => break Err((what, error)),
                Err(Failure::Full(error)) => {
                    if self.log.space.lock().give_back() {
                        self.tell_full(&error.to_string());
                        continue;
                    }
                    tries += 1;
                    let is_closing = self.full(&error);
                    if is_closing && tries > LAST_TRIES {
                        break Err(("write what was not acknowledged yet to", error));
                    }
                }
            }
        };
        if result.is_ok() && !batch.is_empty() {
            self.log.counters.committed(batch.records(), batch.len() as u64, now() - started);
        }
        batch.clear();
        self.batch = batch;
        result?;
        if sync {
            self.last_sync = now();
            self.log.now_synced(self.written);
        }
        self.log.waiters.wake(self.log.durable(), &mut self.woken);
        if self.log.has_room() {
            self.log.ready_waiters.wake(Position::default(), &mut self.woken);
        }
        if self.is_retry_due() {
            self.refill();
        }
        Ok(())
    }

    /// May be called again with the same batch: what was written is written again, so that what memory claims to have written
    /// before an error is not relied on.
    fn try_commit(&mut self, batch: &Batch, sync: bool) -> Result<(), Failure> {
        for piece in batch.pieces() {
            if self.tail.as_ref().is_some_and(|tail| tail.segment > piece.at.segment()) {
                continue;
            }
            let tail = self.tail_for(piece)?;
            tail.file.write(piece.bytes, piece.at.offset()).map_err(|error| Failure::of("write to", error))?;
            tail.end = piece.at.offset() + piece.bytes.len() as u64;
        }
        self.written = batch.end();
        if sync && let Some(tail) = &self.tail {
            self.log.counters.syncs.fetch_add(1, Ordering::Relaxed);
            tail.file.sync().map_err(|error| match self.log.settings.sync {
                Sync::Always => Failure::of("sync", error),
                // What earlier batches wrote is no longer in memory.
                Sync::Interval(_) | Sync::Never => Failure::Disk("sync", error),
            })?;
        }
        Ok(())
    }

    /// The segment of `piece`, which is begun if it is a new one.
    fn tail_for(&mut self, piece: Piece<'_>) -> Result<&mut Tail, Failure> {
        let segment = piece.at.segment();
        if self.tail.as_ref().is_none_or(|tail| tail.segment != segment) {
            self.seal()?;
            let tail = self.begin(segment)?;
            self.tail = Some(tail);
            self.mover.look();
        }
        Ok(self.tail.as_mut().expect("it was begun above"))
    }

    /// A segment that is complete is synced whatever the settings say, so that what a power failure takes is in the last one.
    fn seal(&mut self) -> Result<(), Failure> {
        let Some(tail) = &self.tail else { return Ok(()) };
        self.log.counters.syncs.fetch_add(1, Ordering::Relaxed);
        tail.file.sync().map_err(|error| Failure::Disk("sync", error))?;
        tail.file.set_len(tail.end).map_err(|error| Failure::of("cut", error))?;
        let mut space = self.log.space.lock();
        space.resized(tail.segment, tail.end);
        self.log.note(&space);
        drop(space);
        self.previous = Position::new(tail.segment, tail.end);
        Ok(())
    }

    fn begin(&mut self, segment: SegmentId) -> Result<Tail, Failure> {
        let log = Arc::clone(&self.log);
        let is_first = self.previous == Position::default();
        let header = Header {
            identity: log.identity,
            segment,
            previous_end: if is_first { 0 } else { self.previous.offset() },
            made: wall_time().max(self.opened),
            next_message: log.next_message.load(Ordering::Relaxed),
            next_session: log.next_session.load(Ordering::Relaxed),
            last_stamp: log.last_stamp.load(Ordering::Relaxed),
        };
        let made = {
            let mut space = log.space.lock();
            let made = space.make(segment, &header.encode(), log.is_moving.load(Ordering::Acquire));
            log.note(&space);
            made.map_err(|error| Failure::of("add a file to", error))?
        };
        if made.from_reserve {
            self.tell_full("the last segments are in use");
        }
        debug!(segment = segment.0, "store: new segment");
        Ok(Tail { segment, file: made.file, end: crate::segment::HEADER })
    }

    /// Waits a while because there is no room; whether the store is being closed.
    fn full(&mut self, error: &std::io::Error) -> bool {
        self.tell_full(&error.to_string());
        self.mover.look();
        let mut open = self.log.open.lock();
        if !open.is_closing {
            let _ = self.log.work.wait_for(&mut open, RETRY);
        } else {
            drop(open);
            std::thread::park_timeout(RETRY);
            return true;
        }
        open.is_closing
    }

    fn tell_full(&mut self, cause: &str) {
        let text = format!(
            "no room for the store in {}: {cause}; free disk space or raise broker.store.max_size ({} bytes)",
            self.log.settings.path.display(),
            self.log.settings.max_size
        );
        if self.log.set_full(Trouble { since: wall_time(), text: text.clone() }) {
            warn!(from = "ready", to = "full", reason = text, "store");
            // Who waits because the disk is slow has to know: it may be long.
            self.log.ready_waiters.wake(Position::default(), &mut self.woken);
        }
    }

    /// Makes the reserve whole; then there is room again.
    fn refill(&mut self) {
        self.last_try = now();
        let refilled = self.log.space.lock().refill();
        match refilled {
            Ok(true) => {
                if self.log.status() == Status::Full {
                    self.log.not_full();
                    info!(from = "full", to = "ready", reason = "there is room again", "store");
                    self.log.ready_waiters.wake(Position::default(), &mut self.woken);
                }
            }
            Ok(false) => {
                self.tell_full("not enough for the reserve");
                self.mover.look();
            }
            Err(error) => {
                self.tell_full(&error.to_string());
                self.mover.look();
            }
        }
    }

    fn fail(&mut self, text: &str) {
        self.log.set_failed(Trouble { since: wall_time(), text: text.to_owned() });
        error!(to = "failed", reason = text, "store");
        let everyone = Position(u64::MAX);
        self.log.waiters.wake(everyone, &mut self.woken);
        self.log.ready_waiters.wake(everyone, &mut self.woken);
    }

    /// The store is closed: what is in the last segment is all that there is, and all of it is on the disk.
    fn end(&mut self) {
        let log = Arc::clone(&self.log);
        let mut open = log.open.lock();
        self.mark(&mut open);
        open.batch.take(&mut self.batch);
        open.is_over = true;
        drop(open);
        let mark = std::mem::replace(&mut self.batch, Batch::new(self.written, self.log.settings.segment_size));
        if let Err(Failure::Full(error) | Failure::Disk(_, error)) = self.try_commit(&mark, false) {
            warn!(%error, "store: cannot write that it was closed in good order");
        }
        if let Some(tail) = &self.tail
            && let Err(error) = tail.file.set_len(tail.end).and_then(|()| tail.file.sync())
        {
            warn!(%error, "store: cannot cut the last segment; the next start does it");
        }
    }
}

impl Failure {
    fn of(what: &'static str, error: std::io::Error) -> Self {
        if is_full(&error) { Self::Full(error) } else { Self::Disk(what, error) }
    }
}

/// Sleeps for a moment, where nothing says that what is waited for has come.
pub(crate) fn doze() {
    std::thread::park_timeout(Duration::from_millis(1));
}

#[expect(clippy::disallowed_methods, reason = "the writer is a driver")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "for people and the file's header")]
pub(crate) fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
