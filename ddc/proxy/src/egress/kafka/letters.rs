//! What becomes of records that the destination refuses for ever: dead letters, where they are wanted.
//!
//! A letter to a topic belongs to the transaction that steps over its record, and goes with nothing beside it, so that what its
//! topic says is said of it. A letter to a directory is fsynced before the commit. When the transaction is taken back, the record is
//! judged again: what is in the directory already is not written twice.

use std::collections::BTreeMap;
use std::io;

use ddc_telemetry::reasons::DeadLetterFailure;
use ddc_wire::{ChunkHeader, Record};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::isolation::Name;
use crate::config::OnFailure;
use crate::dead_letters::{DeadLetters, Letter, Next, Refusal, failure_of, failure_of_store};

/// See the module's text. Bounded by the records of one plan.
#[derive(Debug, Default)]
pub(super) struct Letters {
    kept: Option<DeadLetters>,
    states: BTreeMap<Name, State>,
    /// Something was appended and not fsynced.
    is_dirty: bool,
    /// The letter that is on its way, alone.
    on_its_way: Option<(Name, Letter)>,
}

#[derive(Debug, Default)]
struct State {
    attempts: u32,
    without_payload: bool,
    is_gap: bool,
    in_directory: bool,
}

/// What to do about a refused record.
#[derive(Debug)]
pub(super) enum Fate {
    /// It becomes a missing range.
    Gap,
    /// It is in the directory.
    Kept,
    /// The letter is to be produced into this topic; then [`Letters::answered`].
    Produce(String),
    /// It cannot be kept, and `on_failure = "wait"`: the attempt is over. Why.
    Wait(DeadLetterFailure, String),
    /// It cannot be kept: it becomes a missing range. Why.
    NotKept(DeadLetterFailure, String),
}

impl Letters {
    pub(super) fn new(kept: Option<DeadLetters>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Decides about a record.
    pub(super) fn refused(
        &mut self,
        name: Name,
        record: &Record<'_>,
        header: &ChunkHeader<'_>,
        refusal: Refusal<'_>,
    ) -> Fate {
        let Some(kept) = &mut self.kept else { return Fate::Gap };
        let state = self.states.entry(name).or_default();
        if state.is_gap {
            return Fate::Gap;
        }
        if state.in_directory {
            return Fate::Kept;
        }
        let letter = kept.letter(record, header, refusal);
        let letter = match letter.without_payload() {
            Some(shorter) if state.without_payload => shorter,
            _ => letter,
        };
        if let Some(topic) = kept.topic() {
            let topic = topic.to_owned();
            self.on_its_way = Some((name, letter));
            return Fate::Produce(topic);
        }
        match kept.append(&letter) {
            Ok(()) => {
                (state.in_directory, self.is_dirty) = (true, true);
                Fate::Kept
            }
            Err(error) => {
                let (why, text) = (failure_of_store(&error), error.to_string());
                match kept.on_failure() {
                    OnFailure::Wait => Fate::Wait(why, text),
                    OnFailure::Gap => {
                        state.is_gap = true;
                        Fate::NotKept(why, text)
                    }
                }
            }
        }
    }

    /// The letter to produce.
    pub(super) fn letter(&self) -> Option<&Letter> {
        self.on_its_way.as_ref().map(|(_, letter)| letter)
    }

    /// What the topic said of the letter. An error: the attempt is over, and what to count.
    pub(super) fn answered(&mut self, answer: Result<(), Code>) -> Result<(), DeadLetterFailure> {
        let Some((name, letter)) = self.on_its_way.take() else { return Ok(()) };
        let (Err(code), Some(kept)) = (answer, &self.kept) else { return Ok(()) };
        let state = self.states.entry(name).or_default();
        state.attempts += 1;
        match kept.after(&letter, code, state.attempts) {
            Next::Again => {}
            Next::Instead(_) => (state.without_payload, state.attempts) = (true, 0),
            Next::Gap => state.is_gap = true,
        }
        Err(failure_of(code))
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(kept) = self.kept.as_mut().filter(|_| self.is_dirty) else { return Ok(()) };
        kept.sync()?;
        self.is_dirty = false;
        Ok(())
    }

    /// Bytes in the directory.
    pub(super) fn bytes(&mut self) -> Option<u64> {
        self.kept.as_mut().and_then(DeadLetters::bytes)
    }

    /// The transaction is committed: none of its records comes again.
    pub(super) fn clear(&mut self) {
        self.states.clear();
    }
}
