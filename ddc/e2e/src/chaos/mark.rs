//! What a chaos run writes: records of every shape, each of which says who it is and what it holds.
//!
//! The mark (life of the topic, partition, sequence in that partition, hash of all the rest) stands in a header, or is the
//! key, or begins the value: so there are records without headers, without a key, and tombstones. That the source
//! really has what was produced is judged by it; that the destination has what the source has, by comparing both.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::dice::Dice;
use crate::produce::{Sample, now_millis};
use crate::verify::HeaderList;

/// The header, and the first word of a key or value that is a mark.
const NAME: &str = "chaos";

/// Who a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// How many topics of this name were there before.
    pub life: u32,
    /// Where it was written.
    pub partition: i32,
    /// How many records were written there before it.
    pub sequence: u64,
}

/// The parts of a record.
type Parts<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, &'a [(String, Option<Vec<u8>>)], i64);

/// A record with this mark, of a shape and size that the dice choose.
pub fn sample(mark: Mark, dice: &mut Dice) -> Sample {
    let mut sample = Sample {
        key: match dice.below(4) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(bytes(dice, 40)),
        },
        value: match dice.below(10) {
            0 => None,
            1 => Some(Vec::new()),
            2..=6 => Some(bytes(dice, 200)),
            7 | 8 => Some(bytes(dice, 4_000)),
            _ if dice.below(20) == 0 => Some(bytes(dice, 100 << 10)),
            _ => Some(bytes(dice, 1_000)),
        },
        headers: (0..dice.below(4)).map(|number| header(number, dice)).collect(),
        // Not in order, as clocks of producers are not; not in the future, which brokers refuse.
        timestamp: now_millis() - dice.below(3_600_000) as i64,
    };
    match dice.below(8) {
        0 => {
            (sample.key, sample.headers) = (None, Vec::new());
            let hash = hash((None, sample.value.as_deref(), &[], sample.timestamp));
            sample.key = Some(text(mark, hash).into_bytes());
        }
        1 => {
            (sample.key, sample.headers) = (None, Vec::new());
            let rest = sample.value.take().unwrap_or_default();
            let hash = hash((None, Some(&rest), &[], sample.timestamp));
            sample.value = Some([text(mark, hash).as_bytes(), b"\n", &rest].concat());
        }
        _ => {
            let content =
                (sample.key.as_deref(), sample.value.as_deref(), &sample.headers[..], sample.timestamp);
            let mark = text(mark, hash(content)).into_bytes();
            let at = dice.below(sample.headers.len() as u64 + 1) as usize;
            sample.headers.insert(at, (NAME.to_owned(), Some(mark)));
        }
    }
    sample
}

/// Who a record says it is, and whether the rest of it is what was written under this mark.
pub fn read((key, value, headers, timestamp): Parts<'_>) -> Option<(Mark, bool)> {
    let (mark, claimed, found) = if let Some(at) = headers.iter().position(|(name, _)| name == NAME) {
        let mut rest: HeaderList = headers.to_vec();
        let (mark, claimed) = parse(&rest.remove(at).1?)?;
        (mark, claimed, hash((key, value, &rest, timestamp)))
    } else if let Some((mark, claimed)) = key.and_then(parse) {
        (mark, claimed, hash((None, value, headers, timestamp)))
    } else {
        let value = value?;
        let end = value.iter().position(|byte| *byte == b'\n')?;
        let (mark, claimed) = parse(&value[..end])?;
        (mark, claimed, hash((key, Some(&value[end + 1..]), headers, timestamp)))
    };
    Some((mark, claimed == found))
}

fn text(mark: Mark, hash: u64) -> String {
    format!("{NAME} {} {} {} {hash:016x}", mark.life, mark.partition, mark.sequence)
}

fn parse(text: &[u8]) -> Option<(Mark, u64)> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    (words.next()? == NAME).then_some(())?;
    let mark = Mark {
        life: words.next()?.parse().ok()?,
        partition: words.next()?.parse().ok()?,
        sequence: words.next()?.parse().ok()?,
    };
    Some((mark, u64::from_str_radix(words.next()?, 16).ok()?))
}

