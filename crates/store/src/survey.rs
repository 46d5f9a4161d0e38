//! Reading all segments, one after the other.

use std::path::Path;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::frame::Framing;
use crate::position::SegmentId;
use crate::recovery::{Damage, Loss, Report};
use crate::replay::{Place, Replay};
use crate::scan::{self, Found, Layout};
use crate::segment::{self, BadHeader, Header, file_name, of_file_name};

/// What the files say.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The store; `None` if there is none yet.
    pub(crate) identity: Option<[u8; 16]>,
    /// The segments, in order.
    pub(crate) segments: Vec<Surveyed>,
    /// Files that were made and not begun when the power failed: there is nothing in them.
    pub(crate) unborn: Vec<SegmentId>,
    /// A file went away meanwhile: what was alive in it may be in one that came after.
    pub(crate) vanished: bool,
    /// What the records say.
    pub(crate) replay: Replay,
    /// What could not be read.
    pub(crate) report: Report,
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Surveyed {
    /// Its number.
    pub(crate) id: SegmentId,
    /// Bytes of its file.
    pub(crate) len: u64,
    /// What is in it.
    pub(crate) layout: Layout,
}

/// Reads the segments of `disk`, which is at `path`, and gives each record to `visit` too. Changes nothing.
///
/// # Errors
/// A file cannot be read, or is of another version; no file has a header.
pub(crate) fn survey(
    disk: &dyn Disk,
    path: &Path,
    mut visit: impl FnMut(SegmentId, &Found<'_>),
) -> Result<Survey, StoreError> {
    let mut files = headers(disk, path)?;
    let identity = files.iter().find_map(|file| file.header.map(|header| header.identity));
    let framing = Framing::new(identity.unwrap_or_default());
    let unborn = unborn(disk, path, &mut files, identity.map(|_| &framing))?;
    if identity.is_none() && !files.is_empty() {
        return Err(StoreError::Unreadable { path: path.to_owned() });
    }
    let mut found = Survey {
        identity,
        segments: Vec::new(),
        unborn,
        vanished: false,
        replay: Replay::default(),
        report: Report::default(),
    };
    let mut bytes = Vec::new();
    for index in 0..files.len() {
        let Listed { id, header, .. } = files[index];
        if !read(disk, path, id, u64::MAX, &mut bytes)? {
            found.vanished = true;
            continue;
        }
        if let Some(header) = &header {
            found.replay.next_message = found.replay.next_message.max(header.next_message);
            found.replay.next_session = found.replay.next_session.max(header.next_session);
            found.replay.last_stamp = found.replay.last_stamp.max(header.last_stamp);
        }
        let known_end = files.get(index + 1).map(|next| match next.header {
            Some(header) if next.id == id.next() => header.previous_end,
            // It was cut to what is in it when the next one was begun.
            _ => bytes.len() as u64,
        });
        let layout = scan::layout(&bytes, &framing, known_end);
        let file = path.join(file_name(id));
        found.report.add(&file, &bytes, &layout, header.is_some());
        for frame in scan::frames(&bytes, &framing, layout.end) {
            visit(id, &frame);
            match frame.entry() {
                Ok(entry) => found.replay.apply(entry, Place { segment: id, offset: frame.offset }),
                Err(_) => found.report.damage.push(Damage {
                    file: file.clone(),
                    offset: frame.offset,
                    len: (crate::frame::HEADER + frame.record.len()) as u64,
                    lost: Loss::Record(frame.kind),
                }),
            }
        }
        found.report.missing(path, id, files.get(index + 1).map(|next| next.id));
        found.segments.push(Surveyed { id, len: bytes.len() as u64, layout });
    }
    found.report.records = found.replay.records;
    Ok(found)
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    id: SegmentId,
    header: Option<Header>,
}

fn headers(disk: &dyn Disk, path: &Path) -> Result<Vec<Listed>, StoreError> {
    let files = disk.list().map_err(|source| StoreError::File { what: "list", file: path.to_owned(), source })?;
    let mut ids: Vec<_> = files.iter().filter_map(|(name, _)| of_file_name(name)).collect();
    ids.sort_unstable();
    let mut listed = Vec::with_capacity(ids.len());
    let mut bytes = Vec::new();
    for id in ids {
        if !read(disk, path, id, segment::HEADER, &mut bytes)? {
            continue;
        }
        let header = match Header::decode(&bytes) {
            Ok(header) => Some(header).filter(|header| header.segment == id),
            Err(BadHeader::Unreadable) => None,
            Err(BadHeader::Version(version)) => {
                let file = path.join(file_name(id));
                return Err(StoreError::Version { file, version, known: segment::VERSION });
            }
        };
        listed.push(Listed { id, header });
    }
    Ok(listed)
}

/// Takes the files off the end that have neither a header nor a record.
fn unborn(
    disk: &dyn Disk,
    path: &Path,
    files: &mut Vec<Listed>,
    framing: Option<&Framing>,
) -> Result<Vec<SegmentId>, StoreError> {
    let mut unborn = Vec::new();
    let mut bytes = Vec::new();
    while let Some(last) = files.last().filter(|last| last.header.is_none()) {
        read(disk, path, last.id, u64::MAX, &mut bytes)?;
        let is_unborn = match framing {
            Some(framing) => scan::frames(&bytes, framing, bytes.len() as u64).next().is_none(),
            None => bytes.iter().all(|byte| *byte == 0),
        };
        if !is_unborn {
            break;
        }
        unborn.push(last.id);
        files.pop();
    }
    Ok(unborn)
}

/// False if the file is gone: a running broker deletes the oldest ones, after it has written again what was alive in them.
fn read(disk: &dyn Disk, path: &Path, id: SegmentId, len: u64, out: &mut Vec<u8>) -> Result<bool, StoreError> {
    let name = file_name(id);
    match disk.open(&name).and_then(|file| file.read(out, len)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            out.clear();
            Ok(false)
        }
        Err(source) => Err(StoreError::File { what: "read", file: path.join(name), source }),
    }
}

impl Report {
    fn add(&mut self, file: &Path, bytes: &[u8], layout: &Layout, has_header: bool) {
        self.segments += 1;
        self.bytes += bytes.len() as u64;
        if !has_header {
            let (offset, len, lost) = (0, segment::HEADER, Loss::Header);
            self.damage.push(Damage { file: file.to_owned(), offset, len, lost });
        }
        self.damage.extend(layout.holes.iter().map(|hole| Damage {
            file: file.to_owned(),
            offset: hole.offset,
            len: hole.len,
            lost: Loss::Records,
        }));
        if layout.torn > 0 {
            let (offset, len) = (layout.end, layout.torn);
            self.torn = Some(Damage { file: file.to_owned(), offset, len, lost: Loss::Records });
        }
    }

    /// Segments that should be between `id` and `next`.
    fn missing(&mut self, path: &Path, id: SegmentId, next: Option<SegmentId>) {
        let Some(next) = next else { return };
        // One entry for each would be as many as there are numbers.
        if next > id.next() {
            let file = path.join(file_name(id.next()));
            self.damage.push(Damage { file, offset: 0, len: 0, lost: Loss::File });
        }
    }
}
