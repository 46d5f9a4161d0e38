//! Opening: from files to what the broker has to know.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermq_mqtt::{Publish, QoS};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::frame::{Framing, HEADER as FRAME_HEADER, Kind};
use crate::message::{Handle, Ledger};
use crate::position::{Position, SegmentId};
use crate::record::{Entry, MessageId, OriginLog, SessionId, WallTime, decode_publish};
use crate::replay::{Applied, MeshOutcome, NumberHasher, Origins, Outcome, Place, QueuedCopy, Session};
use crate::scan;
use crate::segment::file_name;
use crate::survey::{Survey, survey};

mod tell;

use tell::tell;

/// What was in the store.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Sessions, in the order in which they were made.
    pub sessions: Vec<RecoveredSession>,
    /// Messages that sessions or other brokers wait for or topics retain, each once.
    pub messages: Vec<RecoveredMessage>,
    /// Which of `messages` are retained, deletions too, oldest first.
    pub retained: Vec<usize>,
    /// Wills that are due and may not be with all who get them: each with its number, see [`crate::Record::WillDue`].
    pub wills: Vec<(SessionId, Publish)>,
    /// The latest stamp time that was given out.
    pub last_stamp: u64,
    /// What is known of the other brokers.
    pub mesh: RecoveredMesh,
    /// What could not be read.
    pub report: Report,
}

/// What is known of the other brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredMesh {
    /// This broker's log for them, if there was one.
    pub log: Option<OriginLog>,
    /// Some of the store behind the latest record of the log cannot be read: it may have been a later one, so more of the log
    /// may have been given away than is known.
    pub is_log_doubtful: bool,
    /// The messages in it by their places, in order: which of [`Recovered::messages`], and where it is to go.
    pub forwards: Vec<(u64, usize, Box<[u8]>)>,
    /// Up to where other brokers have it, at least.
    pub cursors: Vec<(String, u64)>,
    /// How far this broker is with the others' logs; of each origin in the order in which they were last used.
    pub applied: Vec<Applied>,
}

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredSession {
    /// The session.
    pub session: SessionId,
    /// Client identifier.
    pub client_id: String,
    /// The user to whom it belongs.
    pub user: Option<String>,
    /// Session expiry interval in seconds; `u32::MAX` never expires.
    pub expiry: u32,
    /// The will.
    pub will: Option<RecoveredWill>,
    /// Whether it had a connection.
    pub connected: bool,
    /// Since when it had one, or had none.
    pub at: WallTime,
    /// Where it was made, or its last snapshot is.
    pub since: SegmentId,
    /// The packet identifier that follows the last one that was used.
    pub next_packet_id: u16,
    /// Filter, options and subscription identifier of each subscription, in the order of filters.
    pub subscriptions: Vec<(String, u8, Option<u32>)>,
    /// Messages that wait, in order.
    pub waiting: Vec<RecoveredWaiting>,
    /// Messages that were sent, in order; `None` after PUBREC.
    pub inflight: Vec<(u16, Option<RecoveredWaiting>)>,
    /// Packet identifiers of QoS 2 messages that the client has not released.
    pub received: Vec<u16>,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredWill {
    /// Will delay interval in seconds.
    pub delay: u32,
    /// Its message.
    pub publish: Publish,
}

/// A session's copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredWaiting {
    /// Which of [`Recovered::messages`].
    pub message: usize,
    /// The QoS for this session.
    pub qos: QoS,
    /// The RETAIN flag for this session.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Box<[u32]>,
}

/// A message.
#[derive(Debug)]
pub struct RecoveredMessage {
    /// It, in bytes of its own.
    pub publish: Publish,
    /// Time of its stamp.
    pub stamp_time: u64,
    /// Origin of its stamp.
    pub stamp_origin: Arc<str>,
    /// When the broker got it.
    pub received: WallTime,
    /// Its place in the store.
    pub handle: Handle,
}

/// What was found in the files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Files read.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records read.
    pub records: u64,
    /// What was on the disk once and is not any more, in the log's order.
    pub damage: Vec<Damage>,
    /// What was being written when the broker or the machine stopped: nothing of it was acknowledged with
    /// `sync = "always"`. It was cut off.
    pub torn: Option<Damage>,
    /// Messages that sessions waited for and whose records are among the damage.
    pub lost_messages: u64,
    /// Sessions that a later one of the same client replaces, because the record of their end is among the damage.
    pub replaced_sessions: u64,
}

/// A part of the log that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What they were.
    pub lost: Loss,
}

