//! A disk in memory that records everything, can be cut off at any point, and fails on demand.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, DiskFile, Entry};
use crate::header::base_of_name;
use crate::log::lock;

/// One call that changes the disk.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Create(usize, String),
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Sync(usize),
    Rename(String, String),
    Remove(String),
    SyncDirectory,
    /// Something the test wants to remember at this point.
    Note(Note),
}

/// What was promised at a point of a run.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// A frame was appended: its number.
    Appended(u64),
    /// Frames below this number were called durable.
    Durable(u64),
    /// A checkpoint is about to say that frames below this number are settled.
    Settling(u64),
}

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) names: BTreeMap<String, usize>,
    pub(super) files: BTreeMap<usize, Vec<u8>>,
    next: usize,
}

/// What fails.
#[derive(Debug, Default, Clone)]
pub(super) struct Faults {
    /// Bytes that can still be written; then the disk is full.
    pub(super) room: Option<u64>,
    /// Writes fail with an I/O error after half of their bytes.
    pub(super) write: bool,
    half: bool,
    pub(super) set_len: bool,
    pub(super) sync: bool,
    pub(super) sync_directory: bool,
    /// Reads that touch these bytes of a file fail.
    pub(super) read: Option<(String, u64, u64)>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    calls: Vec<Call>,
    faults: Faults,
}

#[derive(Debug, Clone, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    number: usize,
}

impl MemoryDisk {
    pub(super) fn of(state: State) -> Self {
        let (disk, mut state) = (Self::default(), state);
        // Files whose names were lost keep their numbers.
        state.next = state.files.keys().max().map_or(0, |last| last + 1);
        lock(&disk.0).state = state;
        disk
    }

    pub(super) fn state(&self) -> State {
        lock(&self.0).state.clone()
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        lock(&self.0).calls.clone()
    }

    pub(super) fn note(&self, note: Note) {
        lock(&self.0).calls.push(Call::Note(note));
    }

    pub(super) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.0).faults);
    }

    fn change(&self, call: Call) {
        let mut inner = lock(&self.0);
        inner.state.apply(&call);
        inner.calls.push(call);
    }

    fn number(&self, name: &str) -> io::Result<usize> {
        lock(&self.0).state.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl State {
    pub(super) fn apply(&mut self, call: &Call) {
        match call {
            Call::Create(file, name) => {
                self.names.insert(name.clone(), *file);
                self.files.entry(*file).or_default();
                self.next = self.next.max(file + 1);
            }
            Call::Write(file, offset, bytes) => {
                let content = self.files.entry(*file).or_default();
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(bytes);
            }
            Call::SetLen(file, len) => self.files.entry(*file).or_default().resize(*len as usize, 0),
            Call::Rename(from, to) => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Call::Remove(name) => {
                self.names.remove(name);
            }
            Call::Sync(_) | Call::SyncDirectory | Call::Note(_) => {}
        }
    }

    pub(super) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        let number = self.names[name];
        self.files.entry(number).or_default()
    }

    pub(super) fn segments(&self) -> Vec<String> {
        self.names.keys().filter(|name| base_of_name(name).is_some()).cloned().collect()
    }

    pub(super) fn add(&mut self, name: &str, content: Vec<u8>) {
        let number = self.files.keys().max().map_or(0, |last| last + 1);
        self.names.insert(name.into(), number);
        self.files.insert(number, content);
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let inner = lock(&self.0);
        Ok(inner
            .state
            .names
            .keys()
            .map(|name| Entry { name: name.clone(), is_file: !name.ends_with('/') })
            .collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = {
            let inner = lock(&self.0);
            if inner.state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.state.next
        };
        self.change(Call::Create(number, name.into()));
        Ok(Arc::new(MemoryFile { disk: self.clone(), number }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(MemoryFile { disk: self.clone(), number: self.number(name)? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.number(from)?;
        self.change(Call::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let number = self.number(name)?;
        let mut inner = lock(&self.0);
        let freed = inner.state.files.get(&number).map_or(0, Vec::len) as u64;
        if let Some(room) = &mut inner.faults.room {
            *room += freed;
        }
        drop(inner);
        self.change(Call::Remove(name.into()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        if lock(&self.0).faults.sync_directory {
            return Err(io::Error::other("no sync of the directory"));
        }
        self.change(Call::SyncDirectory);
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let refused = {
            let mut inner = lock(&self.disk.0);
            if inner.faults.write {
                // Half of it gets there first.
                inner.faults.half = !inner.faults.half;
                if !inner.faults.half {
                    return Err(io::Error::other("no write"));
                }
                let half = bytes.len().div_ceil(2);
                bytes.truncate(half);
                false
            } else if let Some(room) = &mut inner.faults.room {
                let fits = (*room).min(bytes.len() as u64);
                *room -= fits;
                bytes.truncate(fits as usize);
                bytes.is_empty()
            } else {
                false
            }
        };
        if refused {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = bytes.len();
        self.disk.change(Call::Write(self.number, offset, bytes));
        Ok(len)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = lock(&self.disk.0);
        if let Some((name, from, to)) = &inner.faults.read {
            let hit = inner.state.names.get(name) == Some(&self.number);
            if hit && offset < *to && *from < offset + bytes.len() as u64 {
                return Err(io::Error::other("no read"));
            }
        }
        let content = inner.state.files.get(&self.number).map_or(&[][..], Vec::as_slice);
        let rest = content.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if lock(&self.disk.0).faults.set_len {
            return Err(io::Error::other("no change of length"));
        }
        self.disk.change(Call::SetLen(self.number, len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if lock(&self.disk.0).faults.sync {
            return Err(io::Error::other("no sync"));
        }
        self.disk.change(Call::Sync(self.number));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.0).state.files.get(&self.number).map_or(0, Vec::len) as u64)
    }
}
