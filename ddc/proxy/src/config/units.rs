//! Quantities as people write them: `"5ms"`, `"800Mbit/s"`, `"64MiB"`.
//!
//! Each type is made from text once, here, and written back by `Display` so that it can be read again without
//! loss. Errors quote the input and show an example. Nothing here knows of files or keys.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// A value that could not be read; the text quotes what was written and shows what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    /// Wraps a complete sentence part such as `"x" is no rate; for example "800Mbit/s"`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn not(input: &str, what: &str, examples: &str) -> Self {
        Self(format!("{input:?} is no {what}; for example {examples}"))
    }
}

/// Bits per second on the wire, Ethernet framing included. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(NonZeroU64);

/// Units of [`BitRate`], largest first: `Display` takes the first in which the number is short.
const RATE_UNITS: [(&str, u64); 4] =
    [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

impl BitRate {
    /// The slowest rate: below it one heartbeat takes longer than the second between two heartbeats.
    pub const MIN: u64 = 16_000;
    /// The fastest rate that is taken seriously: 1 Tbit/s.
    pub const MAX: u64 = 1_000_000_000_000;

    /// `None` when the rate is zero.
    pub fn new(bits_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bits_per_second).map(Self)
    }

    /// The rate in bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0.get()
    }

    /// The rate that the incumbent's `send_delay_ms` stands for: one datagram of 65,507 bytes each `delay_ms`.
    /// `None` when the delay is not a positive number or the rate falls outside [`Self::MIN`] and [`Self::MAX`].
    pub fn from_send_delay(delay_ms: f64) -> Option<Self> {
        let rate = (65_507.0 * 8.0 * 1_000.0 / delay_ms).round();
        (delay_ms > 0.0 && rate >= Self::MIN as f64 && rate <= Self::MAX as f64)
            .then_some(rate as u64)
            .and_then(Self::new)
    }
}

impl FromStr for BitRate {
    type Err = ValueError;

    fn from_str(input: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::not(input, "rate", "\"800Mbit/s\" or \"1.5Gbit/s\"");
        let rate = scaled(input, &RATE_UNITS).ok_or_else(wrong)?;
        if rate < Self::MIN {
            return Err(ValueError::new(format!(
                "{input:?} is too slow: the least is \"16kbit/s\", which carries the heartbeats"
            )));
        }
        if rate > Self::MAX {
            return Err(ValueError::new(format!("{input:?} is too fast: the most is \"1000Gbit/s\"")));
        }
        Self::new(rate).ok_or_else(wrong)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0.get(), &RATE_UNITS)
    }
}

/// What the pacer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// At most this many bits per second.
    Limited(BitRate),
    /// As fast as the kernel takes datagrams; only ever chosen by writing `"unlimited"`.
    Unlimited,
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(input: &str) -> Result<Self, ValueError> {
        if input == "unlimited" {
            return Ok(Self::Unlimited);
        }
        match input.parse() {
            Ok(rate) => Ok(Self::Limited(rate)),
            Err(_) if scaled(input, &RATE_UNITS).is_none() => {
                Err(ValueError::not(input, "rate", "\"800Mbit/s\", \"1.5Gbit/s\" or \"unlimited\""))
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited(rate) => rate.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units of [`ByteSize`]: the binary ones are written by `Display`, the decimal ones are read too.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DECIMAL_SIZE_UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

impl ByteSize {
    /// So many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in whole MiB, rounded up, for people: `"45MiB"`.
    pub fn rounded(self) -> Self {
        Self(self.0.div_ceil(1 << 20) << 20)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(input: &str) -> Result<Self, ValueError> {
        scaled(input, &SIZE_UNITS)
            .or_else(|| scaled(input, &DECIMAL_SIZE_UNITS))
            .map(Self)
            .ok_or_else(|| ValueError::not(input, "size", "\"64MiB\", \"512KiB\" or \"1GiB\""))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &SIZE_UNITS)
    }
}

/// A length of time, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Units of [`Span`], in nanoseconds.
const SPAN_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(input: &str) -> Result<Self, ValueError> {
        // "0" needs no unit: people write it, and it means one thing.
        let text = if input.trim() == "0" { "0s" } else { input };
        scaled(text, &SPAN_UNITS)
            .map(|nanos| Self(Duration::from_nanos(nanos)))
            .ok_or_else(|| ValueError::not(input, "duration", "\"5ms\", \"250us\", \"30s\" or \"5min\""))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        // Never in minutes, hours or days: files say "90s", and a unit that changes with the value is hard to compare.
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        write_scaled(f, nanos, &SPAN_UNITS[3..])
    }
}

/// Most digits after the decimal point that are read; more would not change any unit's whole value.
const MAX_DECIMALS: usize = 12;

/// Reads `NUMBER UNIT` (a space between is allowed, case matters as in SI) into whole base units. Exact: no floating
/// point. `None` when it is malformed, overflows, or is not a whole number of base units.
fn scaled(input: &str, units: &[(&str, u64)]) -> Option<u64> {
    let input = input.trim();
    let split = input.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))?;
    let (number, unit) = (input[..split].replace('_', ""), input[split..].trim_start());
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, decimals) = number.split_once('.').map_or((number.as_str(), None), |(w, d)| (w, Some(d)));
    if whole.is_empty() || decimals.is_some_and(|d| d.is_empty() || d.len() > MAX_DECIMALS || d.contains('.'))
    {
        return None;
    }
    let mut value = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale);
    if let Some(decimals) = decimals {
        let part = u128::from(decimals.parse::<u64>().ok()?) * u128::from(scale);
        let divisor = 10_u128.pow(decimals.len() as u32);
        if !part.is_multiple_of(divisor) {
            return None;
        }
        value += part / divisor;
    }
    u64::try_from(value).ok()
}

