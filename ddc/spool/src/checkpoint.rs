//! The checkpoint: a small file that says up to where everything is settled, and what else must survive trimming.
//!
//! It is replaced as a whole: written beside its place, fsynced, renamed, and the directory fsynced. Segments are removed
//! only when the checkpoint on disk says that they are not needed, never before. A reserve of disk space is given up for it
//! when the disk is full: otherwise nothing could be trimmed just when room is wanted.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::Relaxed;

use crate::disk::{Disk, read_full_at, write_all_at};
use crate::error::{CheckpointError, is_full};
use crate::frame::{u32_at, u64_at};
use crate::header::{FORMAT_VERSION, MAX_POSITION, NoHeader, segment_name};
use crate::log::{Shared, lock};
use crate::sessions::Sessions;
use crate::stats::count;

/// The largest table of the caller, in bytes.
pub const MAX_TABLE: usize = 192 << 10;
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const BESIDE: &str = "checkpoint.new";
pub(crate) const RESERVE: &str = "reserve";
/// More than the largest checkpoint.
const RESERVE_BYTES: usize = 256 << 10;
const MAGIC: [u8; 8] = *b"DDCSCKPT";

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The lowest unsettled position.
    pub(crate) lowest: u64,
    /// The position of the next frame then.
    pub(crate) end: u64,
    /// The spool's own clock, in µs.
    pub(crate) clock_micros: u64,
    pub(crate) identity: Vec<u8>,
    pub(crate) sessions: Sessions,
    /// The caller's.
    pub(crate) table: Vec<u8>,
}

/// What is kept between two checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Checkpointing {
    /// The caller's table as of the last one.
    pub(crate) table: Vec<u8>,
    pub(crate) has_reserve: bool,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_be_bytes());
        bytes.extend([0; 4]);
        for number in [self.lowest, self.end, self.clock_micros] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend((self.identity.len() as u16).to_be_bytes());
        bytes.extend(&self.identity);
        self.sessions.encode(&mut bytes);
        bytes.extend((self.table.len() as u32).to_be_bytes());
        bytes.extend(&self.table);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let checked = bytes
            .split_last_chunk::<4>()
            .filter(|(content, check)| **check == crc32c::crc32c(content).to_be_bytes());
        let Some((content, _)) = checked.filter(|(content, _)| content.len() >= 44 && content[..8] == MAGIC)
        else {
            return Err(NoHeader::Damaged);
        };
        match u32_at(content, 8) {
            FORMAT_VERSION => Self::decode_fields(content).ok_or(NoHeader::Damaged),
            version => Err(NoHeader::Version(version)),
        }
    }

    fn decode_fields(content: &[u8]) -> Option<Self> {
        let identity_end = 42 + usize::from(u16::from_be_bytes([content[40], content[41]]));
        let identity = content.get(42..identity_end)?.to_vec();
        let (sessions, len) = Sessions::decode(&content[identity_end..])?;
        let table = content.get(identity_end + len..)?;
        let table_len = u32::from_be_bytes(*table.first_chunk::<4>()?) as usize;
        let checkpoint = Self {
            lowest: u64_at(content, 16),
            end: u64_at(content, 24),
            clock_micros: u64_at(content, 32),
            identity,
            sessions,
            table: table[4..].to_vec(),
        };
        let sound = checkpoint.table.len() == table_len && checkpoint.lowest <= checkpoint.end;
        (sound && checkpoint.end < MAX_POSITION).then_some(checkpoint)
    }

    /// Reads the file; `None` when there is none.
    pub(crate) fn read(disk: &dyn Disk) -> io::Result<Option<Result<Self, NoHeader>>> {
        let file = match disk.open(CHECKPOINT) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A longer one is none of ours: its checksum will not be where it is looked for.
        let mut bytes = vec![0; RESERVE_BYTES];
        let len = read_full_at(&*file, &mut bytes, 0)?;
        Ok(Some(Self::decode(&bytes[..len])))
    }
}

