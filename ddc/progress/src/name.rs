//! Names of sets and links, as they stand in keys of the topic and in transactional ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 63 of `a-z`, `0-9` and `-`, not at the ends: the rule of `name` in the configuration. Cheap to clone.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;

            fn try_from(text: String) -> Result<Self, NotAName> {
                if is_name(&text) { Ok(Self(text.into())) } else { Err(NotAName) }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl FromStr for $name {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                Self::try_from(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The set of links that carry the same partitions to the same place: `[egress] set`, by default the link's name.
    SetName
}
name! {
    /// One link of a set.
    LinkName
}

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no name: 1 to 63 of a-z, 0-9 and -, not at the ends")]
pub struct NotAName;

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The `transactional.id` of a link's producer: `ddc.<set>.<link>`.
///
/// Names have no dots, so two links never share one.
pub fn transactional_id(set: &SetName, link: &LinkName) -> String {
    format!("ddc.{set}.{link}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in ["a", "plant-a", "0", &"a".repeat(63)] {
            assert_eq!(text.parse::<LinkName>().unwrap().as_str(), text);
        }
        for text in ["", "-a", "a-", "A", "a.b", "a b", "ä", &"a".repeat(64)] {
            assert_eq!(text.parse::<SetName>(), Err(NotAName), "{text:?}");
        }
        assert_eq!(transactional_id(&"s".parse().unwrap(), &"l".parse().unwrap()), "ddc.s.l");
    }
}
