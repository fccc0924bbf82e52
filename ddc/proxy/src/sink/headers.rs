//! The headers of a record at the destination: its own, in order, then where it came from.
//!
//! Order, duplicates, empty and null values are kept. Names that are not UTF-8 cannot be given to rdkafka
//! as they are: their bad bytes become U+FFFD, and the caller counts it (Kafka's own clients write UTF-8 only).

use std::fmt::Write as _;

use ddc_wire::Record;
use rdkafka::message::{Header, OwnedHeaders};

/// The topic at the source, as UTF-8.
pub const SOURCE_TOPIC: &str = "sourceTopic";
/// The partition at the source, in decimal digits.
pub const SOURCE_PARTITION: &str = "sourcePartition";
/// The offset at the source, in decimal digits.
pub const SOURCE_OFFSET: &str = "sourceOffset";
/// `true` on a record that comes after later ones of its partition.
pub const LATE: &str = "ddcLate";

/// Makes headers; keeps its buffer.
#[derive(Debug)]
pub struct HeaderWriter {
    provenance: bool,
    digits: String,
}

/// What a record's headers became.
#[derive(Debug)]
pub struct Written {
    /// To be handed over; `None` when there are none.
    pub headers: Option<OwnedHeaders>,
    /// Names that had to be changed because they are not UTF-8.
    pub changed_names: u32,
}

impl HeaderWriter {
    /// With or without the three provenance headers.
    pub fn new(provenance: bool) -> Self {
        Self { provenance, digits: String::with_capacity(20) }
    }

    /// The headers of `record`, read from `partition` of `topic`.
    /// `last` comes behind all others.
    pub fn write(
        &mut self,
        record: &Record<'_>,
        topic: &str,
        partition: i32,
        late: bool,
        last: Option<(&str, &str)>,
    ) -> Written {
        let own = record.headers.clone();
        let count =
            own.len() + if self.provenance { 3 } else { 0 } + usize::from(late) + usize::from(last.is_some());
        if count == 0 {
            return Written { headers: None, changed_names: 0 };
        }
        let (mut headers, mut changed_names) = (OwnedHeaders::new_with_capacity(count), 0);
        for header in own {
            let name = String::from_utf8_lossy(header.name);
            changed_names += u32::from(matches!(name, std::borrow::Cow::Owned(_)));
            headers = headers.insert(Header { key: &name, value: header.value });
        }
        if late {
            headers = headers.insert(Header { key: LATE, value: Some("true") });
        }
        if self.provenance {
            headers = headers.insert(Header { key: SOURCE_TOPIC, value: Some(topic) });
            let partition = self.number(i64::from(partition));
            headers = headers.insert(Header { key: SOURCE_PARTITION, value: Some(partition) });
            let offset = self.number(record.offset);
            headers = headers.insert(Header { key: SOURCE_OFFSET, value: Some(offset) });
        }
        if let Some((key, value)) = last {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        Written { headers: Some(headers), changed_names }
    }

    fn number(&mut self, value: i64) -> &str {
        self.digits.clear();
        // Writing into a String cannot fail.
        let _ = write!(self.digits, "{value}");
        &self.digits
    }
}
