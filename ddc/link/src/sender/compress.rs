//! Compression of batches, and the guess how much fits a block before it is compressed.
//!
//! A batch is closed when it *will* fill a block once compressed. So that nothing is compressed
//! twice, the packer guesses the ratio from the batches before ([`FillEstimate`]); a guess that was
//! too bold is mended by splitting, which is rare.

use std::fmt;

use ddc_wire::Codec;
use lz4_flex::block::CompressTable;
use zstd::bulk::Compressor as ZstdCompressor;

/// How batches are compressed. Whatever it is, a batch that does not get smaller travels plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 blocks: little CPU.
    Lz4,
    /// Zstandard with this level (1 is the usual one).
    Zstd(i32),
}

/// Below this many bytes no codec gains anything.
const MIN_COMPRESSIBLE: usize = 64;
/// Less than a 64th saved is not worth the work at both ends.
const MIN_GAIN_SHIFT: usize = 6;
/// After so many batches in a row without gain only every [`PROBE_EVERY`]th is tried.
const GIVE_UP_AFTER: u32 = 8;
const PROBE_EVERY: u32 = 16;

/// Compresses one batch at a time into a buffer that it keeps.
pub(crate) struct Compressor {
    codec: CodecState,
    out: Vec<u8>,
    without_gain: u32,
}

enum CodecState {
    None,
    Lz4(CompressTable),
    Zstd(ZstdCompressor<'static>),
}

impl Compressor {
    /// Fails only when zstd refuses the level or has no memory.
    pub(crate) fn new(compression: Compression) -> std::io::Result<Self> {
        let codec = match compression {
            Compression::None => CodecState::None,
            Compression::Lz4 => CodecState::Lz4(CompressTable::large()),
            Compression::Zstd(level) => CodecState::Zstd(ZstdCompressor::new(level)?),
        };
        Ok(Self { codec, out: Vec::new(), without_gain: 0 })
    }

    /// The batch as it travels: compressed, or `raw` itself when that is not smaller.
    pub(crate) fn compress<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        if raw.len() < MIN_COMPRESSIBLE || !self.worth_a_try() {
            return (Codec::None, raw);
        }
        let (codec, len) = match &mut self.codec {
            CodecState::None => return (Codec::None, raw),
            CodecState::Lz4(table) => {
                let bound = lz4_flex::block::get_maximum_output_size(raw.len());
                grow(&mut self.out, bound);
                (Codec::Lz4, lz4_flex::block::compress_into_with_table(raw, &mut self.out, table).ok())
            }
            CodecState::Zstd(context) => {
                grow(&mut self.out, zstd::zstd_safe::compress_bound(raw.len()));
                (Codec::Zstd, context.compress_to_buffer(raw, &mut self.out[..]).ok())
            }
        };
        // The buffer has the codec's own bound, so that it fails for lack of memory at most; the
        // batch then travels plain, which is always right.
        if let Some(len) = len.filter(|len| *len < raw.len() - (raw.len() >> MIN_GAIN_SHIFT)) {
            self.without_gain = 0;
            return (codec, &self.out[..len]);
        }
        self.without_gain = self.without_gain.saturating_add(1);
        (Codec::None, raw)
    }

    /// Gives memory back after a batch far larger than usual.
    pub(crate) fn trim(&mut self, usual_raw: usize) {
        if self.out.len() > 4 * usual_raw {
            self.out = Vec::new();
        }
    }

    fn worth_a_try(&mut self) -> bool {
        if self.without_gain < GIVE_UP_AFTER {
            return true;
        }
        let probe = (self.without_gain - GIVE_UP_AFTER) % PROBE_EVERY == PROBE_EVERY - 1;
        if !probe {
            self.without_gain = self.without_gain.wrapping_add(1).max(GIVE_UP_AFTER);
        }
        probe
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor(…)")
    }
}

fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// How many bytes before compression will fill a block: mean ratio and mean deviation of what
/// came before, as TCP estimates its round trip (RFC 6298).
#[derive(Debug, Clone)]
pub(crate) struct FillEstimate {
    /// Bytes of a block behind the prelude.
    capacity: usize,
    max_raw: usize,
    ratio: f64,
    deviation: f64,
    target: usize,
}

/// A batch is never larger than this before compression, unless one record is.
const MAX_RAW: usize = 1 << 20;
/// A batch is never larger than so many blocks before compression, unless one record is.
const MAX_RAW_BLOCKS: usize = 8;

impl FillEstimate {
    pub(crate) fn new(capacity: usize) -> Self {
        let max_raw = (MAX_RAW_BLOCKS * capacity).min(MAX_RAW).max(capacity);
        Self { capacity, max_raw, ratio: 1.0, deviation: 0.0, target: capacity }
    }

    /// Close a batch before it is larger than this. Between one block and [`Self::max_raw`].
    pub(crate) fn target(&self) -> usize {
        self.target
    }

    /// No batch of more than one record is larger than this before compression.
    pub(crate) fn max_raw(&self) -> usize {
        self.max_raw
    }

    /// Learns from a batch. Small ones compress worse and are passed over.
    pub(crate) fn observe(&mut self, raw: usize, compressed: usize) {
        const GAIN: f64 = 0.125;
        if raw < self.capacity / 2 {
            return;
        }
        let sample = (compressed as f64 / raw as f64).min(1.0);
        let error = (sample - self.ratio).abs();
        if self.ratio >= 1.0 && self.deviation == 0.0 {
            // The first batch that says anything, and the first after incompressible ones.
            (self.ratio, self.deviation) = (sample, (1.0 - sample) / 16.0);
        } else {
            self.ratio += GAIN * (sample - self.ratio);
            self.deviation += GAIN * (error - self.deviation);
        }
        // Four mean deviations and 1/256 keep an overflow, which costs a second compression, rare.
        let planned = self.ratio + 4.0 * self.deviation + 1.0 / 256.0;
        self.target = ((self.capacity as f64 / planned) as usize).clamp(self.capacity, self.max_raw);
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn plain_when_not_smaller_and_back_when_it_is() {
        let mut noise = vec![0; 4096];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
        let text = b"the same again and again, ".repeat(100);
        for compression in [Compression::Lz4, Compression::Zstd(1)] {
            let mut compressor = Compressor::new(compression).unwrap();
            for _ in 0..100 {
                let (codec, bytes) = compressor.compress(&noise);
                assert!(codec == Codec::None && bytes == noise);
            }
            let tries = (0..=PROBE_EVERY).take_while(|_| compressor.compress(&text).0 == Codec::None).count();
            assert!(tries < PROBE_EVERY as usize, "{tries} batches plain");
            let (codec, bytes) = compressor.compress(&text);
            let back = match codec {
                Codec::Lz4 => lz4_flex::block::decompress(bytes, text.len()).unwrap(),
                Codec::Zstd => zstd::bulk::decompress(bytes, text.len()).unwrap(),
                Codec::None => panic!("text compresses"),
            };
            assert!(back == text);
        }
    }

    #[test]
    fn the_estimate_stays_in_its_bounds_and_settles() {
        let mut fill = FillEstimate::new(90_000);
        assert_eq!(fill.target(), 90_000);
        for _ in 0..100 {
            let raw = fill.target();
            fill.observe(raw, raw / 4);
        }
        assert!((340_000..=360_000).contains(&fill.target()), "{}", fill.target());
        for _ in 0..100 {
            fill.observe(fill.target(), 100);
        }
        assert_eq!(fill.target(), fill.max_raw());
        for _ in 0..200 {
            fill.observe(fill.target(), fill.target() * 2);
        }
        assert_eq!(fill.target(), 90_000);
        assert!(FillEstimate::new(1000).max_raw() == 8000 && FillEstimate::new(2 << 20).max_raw() == 2 << 20);
    }
}