fn hash(parts: Parts<'_>) -> u64 {
    // Written and read by the same process: the hash need not be the same tomorrow.
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn header(number: u64, dice: &mut Dice) -> (String, Option<Vec<u8>>) {
    match dice.below(6) {
        0 => ("null".into(), None),
        1 => (String::new(), Some(Vec::new())),
        // Names that the egress uses itself: the record's own stay, and come first.
        2 => ("sourceOffset".into(), Some(b"not ours".to_vec())),
        3 => ("ddcLate".into(), Some(b"false".to_vec())),
        4 => ("twice".into(), Some(vec![number as u8])),
        _ => ("größe".into(), Some(bytes(dice, 100))),
    }
}

/// Up to `most` bytes; half of them compress, as records do.
fn bytes(dice: &mut Dice, most: u64) -> Vec<u8> {
    let length = dice.below(most + 1) as usize;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        let word = dice.number().to_le_bytes();
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(b"the same");
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sample: &Sample) -> Parts<'_> {
        (sample.key.as_deref(), sample.value.as_deref(), &sample.headers, sample.timestamp)
    }

    fn samples() -> Vec<(Mark, Sample)> {
        let mut dice = Dice::new(1, 4);
        let mark = |sequence| Mark { life: 2, partition: 3, sequence };
        (0..4000).map(|sequence| (mark(sequence), sample(mark(sequence), &mut dice))).collect()
    }

    #[test]
    fn every_shape_is_there_and_says_who_it_is() {
        let samples = samples();
        for (mark, sample) in &samples {
            assert_eq!(read(parts(sample)), Some((*mark, true)), "{sample:?}");
        }
        let has = |what: &str, found: &dyn Fn(&Sample) -> bool| {
            assert!(samples.iter().any(|(_, sample)| found(sample)), "{what}");
        };
        has("no key", &|sample| sample.key.is_none());
        has("an empty key", &|sample| sample.key.as_deref() == Some(&[]));
        has("a tombstone with a key", &|sample| sample.value.is_none() && sample.key.is_some());
        has("a null without a key", &|sample| sample.value.is_none() && sample.key.is_none());
        has("an empty value", &|sample| sample.value.as_deref() == Some(&[]));
        has("no headers", &|sample| sample.headers.is_empty());
        has("a null header", &|sample| sample.headers.iter().any(|(_, value)| value.is_none()));
        let size = |sample: &Sample| sample.value.as_ref().map_or(0, Vec::len);
        has("a large value", &|sample| size(sample) > 64 << 10);
        let all: usize = samples.iter().map(|(_, sample)| size(sample)).sum();
        assert!((200..2_000).contains(&(all / samples.len())), "{} on average", all / samples.len());
    }

    #[test]
    fn a_change_of_any_field_breaks_the_mark() {
        for (mark, sample) in samples().into_iter().take(500) {
            let changed = |change: &dyn Fn(&mut Sample)| {
                let mut other = sample.clone();
                change(&mut other);
                assert_ne!(read(parts(&other)), Some((mark, true)), "{sample:?} and {other:?}");
            };
            changed(&|sample| sample.timestamp += 1);
            changed(&|sample| sample.headers.push(("one".into(), None)));
            changed(&|sample| match &mut sample.value {
                Some(value) => value.push(0),
                none => *none = Some(vec![]),
            });
            changed(&|sample| match &mut sample.key {
                Some(key) => key.push(0),
                none => *none = Some(vec![]),
            });
        }
    }

    #[test]
    fn what_has_no_mark_has_none() {
        for value in [None, Some(&b""[..]), Some(b"chaos 1 2"), Some(b"chaos 1 2 3 x\n"), Some(b"\xff\n")] {
            assert_eq!(read((value, value, &[], 0)), None);
            assert_eq!(read((None, None, &[(NAME.into(), value.map(<[u8]>::to_vec))], 0)), None);
        }
    }
}
