//! The shape of a code, `k+r`, and the shape of its short blocks.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{MAX_REPAIRS, MAX_SOURCES};

/// How many repair symbols protect how many source symbols: "64+8" is k = 64, r = 8.
///
/// Always 1 ≤ k ≤ [`MAX_SOURCES`] and r ≤ [`MAX_REPAIRS`]; r = 0 means no protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    k: u8,
    r: u8,
}

/// A shape outside the limits of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// k is 0 or above [`MAX_SOURCES`].
    #[error("{0} source symbols per block cannot be coded; use 1 to {MAX_SOURCES}")]
    Sources(usize),
    /// r is above [`MAX_REPAIRS`].
    #[error("{0} repair symbols per block cannot be coded; use 0 to {MAX_REPAIRS}")]
    Repairs(usize),
}

/// A text that names no code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseCodeError {
    /// Not two decimal numbers joined by `+`.
    #[error("`{0}` is no code; write source and repair symbols per block as k+r, for example \"64+8\"")]
    Syntax(String),
    /// Two numbers, but outside the limits.
    #[error("code `{text}`: {source}")]
    Limits {
        /// The text as given.
        text: String,
        /// Which limit it breaks.
        source: CodeError,
    },
}

impl Code {
    /// 64+8, the default: 12.5 % more datagrams, any 8 of 72 may be lost.
    pub const DEFAULT: Self = Self { k: 64, r: 8 };
    /// 32+4: the default's overhead in half the block, for links that count microseconds.
    pub const LATENCY: Self = Self { k: 32, r: 4 };
    /// 64+16: for links that lose much.
    pub const LOSSY: Self = Self { k: 64, r: 16 };
    /// 128+16: the default's overhead, longer bursts survived, later repair.
    pub const EFFICIENT: Self = Self { k: 128, r: 16 };

    /// A code of `k` source and `r` repair symbols per full block.
    pub const fn new(k: usize, r: usize) -> Result<Self, CodeError> {
        if k == 0 || k > MAX_SOURCES {
            return Err(CodeError::Sources(k));
        }
        if r > MAX_REPAIRS {
            return Err(CodeError::Repairs(r));
        }
        Ok(Self { k: k as u8, r: r as u8 })
    }

    /// Source symbols per block, 1 to [`MAX_SOURCES`].
    pub const fn k(self) -> usize {
        self.k as usize
    }

    /// Repair symbols per block, 0 to [`MAX_REPAIRS`].
    pub const fn r(self) -> usize {
        self.r as usize
    }

    /// Symbols of both kinds per block.
    pub const fn symbols(self) -> usize {
        self.k() + self.r()
    }

    /// The code of a block that has only `k_short` source symbols.
    ///
    /// A short block needs more than its share: one lone symbol with r·1/k repairs would go unprotected. So
    /// r' = r when r ≤ 3, else min(r, 3 + ⌈k'·(r − 3) / k⌉): under 64+8 one symbol gets four repairs, a full
    /// block eight. A `k_short` outside 1..=k is moved to the nearer end.
    pub fn short(self, k_short: usize) -> Self {
        /// Repairs that a block of any length gets.
        const FLOOR: usize = 3;
        let k_short = k_short.clamp(1, self.k());
        let r_short = match self.r().checked_sub(FLOOR) {
            None | Some(0) => self.r(),
            Some(above) => self.r().min(FLOOR + (k_short * above).div_ceil(self.k())),
        };
        Self { k: k_short as u8, r: r_short as u8 }
    }
}

impl Default for Code {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.k, self.r)
    }
}