/// What a damaged part of a file was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The records that stood there.
    Records,
    /// The segment's header; its records could be read.
    Header,
    /// A record whose checksum is right and that cannot be understood.
    Record(Kind),
    /// The whole file, which is not there.
    File,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Records => f.write_str("the records that stood there"),
            Self::Header => f.write_str("the file's header, but none of its records"),
            Self::Record(kind) => write!(f, "a record of kind {kind}"),
            Self::File => f.write_str("the whole file"),
        }
    }
}

/// Where the log goes on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) identity: Option<[u8; 16]>,
    /// Where the last segment ends.
    pub(crate) end: Position,
    /// The number of the next one.
    pub(crate) next_segment: SegmentId,
    /// Bytes of each segment's file.
    pub(crate) segments: BTreeMap<SegmentId, u64>,
    pub(crate) next_message: u64,
    pub(crate) next_session: u64,
    /// What sessions no longer wait for, to be written down.
    pub(crate) forgotten: Vec<(SessionId, MessageId)>,
}

/// Reads everything, cuts off what is torn, and makes sure that what was read stays.
///
/// # Errors
/// A file cannot be read or written, or is of another version.
pub(crate) fn recover(disk: &dyn Disk, path: &Path, ledger: &Arc<Ledger>) -> Result<(Opened, Recovered), StoreError> {
    settle_last(disk, path)?;
    let mut survey = survey(disk, path, |_, _| {})?;
    let file_error = |what, segment| {
        let file = path.join(file_name(segment));
        move |source| StoreError::File { what, file, source }
    };
    for segment in &survey.unborn {
        disk.remove(&file_name(*segment)).map_err(file_error("remove", *segment))?;
    }
    let mut end = Position::default();
    if let Some(last) = survey.segments.last_mut() {
        if last.len > last.layout.end {
            let file = disk.open(&file_name(last.id)).map_err(file_error("open", last.id))?;
            file.set_len(last.layout.end).and_then(|()| file.sync()).map_err(file_error("cut", last.id))?;
            last.len = last.layout.end;
        }
        end = Position::new(last.id, last.layout.end);
    }
    disk.sync_names().map_err(|source| StoreError::File { what: "sync", file: path.to_owned(), source })?;
    let mut opened = Opened {
        identity: survey.identity,
        end,
        next_segment: end.segment().next(),
        segments: survey.segments.iter().map(|segment| (segment.id, segment.len)).collect(),
        next_message: survey.replay.next_message,
        next_session: survey.replay.next_session,
        forgotten: Vec::new(),
    };
    let (recovered, forgotten) = build(disk, path, survey, ledger)?;
    opened.forgotten = forgotten;
    tell(&recovered);
    Ok((opened, recovered))
}

/// After a crash memory may hold more of the last segment than the disk does, and after an error of the disk it may hold what
/// will never be there. So that is written out, and then read from the disk.
fn settle_last(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let files = disk.list().map_err(|source| StoreError::File { what: "list", file: path.to_owned(), source })?;
    let last = files.iter().filter_map(|(name, _)| crate::segment::of_file_name(name)).max();
    let Some(last) = last else { return Ok(()) };
    let settle = || {
        let file = disk.open(&file_name(last))?;
        file.sync()?;
        file.forget_cached();
        Ok(())
    };
    settle().map_err(|source| StoreError::File { what: "sync", file: path.join(file_name(last)), source })
}

type ById<T> = HashMap<MessageId, T, BuildHasherDefault<NumberHasher>>;

fn build(
    disk: &dyn Disk,
    path: &Path,
    survey: Survey,
    ledger: &Arc<Ledger>,
) -> Result<(Recovered, Vec<(SessionId, MessageId)>), StoreError> {
    let Survey { identity, segments, replay, mut report, .. } = survey;
    let last_stamp = replay.last_stamp;
    let Outcome { sessions, messages, retained, wills, lost_messages, replaced_sessions, forgotten, mesh } =
        replay.finish();
    report.lost_messages = lost_messages;
    report.replaced_sessions = replaced_sessions;
    let mut recovered = Recovered { last_stamp, ..Recovered::default() };
    let mut index = ById::default();
    let framing = Framing::new(identity.unwrap_or_default());
    let mut loader = Loader { ledger, origins: Origins::default(), index: &mut index, out: &mut recovered.messages };
    let mut bytes = Vec::new();
    for group in messages.chunk_by(|(_, a), (_, b)| a.segment == b.segment) {
        let segment = group[0].1.segment;
        let end = segments.iter().find(|found| found.id == segment).map_or(0, |found| found.layout.end);
        let file = path.join(file_name(segment));
        disk.open(&file_name(segment))
            .and_then(|file| file.read(&mut bytes, end))
            .map_err(|source| StoreError::File { what: "read", file: file.clone(), source })?;
        loader.load(&bytes, &framing, group, &file, &mut report);
    }
    recovered.sessions = sessions.into_iter().map(|session| session_of(session, &index, &mut report)).collect();
    recovered.mesh = mesh_of(mesh, &index, &report.damage);
    // As with a session's will.
    recovered.wills = wills.iter().filter_map(|(id, publish)| Some((*id, decode_publish(publish).ok()?))).collect();
    recovered.retained = retained.iter().filter_map(|id| index.get(id).copied()).collect();
    for (_, handle) in not_retained(&recovered) {
        handle.not_retained();
    }
    recovered.report = report;
    Ok((recovered, forgotten))
}

