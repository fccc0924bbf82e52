//! Values that files hold as text: serde's `with` modules for types whose own crates know no serde.

use std::fmt::Display;
use std::str::FromStr;

use ddc_link::receiver::OffsetRange;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// By `Display`.
pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// By `FromStr`.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// A value or null; the key must be there, which serde does not ask of an `Option` by itself.
pub(super) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// By `Display` and `FromStr`, or null. The key must be there.
pub(super) mod optional {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde hands it so")]
    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// A value of a metric's label, by its name.
pub(super) mod label {
    use super::*;
    use ddc_telemetry::cells::Label;

    pub(in super::super) fn serialize<T: Label, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_str())
    }

    pub(in super::super) fn deserialize<'de, T: Label, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let name = String::deserialize(deserializer)?;
        T::from_name(&name).ok_or_else(|| {
            let known: Vec<_> = T::ALL.iter().map(|value| value.as_str()).collect();
            D::Error::custom(format!("{name:?} is none of {}", known.join(", ")))
        })
    }
}

/// Ranges as pairs: `[[100,119],[130,199]]`.
pub(super) mod ranges {
    use super::{Deserialize, Deserializer, OffsetRange, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        ranges: &[OffsetRange],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ranges.iter().map(|range| (range.first, range.last)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<OffsetRange>, D::Error> {
        let pairs = Vec::<(i64, i64)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(first, last)| OffsetRange { first, last }).collect())
    }
}
