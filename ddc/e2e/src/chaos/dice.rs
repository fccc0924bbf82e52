//! Random numbers that depend on a seed only, the same on every machine and in every version.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough to choose faults by.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// `stream` tells apart what draws from the same seed.
    pub fn new(seed: u64, stream: u64) -> Dice {
        let mut dice = Dice(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        // Neighbouring seeds begin far from each other.
        dice.number();
        dice
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// `from` to `to`, both included, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    /// True in `share` of a million draws.
    pub fn hits(&mut self, share: u32) -> bool {
        self.below(1_000_000) < u64::from(share)
    }

    /// Another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