/// The messages that were retained once and are not any more.
fn not_retained(recovered: &Recovered) -> impl Iterator<Item = (usize, &Handle)> {
    let mut is_retained = vec![false; recovered.messages.len()];
    for index in &recovered.retained {
        is_retained[*index] = true;
    }
    let handles = recovered.messages.iter().map(|message| &message.handle).enumerate();
    handles.filter(move |(index, _)| !is_retained[*index])
}

/// Reads the messages that are needed.
struct Loader<'a> {
    ledger: &'a Arc<Ledger>,
    origins: Origins,
    index: &'a mut ById<usize>,
    out: &'a mut Vec<RecoveredMessage>,
}

impl Loader<'_> {
    fn load(
        &mut self,
        bytes: &[u8],
        framing: &Framing,
        wanted: &[(MessageId, Place)],
        file: &Path,
        report: &mut Report,
    ) {
        for (id, place) in wanted {
            let found = usize::try_from(place.offset).ok().and_then(|at| scan::frame_at(bytes, framing, at));
            let len = found.map_or(0, |found| (FRAME_HEADER + found.record.len()) as u64);
            let read = found.and_then(|found| match found.entry() {
                Ok(Entry::Message(message)) => Some((message, decode_publish(message.publish).ok()?)),
                _ => None,
            });
            let Some((message, publish)) = read else {
                let lost = Loss::Record(Kind::Message);
                report.damage.push(Damage { file: file.to_owned(), offset: place.offset, len, lost });
                continue;
            };
            self.index.insert(*id, self.out.len());
            let stamp_origin = self.origins.shared(message.stamp_origin);
            self.out.push(RecoveredMessage {
                publish,
                stamp_time: message.stamp_time,
                stamp_origin,
                received: message.received,
                handle: Handle::new(*id, place.segment, len, message.retained, self.ledger),
            });
        }
    }
}

fn session_of(session: Session, index: &ById<usize>, report: &mut Report) -> RecoveredSession {
    let state = session.state;
    let mut copy_of = |copy: QueuedCopy| {
        let message = index.get(&copy.message).copied();
        if message.is_none() {
            report.lost_messages += 1;
        }
        Some(RecoveredWaiting { message: message?, qos: copy.qos, retain: copy.retain, ids: copy.ids })
    };
    let waiting = session.waiting.into_iter().filter_map(&mut copy_of).collect();
    let inflight = session.inflight.into_iter().filter_map(|(id, copy)| match copy {
        None => Some((id, None)),
        Some(copy) => Some((id, Some(copy_of(copy)?))),
    });
    RecoveredSession {
        session: state.session,
        client_id: state.client_id.into_owned(),
        user: state.user.map(std::borrow::Cow::into_owned),
        expiry: state.expiry,
        // What cannot be read is no will; its record was checked when it was made.
        will: state
            .will
            .and_then(|will| Some(RecoveredWill { delay: will.delay, publish: decode_publish(&will.publish).ok()? })),
        connected: state.connected,
        at: state.at,
        since: session.since,
        next_packet_id: session.next_packet_id,
        subscriptions: session
            .subscriptions
            .into_iter()
            .map(|(filter, (options, id))| (filter.into(), options, id))
            .collect(),
        waiting,
        inflight: inflight.collect(),
        received: session.received,
    }
}

fn mesh_of(mesh: MeshOutcome, index: &ById<usize>, damage: &[Damage]) -> RecoveredMesh {
    let MeshOutcome { log, forwards, cursors, applied } = mesh;
    let is_behind = |place: Place| {
        let segment = |damage: &Damage| crate::segment::of_file_name(damage.file.file_name()?.to_str()?);
        damage
            .iter()
            .any(|damage| segment(damage).is_none_or(|segment| Place { segment, offset: damage.offset } >= place))
    };
    RecoveredMesh {
        log: log.map(|(log, _)| log),
        is_log_doubtful: log.is_some_and(|(_, place)| is_behind(place)),
        forwards: forwards
            .into_iter()
            .filter_map(|(seq, id, directions)| Some((seq, *index.get(&id)?, directions)))
            .collect(),
        cursors: cursors.into_iter().map(|(peer, seq)| (peer.into(), seq)).collect(),
        applied,
    }
}