impl Shared {
    /// Replaces the checkpoint, then removes what it calls settled. Without a table the last one stays.
    pub(crate) fn checkpoint(&self, table: Option<&[u8]>) -> Result<u64, CheckpointError> {
        let mut state = lock(&self.checkpointing);
        if let Some(table) = table {
            if table.len() > MAX_TABLE {
                return Err(CheckpointError::TooLarge { bytes: table.len(), limit: MAX_TABLE });
            }
            state.table = table.to_vec();
        }
        let checkpoint = {
            let log = self.log();
            Checkpoint {
                lowest: log.settled.lowest(),
                end: log.end,
                clock_micros: self.clock.now().as_micros() as u64,
                identity: self.options.identity.clone(),
                sessions: log.sessions.clone(),
                table: state.table.clone(),
            }
        };
        let written = self.replace_checkpoint(&checkpoint.encode(), &mut state);
        self.log().checkpoint_error = written.as_ref().err().map(ToString::to_string);
        if let Err(error) = written {
            count(&self.counters.checkpoint_errors);
            return Err(error.into());
        }
        self.trim_below(checkpoint.lowest);
        if !state.has_reserve {
            // Without it a full disk is not survived as well; that is no reason to fail. It is tried again next time.
            state.has_reserve = self.make_reserve().is_ok();
        }
        Ok(checkpoint.lowest)
    }

    fn replace_checkpoint(&self, bytes: &[u8], state: &mut Checkpointing) -> io::Result<()> {
        let result = self.replace_once(bytes);
        match result {
            Err(error) if is_full(&error) => {
                state.has_reserve = false;
                self.disk.remove(RESERVE).map_err(|_| error)?;
                self.replace_once(bytes)
            }
            result => result,
        }
    }

    fn replace_once(&self, bytes: &[u8]) -> io::Result<()> {
        // Left by an attempt that failed.
        match self.disk.remove(BESIDE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(BESIDE)?;
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)?;
        file.sync_data()?;
        self.disk.rename(BESIDE, CHECKPOINT)?;
        self.disk.sync_directory()
    }

    fn make_reserve(&self) -> io::Result<()> {
        let file = match self.disk.create(RESERVE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        };
        // Written, not only announced: some file systems give no blocks for less.
        let written = write_all_at(&*file, &mut [IoSlice::new(&vec![0; RESERVE_BYTES])], 0);
        if written.is_err() {
            self.disk.remove(RESERVE)?;
        }
        written
    }

    /// Removes closed segments that end at or below a position that the checkpoint on disk calls settled.
    fn trim_below(&self, lowest: u64) {
        let mut gone = Vec::new();
        {
            let mut log = self.log();
            while log.segments.front().is_some_and(|first| first.sealed && first.end <= lowest) {
                let Some(segment) = log.segments.pop_front() else { break };
                log.bytes -= segment.file_bytes();
                log.unsynced.retain(|unsynced| unsynced.base != segment.place.base);
                gone.push(segment);
            }
            log.doubtful.retain(|span| span.end > lowest);
            log.room_made |= !gone.is_empty();
        }
        for segment in gone {
            match self.disk.remove(&segment_name(segment.place.base)) {
                Ok(()) => {
                    count(&self.counters.trimmed_segments);
                    self.counters.trimmed_bytes.fetch_add(segment.file_bytes(), Relaxed);
                }
                // It is found, and removed, at the next start.
                Err(_) => count(&self.counters.remove_errors),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let mut sessions = Sessions::default();
        sessions.raise([1; 12], 2);
        let checkpoint = Checkpoint {
            lowest: 3,
            end: 4,
            clock_micros: 5,
            identity: b"id".to_vec(),
            sessions,
            table: b"table".to_vec(),
        };
        let good = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&good), Ok(checkpoint));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            assert_eq!(Checkpoint::decode(&bytes), Err(NoHeader::Damaged), "byte {at}");
            assert_eq!(Checkpoint::decode(&good[..at]), Err(NoHeader::Damaged), "length {at}");
        }
        let mut newer = good[..good.len() - 4].to_vec();
        newer[11] = 9;
        newer.extend(crc32c::crc32c(&newer).to_be_bytes());
        assert_eq!(Checkpoint::decode(&newer), Err(NoHeader::Version(9)));
    }
}
