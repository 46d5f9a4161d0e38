//! Which files there are, whether there may be another one, and the reserve.
//!
//! Two files of a segment's size are kept in reserve. When the disk or `max_size` has no room for the next segment they become
//! segments: what came before is still written, acknowledgements above all, and a checkpoint can free what is dead.
//!
//! A start needs a segment of its own before it can free anything. So it has its reserve whatever `max_size` says. What goes is
//! the reserve's first, also above `max_size` as far as there was as much before; messages are refused until there is room for
//! another segment within `max_size`. A checkpoint that has used up the reserve and could not end, and so not free what it
//! moves, goes beyond `max_size` too.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, File, is_full};
use crate::position::SegmentId;
use crate::segment::file_name;

/// Segments in reserve: one to write to, one for what a checkpoint moves.
const RESERVE: usize = 2;

/// The store's room.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    segment_size: u64,
    max_size: u64,
    /// Bytes of each segment's file.
    segments: BTreeMap<SegmentId, u64>,
    reserve: Vec<(String, Box<dyn File>)>,
    /// Bytes of the segments and the reserve that were there before, so that there may be as many again: less and less, down
    /// to `max_size`.
    granted: u64,
    /// The last segment that was asked for would have been beyond `max_size`, and there is no reserve.
    is_stuck: bool,
}

/// A new segment's file.
#[derive(Debug)]
pub(crate) struct Made {
    /// The file.
    pub(crate) file: Box<dyn File>,
    /// It comes out of the reserve: there is no room.
    pub(crate) from_reserve: bool,
}

impl Space {
    /// The room of a store with these segments. What an earlier process left in reserve is given back first.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segment_size: u64,
        max_size: u64,
        segments: BTreeMap<SegmentId, u64>,
    ) -> io::Result<Self> {
        for (name, _) in disk.list()? {
            if (0..RESERVE).any(|index| name == reserve_name(index)) {
                disk.remove(&name)?;
            }
        }
        let mut space =
            Self { disk, segment_size, max_size, segments, reserve: Vec::new(), granted: 0, is_stuck: false };
        space.granted = space.bytes() + space.whole_reserve();
        Ok(space)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// The segments with their bytes, oldest first.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (SegmentId, u64)> + '_ {
        self.segments.iter().map(|(segment, len)| (*segment, *len))
    }

    /// How many segments there are.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether nothing can be written because of `max_size` until a checkpoint begins.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Makes the file of `segment`, which begins with `header`. It and its name are on the disk afterwards. `moves`: a
    /// checkpoint is under way.
    pub(crate) fn make(&mut self, segment: SegmentId, header: &[u8], moves: bool) -> io::Result<Made> {
        let name = file_name(segment);
        let is_allowed = self.bytes() + self.segment_size + self.whole_reserve() <= self.max_size;
        self.is_stuck = !is_allowed && !moves && self.reserve.is_empty();
        let made = if is_allowed || moves && self.reserve.is_empty() {
            self.allocated(&name).map(|file| Made { file, from_reserve: false })
        } else {
            Err(io::ErrorKind::StorageFull.into())
        };
        let made = match made {
            Err(error) if is_full(&error) => {
                let Some((reserve, file)) = self.reserve.pop() else { return Err(error) };
                if let Err(error) = self.disk.rename(&reserve, &name) {
                    self.reserve.push((reserve, file));
                    return Err(error);
                }
                Made { file, from_reserve: true }
            }
            made => made?,
        };
        let begun = made.file.write(header, 0).and_then(|()| made.file.sync()).and_then(|()| self.disk.sync_names());
        if let Err(error) = begun {
            // Tried again later, with a file that nothing is known of to be wrong.
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        self.segments.insert(segment, self.segment_size);
        Ok(made)
    }

    /// The segment's file has that many bytes now.
    pub(crate) fn resized(&mut self, segment: SegmentId, len: u64) {
        self.segments.insert(segment, len);
    }

    /// Removes the oldest segment if it comes before `before`; whether it did. Its name is gone from the disk before the
    /// next one's goes, so that after a power failure an old record is not there without those that followed it.
    pub(crate) fn remove_oldest(&mut self, before: SegmentId) -> io::Result<bool> {
        let Some((&oldest, _)) = self.segments.first_key_value().filter(|(oldest, _)| **oldest < before) else {
            return Ok(false);
        };
        match self.disk.remove(&file_name(oldest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.sync_names()?;
        self.segments.remove(&oldest);
        Ok(true)
    }

    /// Gives a file of the reserve back to the disk, for what needs room in a file that is there; whether there was one.
    pub(crate) fn give_back(&mut self) -> bool {
        let Some((name, file)) = self.reserve.pop() else { return false };
        drop(file);
        self.disk.remove(&name).is_ok()
    }

    /// Fills the reserve as far as there is room for it; whether it is full and there is room for another segment.
    pub(crate) fn refill(&mut self) -> io::Result<bool> {
        self.granted = self.granted.min(self.bytes() + self.whole_reserve());
        let bound = self.max_size.max(self.granted);
        for index in 0..RESERVE {
            let name = reserve_name(index);
            if self.reserve.iter().any(|(held, _)| *held == name) {
                continue;
            }
            if self.bytes() + self.segment_size * (self.reserve.len() as u64 + 1) > bound {
                return Ok(false);
            }
            match self.reserved(&name) {
                Ok(file) => self.reserve.push((name, file)),
                Err(error) if is_full(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(self.bytes() + self.whole_reserve() + self.segment_size <= self.max_size)
    }

    /// Bytes of the reserve if none of it is in use.
    fn whole_reserve(&self) -> u64 {
        self.segment_size * RESERVE as u64
    }

    /// A new file for which there is room.
    fn allocated(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.created(name)?;
        match file.allocate(self.segment_size) {
            Ok(_) => Ok(file),
            Err(error) => self.not_made(name, error),
        }
    }

    /// A new file that takes its room even where the file system cannot promise it.
    fn reserved(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.created(name)?;
        let zeroes = vec![0; 1 << 16];
        let filled = file.allocate(self.segment_size).and_then(|allocated| {
            let mut at = if allocated { self.segment_size } else { 0 };
            while at < self.segment_size {
                let len = (self.segment_size - at).min(zeroes.len() as u64);
                file.write(&zeroes[..len as usize], at)?;
                at += len;
            }
            file.sync()
        });
        match filled {
            Ok(()) => Ok(file),
            Err(error) => self.not_made(name, error),
        }
    }

    fn created(&self, name: &str) -> io::Result<Box<dyn File>> {
        match self.disk.create(name) {
            // Left by an attempt that failed: there is nothing in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(name)?;
                self.disk.create(name)
            }
            created => created,
        }
    }

    fn not_made(&self, name: &str, error: io::Error) -> io::Result<Box<dyn File>> {
        let _ = self.disk.remove(name);
        Err(error)
    }
}

fn reserve_name(index: usize) -> String {
    format!("reserve-{index}")
}

#[cfg(test)]
mod tests;
