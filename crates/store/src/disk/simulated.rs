//! A disk that loses what was not synced, in pieces and in any order, runs full and breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Disk, File};
use crate::store::open_on;
use crate::{Recovered, Settings, Store, StoreError, WallTime};

/// What reaches the disk at once: smaller than a sector of any disk, so worse than any.
const SECTOR: usize = 128;

/// A source of decisions that are the same each time.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The same decisions for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    /// True in one of `of` cases.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// The disk. A clone is the same disk.
#[derive(Debug, Clone, Default)]
pub struct Simulated(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changed_names: BTreeSet<String>,
    /// Bytes of all files at most.
    capacity: Option<u64>,
    /// Files can be given room before they are written.
    cannot_allocate: bool,
    /// The power fails before that many operations.
    power: Option<(u64, Chance)>,
    image: Option<Simulated>,
    operations: u64,
    sync_error: Option<io::ErrorKind>,
    sync_time: Duration,
    write_error: Option<io::ErrorKind>,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was written to each sector since the last sync, oldest first.
    unsynced: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

impl Simulated {
    /// Opens the store that is on it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_store(&self, settings: &Settings, now: WallTime) -> Result<(Arc<Store>, Recovered), StoreError> {
        open_on(settings, Arc::new(self.clone()), now)
    }

    /// The power fails before the operation after `operations` more: everything fails from then on.
    pub fn lose_power_after(&self, operations: u64, chance: Chance) {
        let mut state = self.0.lock();
        state.power = Some((state.operations + operations, chance));
    }

    /// What is on the disk when the power comes back: it fails now, if it has not failed yet.
    pub fn after_power_loss(&self, mut chance: Chance) -> Self {
        let mut state = self.0.lock();
        if state.image.is_none() {
            state.image = Some(state.image(&mut chance));
        }
        state.image.clone().unwrap_or_default()
    }

    /// Room for that many bytes, or any.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.0.lock().capacity = capacity;
    }

    /// As a file system that cannot give room before it is needed.
    pub fn cannot_allocate(&self) {
        self.0.lock().cannot_allocate = true;
    }

    /// Each sync fails that way; what was to be synced is lost, and the next read still has it.
    pub fn set_sync_error(&self, error: Option<io::ErrorKind>) {
        self.0.lock().sync_error = error;
    }

    /// Each sync takes that long.
    pub fn set_sync_time(&self, time: Duration) {
        self.0.lock().sync_time = time;
    }

    /// Each write fails that way.
    pub fn set_write_error(&self, error: Option<io::ErrorKind>) {
        self.0.lock().write_error = error;
    }

    /// Changes the bytes of a file.
    pub fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let index = state.names[name];
        let file = &mut state.files[index];
        change(&mut file.now);
        file.durable = file.now.clone();
        file.unsynced.clear();
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// The names that there are.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    fn operation<T>(&self, run: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        state.operations += 1;
        if state.image.is_none()
            && let Some((at, mut chance)) = state.power.clone()
            && state.operations > at
        {
            state.image = Some(state.image(&mut chance));
        }
        if state.image.is_some() {
            return Err(io::Error::other("the power has failed"));
        }
        run(&mut state)
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|index| self.files[*index].now.len() as u64).sum()
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// What a power failure leaves.
    fn image(&self, chance: &mut Chance) -> Simulated {
        let mut names = self.durable_names.clone();
        for name in &self.changed_names {
            if chance.one_in(2) {
                continue;
            }
            match self.names.get(name) {
                Some(file) => drop(names.insert(name.clone(), *file)),
                None => drop(names.remove(name)),
            }
        }
        let files = self.files.iter().map(|file| file.image(chance)).collect();
        let state = State { files, durable_names: names.clone(), names, ..Self::default() };
        Simulated(Arc::new(Mutex::new(state)))
    }

    fn file(&mut self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Contents {
    fn image(&self, chance: &mut Chance) -> Self {
        let (shorter, longer) = (self.durable.len().min(self.now.len()), self.durable.len().max(self.now.len()));
        let len = match chance.below(3) {
            0 => self.durable.len(),
            1 => self.now.len(),
            _ => shorter + chance.below(longer - shorter + 1),
        };
        let mut bytes = self.durable.clone();
        bytes.resize(longer, 0);
        for (sector, versions) in &self.unsynced {
            let version = chance.below(versions.len() + 1);
            if let Some(bytes_then) = version.checked_sub(1).and_then(|version| versions.get(version)) {
                let at = sector * SECTOR;
                let end = (at + SECTOR).min(bytes.len());
                if at < end {
                    bytes[at..end].copy_from_slice(&bytes_then[..end - at]);
                }
            }
        }
        bytes.truncate(len);
        Self { now: bytes.clone(), durable: bytes, unsynced: BTreeMap::new() }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let mut version = [0; SECTOR];
            let at = sector * SECTOR;
            let len = SECTOR.min(self.now.len() - at);
            version[..len].copy_from_slice(&self.now[at..at + len]);
            self.unsynced.entry(sector).or_default().push(version);
        }
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.operation(|state| {
            let len = |index: &usize| state.files[*index].now.len() as u64;
            Ok(state.names.iter().map(|(name, index)| (name.clone(), len(index))).collect())
        })
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.operation(|state| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.files.push(Contents::default());
            let index = state.files.len() - 1;
            state.names.insert(name.to_owned(), index);
            state.changed_names.insert(name.to_owned());
            Ok(Box::new(OpenFile { disk: self.clone(), index }) as Box<dyn File>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.operation(|state| Ok(Box::new(OpenFile { disk: self.clone(), index: state.file(name)? }) as Box<dyn File>))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operation(|state| {
            let index = state.file(from)?;
            state.names.remove(from);
            state.names.insert(to.to_owned(), index);
            state.changed_names.extend([from.to_owned(), to.to_owned()]);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operation(|state| {
            state.file(name)?;
            state.names.remove(name);
            state.changed_names.insert(name.to_owned());
            Ok(())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.operation(|state| {
            state.durable_names = state.names.clone();
            state.changed_names.clear();
            Ok(())
        })
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Simulated,
    index: usize,
}

impl File for OpenFile {
    fn read(&self, out: &mut Vec<u8>, len: u64) -> io::Result<()> {
        self.disk.operation(|state| {
            let bytes = &state.files[self.index].now;
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            out.clear();
            out.extend_from_slice(&bytes[..len]);
            Ok(())
        })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.operation(|state| {
            if let Some(error) = state.write_error {
                return Err(error.into());
            }
            let offset = offset as usize;
            let room = state.room();
            let file = &mut state.files[self.index];
            let more = (offset + bytes.len()).saturating_sub(file.now.len()) as u64;
            if more > room {
                let fits = bytes.len() - (more - room) as usize;
                file.write(&bytes[..fits], offset);
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.write(bytes, offset);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let time = self.disk.0.lock().sync_time;
        if !time.is_zero() {
            std::thread::park_timeout(time);
        }
        self.disk.operation(|state| {
            if let Some(error) = state.sync_error {
                state.files[self.index].unsynced.clear();
                return Err(error.into());
            }
            let file = &mut state.files[self.index];
            // What an earlier sync lost is not written by a later one: memory takes it for written.
            file.durable.resize(file.now.len(), 0);
            for (sector, versions) in std::mem::take(&mut file.unsynced) {
                let at = sector * SECTOR;
                let end = (at + SECTOR).min(file.durable.len());
                if let Some(version) = versions.last().filter(|_| at < end) {
                    file.durable[at..end].copy_from_slice(&version[..end - at]);
                }
            }
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.disk.operation(|state| {
            if state.cannot_allocate {
                return Ok(false);
            }
            let room = state.room();
            let file = &mut state.files[self.index];
            let more = len.saturating_sub(file.now.len() as u64);
            if more > room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if more > 0 {
                file.now.resize(len as usize, 0);
            }
            Ok(true)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operation(|state| {
            let file = &mut state.files[self.index];
            file.now.resize(len as usize, 0);
            Ok(())
        })
    }

    fn forget_cached(&self) {
        let _ = self.disk.operation(|state| {
            let file = &mut state.files[self.index];
            if file.unsynced.is_empty() {
                file.now = file.durable.clone();
            }
            Ok(())
        });
    }
}
