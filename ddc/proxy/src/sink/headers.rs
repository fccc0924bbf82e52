//! The headers of a record at the destination: its own, in order, then where it came from.
//!
//! Order, duplicates, empty and null values are kept, and so are names that are not UTF-8.

use ddc_kafka::produce::Headers;
use ddc_wire::Record;

/// The topic at the source, as UTF-8.
pub const SOURCE_TOPIC: &str = "sourceTopic";
/// The partition at the source, in decimal digits.
pub const SOURCE_PARTITION: &str = "sourcePartition";
/// The offset at the source, in decimal digits.
pub const SOURCE_OFFSET: &str = "sourceOffset";
/// `true` on a record that comes after later ones of its partition.
pub const LATE: &str = "ddcLate";

/// The headers of `record`; `provenance` are the topic and the partition that it was read from, if they are to be told. `last` comes
/// behind all others. `None` when there are none.
pub fn headers(
    record: &Record<'_>,
    provenance: Option<(&str, i32)>,
    late: bool,
    last: Option<(&str, &str)>,
) -> Option<Headers> {
    let own = record.headers.clone();
    let count = own.len()
        + if provenance.is_some() { 3 } else { 0 }
        + usize::from(late)
        + usize::from(last.is_some());
    if count == 0 {
        return None;
    }
    let mut headers = Headers::with_capacity(count);
    for header in own {
        headers.push(header.name, header.value);
    }
    if late {
        headers.push(LATE.as_bytes(), Some(b"true"));
    }
    if let Some((topic, partition)) = provenance {
        let mut digits = itoa::Buffer::new();
        headers.push(SOURCE_TOPIC.as_bytes(), Some(topic.as_bytes()));
        headers.push(SOURCE_PARTITION.as_bytes(), Some(digits.format(partition).as_bytes()));
        headers.push(SOURCE_OFFSET.as_bytes(), Some(digits.format(record.offset).as_bytes()));
    }
    if let Some((name, value)) = last {
        headers.push(name.as_bytes(), Some(value.as_bytes()));
    }
    Some(headers)
}
