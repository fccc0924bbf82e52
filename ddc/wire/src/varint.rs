//! Unsigned LEB128 in its shortest form, zigzag for signed values, and a bounded reader.

/// Bytes that are not what the format says: where (the part being read) and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {problem}")]
pub struct Malformed {
    /// The part of the format that was being read.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Appends `value` in 1 to 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps small magnitudes of either sign to small numbers.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads from the front of a slice; every read is checked against what is left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn fail<T>(&self, problem: &'static str) -> Result<T, Malformed> {
        Err(Malformed { what: self.what, problem })
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return self.fail("ends too early");
        };
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return self.fail("ends too early");
        };
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// DDC-W-040: a number has exactly one encoding; longer ones and those over 64 bits are refused.
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for index in 0..10 {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return self.fail("ends too early");
            };
            self.rest = rest;
            if index == 9 && byte > 1 {
                return self.fail("has a number of more than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return self.fail("has a number that is not in its shortest form");
                }
                return Ok(value);
            }
        }
        self.fail("has a number of more than 64 bits")
    }

    /// A varint that must fit an `i64`, as Kafka's offsets do.
    pub(crate) fn offset(&mut self) -> Result<i64, Malformed> {
        match i64::try_from(self.varint()?) {
            Ok(offset) => Ok(offset),
            Err(_) => self.fail("has an offset of more than 63 bits"),
        }
    }

    /// A length or count of at most `max`.
    pub(crate) fn len(&mut self, max: usize) -> Result<usize, Malformed> {
        match usize::try_from(self.varint()?) {
            Ok(len) if len <= max => Ok(len),
            _ => self.fail("has a length or count over the limit"),
        }
    }

    /// A length, then as many bytes.
    pub(crate) fn counted_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.len(self.rest.len())?;
        self.bytes(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0u64, &[0u8][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(Reader::new(bytes, "test").varint(), Ok(value));
        }
    }

    /// DDC-W-040.
    #[test]
    fn overlong_and_overflowing_numbers_are_refused() {
        for bytes in [&[0x80u8, 0][..], &[0xff, 0x80, 0x00], &[0x80; 10], &[0xff; 9], &[]] {
            assert!(Reader::new(bytes, "test").varint().is_err(), "{bytes:?}");
        }
        let over = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(Reader::new(&over, "test").varint().is_err());
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut reader = Reader::new(&out, "test");
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }
}