impl FromStr for Code {
    type Err = ParseCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || ParseCodeError::Syntax(text.to_owned());
        let (k, r) = text.split_once('+').ok_or_else(syntax)?;
        let number = |digits: &str| {
            // `usize::from_str` would take a sign: "64++8" must not pass.
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse::<usize>().map_err(|_| syntax()) } else { Err(syntax()) }
        };
        Self::new(number(k)?, number(r)?)
            .map_err(|source| ParseCodeError::Limits { text: text.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_within_the_limits_and_read_back() {
        for (code, text) in [
            (Code::DEFAULT, "64+8"),
            (Code::LATENCY, "32+4"),
            (Code::LOSSY, "64+16"),
            (Code::EFFICIENT, "128+16"),
        ] {
            assert_eq!(code.to_string(), text);
            assert_eq!(text.parse(), Ok(code));
            assert_eq!(Code::new(code.k(), code.r()), Ok(code));
        }
        assert_eq!(Code::default(), Code::DEFAULT);
    }

    #[test]
    fn limits_are_exact() {
        assert_eq!(Code::new(0, 4), Err(CodeError::Sources(0)));
        assert_eq!(Code::new(129, 4), Err(CodeError::Sources(129)));
        assert_eq!(Code::new(1, 128), Err(CodeError::Repairs(128)));
        assert_eq!(Code::new(256 + 64, 8), Err(CodeError::Sources(320)), "not cut down to a byte first");
        let largest = Code::new(128, 127).unwrap();
        assert_eq!((largest.k(), largest.r(), largest.symbols()), (128, 127, 255));
        assert_eq!(Code::new(1, 0).unwrap().to_string(), "1+0");
    }

    #[test]
    fn bad_texts_are_refused_with_a_way_out() {
        for text in [
            "",
            "64",
            "64+",
            "+8",
            "64++8",
            "64+-8",
            "64 + 8",
            "64+8+1",
            "a+b",
            "64/8",
            "99999999999999999999+1",
        ] {
            let error = text.parse::<Code>().unwrap_err();
            assert_eq!(error, ParseCodeError::Syntax(text.to_owned()));
            assert!(error.to_string().contains("for example \"64+8\""), "{error}");
        }
        assert_eq!(
            "64+128".parse::<Code>().unwrap_err().to_string(),
            "code `64+128`: 128 repair symbols per block cannot be coded; use 0 to 127"
        );
        assert_eq!(
            "0+8".parse::<Code>().unwrap_err().to_string(),
            "code `0+8`: 0 source symbols per block cannot be coded; use 1 to 128"
        );
    }

    #[test]
    fn short_blocks_get_more_than_their_share() {
        let repairs = |code: Code, k_short| code.short(k_short).r();
        assert_eq!(repairs(Code::DEFAULT, 1), 4);
        assert_eq!(repairs(Code::DEFAULT, 12), 4);
        assert_eq!(repairs(Code::DEFAULT, 13), 5);
        assert_eq!(repairs(Code::DEFAULT, 63), 8);
        assert_eq!(repairs(Code::LATENCY, 1), 4);
        assert_eq!(repairs(Code::new(64, 3).unwrap(), 1), 3);
        assert_eq!(repairs(Code::new(64, 2).unwrap(), 1), 2);
        assert_eq!(repairs(Code::new(64, 0).unwrap(), 1), 0);
    }

    /// For every code there is: never above r, never below min(r, 3), never shrinking as the block grows, r when full.
    #[test]
    fn short_blocks_of_every_code() {
        for k in 1..=MAX_SOURCES {
            for r in 0..=MAX_REPAIRS {
                let code = Code::new(k, r).unwrap();
                let mut last = 0;
                for k_short in 1..=k {
                    let short = code.short(k_short);
                    assert_eq!(short.k(), k_short);
                    assert!(short.r() >= r.min(3) && short.r() <= r && short.r() >= last);
                    assert!(short.r() * k >= r * k_short, "its share at the least");
                    last = short.r();
                }
                assert_eq!(last, r);
                assert_eq!(code.short(k), code);
                assert_eq!(code.short(k + 1), code);
                assert_eq!(code.short(0), code.short(1));
            }
        }
    }
}
