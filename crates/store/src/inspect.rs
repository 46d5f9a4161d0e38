//! Looking at a store's files without changing them, while a broker writes them or after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::Directory;
use crate::error::StoreError;
use crate::frame::{Framing, HEADER as FRAME_HEADER, Kind};
use crate::position::SegmentId;
use crate::record::Entry;
use crate::recovery::Report;
use crate::scan::{self, Found};
use crate::segment::{Header, file_name};
use crate::store::held_by;
use crate::survey::{Survey, survey};

/// How often the files are read again because a running broker deleted some of them meanwhile.
const TRIES: u32 = 5;

/// What is in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The process that has it open, if one has: then the last records may be on their way.
    pub held_by: Option<String>,
    /// The files, in the log's order.
    pub segments: Vec<Segment>,
    /// What could not be read, as a broker that starts would find it.
    pub report: Report,
    /// Sessions.
    pub sessions: u64,
    /// Messages that wait for a session, one that waits for several counted for each.
    pub waiting: u64,
    /// Messages that were sent and not acknowledged.
    pub inflight: u64,
    /// Messages that somebody needs, each once.
    pub messages: u64,
    /// Retained messages among them, deletions included.
    pub retained: u64,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// The file.
    pub file: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that are used.
    pub used: u64,
    /// Bytes among them that are damaged.
    pub damaged: u64,
    /// Records that can be read.
    pub records: u64,
}

/// A record and its place.
#[derive(Debug)]
pub struct Located<'a> {
    /// The segment.
    pub segment: SegmentId,
    /// Where its frame begins in the file.
    pub offset: u64,
    /// Bytes with the frame.
    pub len: u64,
    /// Its kind.
    pub kind: Kind,
    /// What it says; `None` if it cannot be understood.
    pub entry: Option<Entry<'a>>,
}

/// Reads everything and says what there is.
///
/// # Errors
/// There is no store, a file cannot be read, or it is of another version.
pub fn check(path: &Path) -> Result<Checked, StoreError> {
    let (mut records, mut tries) = (BTreeMap::<SegmentId, u64>::new(), 0);
    let (survey, held_by) = loop {
        records.clear();
        let (survey, held_by) = read(path, |located| *records.entry(located.segment).or_default() += 1)?;
        tries += 1;
        if !survey.vanished || tries == TRIES {
            break (survey, held_by);
        }
    };
    let segments = survey.segments.iter().map(|segment| Segment {
        id: segment.id,
        file: path.join(file_name(segment.id)),
        bytes: segment.len,
        used: segment.layout.end,
        damaged: segment.layout.holes.iter().map(|hole| hole.len).sum(),
        records: records.get(&segment.id).copied().unwrap_or(0),
    });
    let segments = segments.collect();
    let mut report = survey.report;
    let outcome = survey.replay.finish();
    report.lost_messages = outcome.lost_messages;
    report.replaced_sessions = outcome.replaced_sessions;
    let sum = |count: fn(&crate::replay::Session) -> usize| outcome.sessions.iter().map(count).sum::<usize>() as u64;
    Ok(Checked {
        held_by,
        segments,
        report,
        sessions: outcome.sessions.len() as u64,
        waiting: sum(|session| session.waiting.len()),
        inflight: sum(|session| session.inflight.len()),
        messages: outcome.messages.len() as u64,
        retained: outcome.retained.len() as u64,
    })
}

/// Gives every record that can be read to `visit`, in the log's order; what could not be read.
///
/// # Errors
/// As [`check`].
pub fn dump(path: &Path, visit: impl FnMut(Located<'_>)) -> Result<Report, StoreError> {
    Ok(read(path, visit)?.0.report)
}

/// Gives every record of one segment, which has these bytes and nothing before or behind it, to `visit`; where it ends. `None`
/// if it has no header.
pub fn segment(bytes: &[u8], mut visit: impl FnMut(Located<'_>)) -> Option<u64> {
    let header = Header::decode(bytes).ok()?;
    let framing = Framing::new(header.identity);
    let layout = scan::layout(bytes, &framing, None);
    for found in scan::frames(bytes, &framing, layout.end) {
        visit(Located::new(header.segment, &found));
    }
    Some(layout.end)
}

impl<'a> Located<'a> {
    fn new(segment: SegmentId, found: &Found<'a>) -> Self {
        Self {
            segment,
            offset: found.offset,
            len: (FRAME_HEADER + found.record.len()) as u64,
            kind: found.kind,
            entry: found.entry().ok(),
        }
    }
}

fn read(path: &Path, mut visit: impl FnMut(Located<'_>)) -> Result<(Survey, Option<String>), StoreError> {
    let missing = || StoreError::Missing { path: path.to_owned() };
    let disk = Directory::read_only(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => missing(),
        _ => StoreError::File { what: "open", file: path.to_owned(), source },
    })?;
    let held_by = held_by(path).map_err(|source| StoreError::File { what: "read", file: path.to_owned(), source })?;
    let survey = survey(&disk, path, |segment, found| {
        visit(Located::new(segment, found));
    })?;
    if survey.segments.is_empty() && held_by.is_none() {
        return Err(missing());
    }
    Ok((survey, held_by))
}