/// Writes `value` in the largest unit that needs at most six decimals, else in the smallest unit.
fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    for &(name, scale) in units {
        let rest = u128::from(value % scale) * 1_000_000;
        if value >= scale && rest.is_multiple_of(u128::from(scale)) {
            let decimals = rest / u128::from(scale);
            if decimals == 0 {
                return write!(f, "{}{name}", value / scale);
            }
            let decimals = format!("{decimals:06}");
            return write!(f, "{}.{}{name}", value / scale, decimals.trim_end_matches('0'));
        }
    }
    let (name, scale) = units[units.len() - 1];
    write!(f, "{}{name}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let rate = |text: &str| text.parse::<BitRate>().map(BitRate::bits_per_second);
        assert_eq!(rate("800Mbit/s"), Ok(800_000_000));
        assert_eq!(rate("1.5Gbit/s"), Ok(1_500_000_000));
        assert_eq!(rate("1 Gbit/s"), Ok(1_000_000_000));
        assert_eq!(rate("100kbit/s"), Ok(100_000));
        assert_eq!("unlimited".parse(), Ok(Rate::Unlimited));
        let wrong = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
        assert_eq!(
            wrong("800Mb"),
            r#""800Mb" is no rate; for example "800Mbit/s", "1.5Gbit/s" or "unlimited""#
        );
        assert_eq!(
            wrong("0bit/s"),
            r#""0bit/s" is too slow: the least is "16kbit/s", which carries the heartbeats"#
        );
        assert_eq!(wrong("2000Gbit/s"), r#""2000Gbit/s" is too fast: the most is "1000Gbit/s""#);
        for text in [
            "",
            "800",
            "Mbit/s",
            "-1Mbit/s",
            "1..5Gbit/s",
            ".5Gbit/s",
            "5.Gbit/s",
            "1e3Mbit/s",
            "0.0001bit/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
        assert!("99999999999999999999Gbit/s".parse::<Rate>().is_err());
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!("64MiB".parse(), Ok(ByteSize::mib(64)));
        assert_eq!("1MB".parse(), Ok(ByteSize(1_000_000)));
        assert_eq!("0.5KiB".parse(), Ok(ByteSize(512)));
        assert_eq!("12B".parse(), Ok(ByteSize(12)));
        assert!("64M".parse::<ByteSize>().is_err());
        assert!("0.3B".parse::<ByteSize>().is_err(), "no fraction of a byte");
        assert_eq!("5ms".parse(), Ok(Span(Duration::from_millis(5))));
        assert_eq!("0".parse(), Ok(Span(Duration::ZERO)));
        assert_eq!("1.5s".parse(), Ok(Span(Duration::from_millis(1500))));
        assert_eq!("5min".parse(), Ok(Span(Duration::from_mins(5))));
        assert_eq!(
            "5 seconds".parse::<Span>().unwrap_err().to_string(),
            r#""5 seconds" is no duration; for example "5ms", "250us", "30s" or "5min""#
        );
        assert_eq!(
            "5".parse::<Span>().unwrap_err().to_string().split(';').next(),
            Some("\"5\" is no duration")
        );
        assert_eq!(Span(Duration::from_micros(250)).to_string(), "250us");
        assert_eq!(Span(Duration::from_secs(30)).to_string(), "30s");
        assert_eq!(Span(Duration::from_hours(2)).to_string(), "7200s");
    }

    #[test]
    fn send_delay_is_translated_as_the_incumbent_means_it() {
        let rate = |delay| BitRate::from_send_delay(delay).map(|rate| rate.to_string());
        assert_eq!(rate(1.0).as_deref(), Some("524.056Mbit/s"));
        assert_eq!(rate(0.5).as_deref(), Some("1.048112Gbit/s"));
        assert_eq!(rate(0.0), None);
        assert_eq!(rate(-1.0), None);
        assert_eq!(rate(f64::NAN), None);
        assert_eq!(rate(f64::INFINITY), None);
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_again(value in any::<u64>()) {
            let rate = value.clamp(BitRate::MIN, BitRate::MAX);
            prop_assert_eq!(BitRate::new(rate).map(|r| r.to_string().parse::<BitRate>()), Some(Ok(BitRate(NonZeroU64::new(rate).unwrap()))));
            prop_assert_eq!(ByteSize(value).to_string().parse(), Ok(ByteSize(value)));
            let span = Span(Duration::from_nanos(value));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (text.parse::<Rate>(), text.parse::<ByteSize>(), text.parse::<Span>());
        }
    }
}
