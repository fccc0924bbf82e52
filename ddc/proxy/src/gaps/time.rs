//! A moment, to the millisecond, as files have it.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{Date, Month, OffsetDateTime, Time};

/// 9999-12-31T23:59:59.999Z: the last moment that RFC 3339 can write.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// Milliseconds since 1970, at most to the end of the year 9999. Written as RFC 3339 in UTC, always with three digits
/// of the second's fraction: `2026-03-01T08:15:30.250Z`. So texts sort as moments do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// So many milliseconds since 1970; what lies beyond the year 9999 becomes its end.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(LAST_MILLIS))
    }

    /// By this host's clock.
    pub fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(now.as_millis() as u64)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0
    }
}

/// A text that is no [`Timestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as 2026-03-01T08:15:30.250Z: in UTC, with three digits after the second's point")]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let bytes = text.as_bytes();
        let shape = b"0000-00-00T00:00:00.000Z";
        let fits = |(byte, shape): (&u8, &u8)| {
            if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape }
        };
        if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
            return Err(TimestampError);
        }
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().fold(0_u16, |number, digit| number * 10 + u16::from(digit - b'0'))
        };
        // Two digits fit a u8.
        let small = |from: usize| number(from, from + 2) as u8;
        let month = Month::try_from(small(5)).map_err(|_| TimestampError)?;
        let date = Date::from_calendar_date(i32::from(number(0, 4)), month, small(8));
        let time = Time::from_hms_milli(small(11), small(14), small(17), number(20, 23));
        let moment =
            OffsetDateTime::new_utc(date.map_err(|_| TimestampError)?, time.map_err(|_| TimestampError)?);
        let millis = moment.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(millis).map(Self).map_err(|_| TimestampError)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Within the years 1970 to 9999 by construction.
        let moment = OffsetDateTime::from_unix_timestamp((self.0 / 1000) as i64).map_err(|_| fmt::Error)?;
        let (date, time) = (moment.date(), moment.time());
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            self.0 % 1000
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_moments() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (LAST_MILLIS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp::from_millis(millis)));
        }
        assert_eq!(Timestamp::from_millis(u64::MAX).millis(), LAST_MILLIS);
        for wrong in [
            "",
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T23:59:60.000Z",
            "1969-12-31T23:59:59.999Z",
            "2026-01-01T00:00:00.000z",
            "2026-01-01T00:00:00.00Z",
            "2026-01-01T00:00:00.000+00:00",
            "+026-01-01T00:00:00.000Z",
        ] {
            assert_eq!(wrong.parse::<Timestamp>(), Err(TimestampError), "{wrong}");
        }
    }
}
