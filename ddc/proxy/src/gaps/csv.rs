//! A gap file as CSV (RFC 4180): for spreadsheets, and for sites whose gateways let no JSON pass.
//!
//! The first record names the columns; what stands once in a file is repeated on each row. Ranges are written
//! `100-119 130-199`; what is unknown or not there is empty. Without a gap it would say nothing, so it has one at least.

use std::fmt::Display;
use std::str::FromStr;

use ::csv::{ByteRecord, ReaderBuilder, StringRecord, Terminator, Writer, WriterBuilder};
use ddc_link::receiver::OffsetRange;
use ddc_telemetry::cells::Label;
use ddc_telemetry::reasons::MissingReason;

use super::file::{FileHead, bounded};
use super::{FORMAT, Gap, GapFile, GapFileError, GapState, KIND, MAX_GAPS, MAX_RANGES};

/// The columns, in this order. Another format can have others behind the second.
const COLUMNS: [&str; 21] = [
    "kind",
    "format",
    "site",
    "link",
    "link_id",
    "exported_at",
    "id",
    "session",
    "stream",
    "topic",
    "topic_id",
    "partition",
    "first",
    "last",
    "records",
    "reason",
    "found_at",
    "state",
    "closed_at",
    "open",
    "given_up",
];
/// How many of them, from the first, stand once in a file.
const HEAD_COLUMNS: usize = 6;

impl GapFile {
    /// Reads CSV.
    pub fn parse_csv(bytes: &[u8]) -> Result<Self, GapFileError> {
        bounded(bytes.len())?;
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut record = ByteRecord::new();
        let begin: Vec<_> = COLUMNS[..2].iter().map(|name| name.as_bytes()).collect();
        if !next(&mut reader, &mut record)? || !record.iter().take(2).eq(begin) {
            return Err(GapFileError::Kind);
        }
        let columns = record.iter().eq(COLUMNS.iter().map(|name| name.as_bytes()));
        let mut head: Option<StringRecord> = None;
        let mut gaps = Vec::new();
        while next(&mut reader, &mut record)? {
            let line = record.position().map_or(0, ::csv::Position::line);
            let wrong = |problem: String| GapFileError::Csv { line, problem };
            // Before the columns are judged: another format may have others.
            if record.get(0) != Some(KIND.as_bytes()) {
                return Err(GapFileError::Kind);
            }
            let format = record.get(1).unwrap_or_default();
            if format != FORMAT.to_string().as_bytes() {
                let found = String::from_utf8_lossy(format).chars().take(40).collect();
                return Err(GapFileError::Format { found });
            }
            if !columns {
                break;
            }
            let row = StringRecord::from_byte_record(record.clone())
                .map_err(|error| wrong(format!("column {}: is not UTF-8", error.utf8_error().field() + 1)))?;
            if row.len() != COLUMNS.len() {
                return Err(wrong(format!("{} columns; there must be {}", row.len(), COLUMNS.len())));
            }
            match &head {
                None => head = Some(row.clone()),
                Some(head) => {
                    let other = (0..HEAD_COLUMNS).find(|&at| head[at] != row[at]);
                    if let Some(at) = other {
                        return Err(wrong(format!(
                            "`{}` differs from the first row's; a gap file is of one export of one link",
                            COLUMNS[at]
                        )));
                    }
                }
            }
            if gaps.len() >= MAX_GAPS {
                return Err(GapFileError::TooMany { found: gaps.len() + 1 });
            }
            gaps.push(gap(&row).map_err(wrong)?);
        }
        if !columns {
            let problem = format!("the first line must be {}", COLUMNS.join(","));
            return Err(GapFileError::Csv { line: 1, problem });
        }
        let Some(head) = head else {
            return Err(GapFileError::Csv { line: 1, problem: "there is no gap in it".into() });
        };
        let wrong = |problem| GapFileError::Csv { line: 2, problem };
        let link_id = number(&head, 4).map_err(wrong)?;
        let exported_at = field(&head, 5).map_err(wrong)?;
        let site = Some(&head[2]).filter(|site| !site.is_empty());
        FileHead::parse(site, &head[3], link_id, exported_at)?.file(gaps)
    }

    /// Writes CSV. An empty list cannot be written: [`GapFileError::Csv`].
    pub fn to_csv(&self) -> Result<Vec<u8>, GapFileError> {
        self.check()?;
        if self.gaps.is_empty() {
            let problem = "there is no gap to write; as JSON an empty list can be written".into();
            return Err(GapFileError::Csv { line: 1, problem });
        }
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
        put(&mut writer, &COLUMNS.map(str::to_owned))?;
        for gap in &self.gaps {
            put(&mut writer, &self.row(gap))?;
        }
        let bytes = writer.into_inner().map_err(|error| GapFileError::Read(error.into_error()))?;
        bounded(bytes.len())?;
        Ok(bytes)
    }

    fn row(&self, gap: &Gap) -> [String; COLUMNS.len()] {
        [
            KIND.to_owned(),
            FORMAT.to_string(),
            optional(self.site.as_ref()),
            self.link.to_string(),
            self.link_id.to_string(),
            self.exported_at.to_string(),
            gap.id.to_string(),
            optional(gap.session.as_ref()),
            gap.stream.clone(),
            gap.topic.clone(),
            gap.topic_id.to_string(),
            gap.partition.to_string(),
            gap.first.to_string(),
            gap.last.to_string(),
            optional(gap.records.as_ref()),
            gap.reason.as_str().to_owned(),
            gap.found_at.to_string(),
            gap.state.as_str().to_owned(),
            optional(gap.closed_at.as_ref()),
            written_ranges(&gap.open),
            written_ranges(&gap.given_up),
        ]
    }
}

fn next(reader: &mut ::csv::Reader<&[u8]>, record: &mut ByteRecord) -> Result<bool, GapFileError> {
    reader.read_byte_record(record).map_err(|error| {
        let line = error.position().map_or(0, ::csv::Position::line);
        GapFileError::Csv { line, problem: error.to_string() }
    })
}

fn put(writer: &mut Writer<Vec<u8>>, row: &[String]) -> Result<(), GapFileError> {
    let failed = |error: ::csv::Error| GapFileError::Csv { line: 0, problem: error.to_string() };
    writer.write_record(row).map_err(failed)?;
    bounded(writer.get_ref().len())
}

fn optional<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(String::new, ToString::to_string)
}

fn written_ranges(ranges: &[OffsetRange]) -> String {
    let ranges: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect();
    ranges.join(" ")
}

/// A row's gap; its contradictions are found later, by [`GapFile::check`].
fn gap(row: &StringRecord) -> Result<Gap, String> {
    Ok(Gap {
        id: field(row, 6)?,
        session: or_empty(row, 7)?,
        stream: row[8].to_owned(),
        topic: row[9].to_owned(),
        topic_id: field(row, 10)?,
        partition: number(row, 11)?,
        first: number(row, 12)?,
        last: number(row, 13)?,
        records: if row[14].is_empty() { None } else { Some(number(row, 14)?) },
        reason: MissingReason::from_name(&row[15]).ok_or_else(|| unknown(row, 15))?,
        found_at: field(row, 16)?,
        state: GapState::from_name(&row[17]).ok_or_else(|| unknown(row, 17))?,
        closed_at: or_empty(row, 18)?,
        open: ranges(row, 19)?,
        given_up: ranges(row, 20)?,
    })
}

fn field<T: FromStr<Err: Display>>(row: &StringRecord, at: usize) -> Result<T, String> {
    row[at].parse().map_err(|error| format!("`{}`: {error}", COLUMNS[at]))
}

/// A number in its only form: no sign but `-`, no leading zero.
fn number<T: FromStr<Err: Display> + Display>(row: &StringRecord, at: usize) -> Result<T, String> {
    let number: T = field(row, at)?;
    if number.to_string() != row[at] {
        return Err(format!("`{}`: write {number}", COLUMNS[at]));
    }
    Ok(number)
}

fn or_empty<T: FromStr<Err: Display>>(row: &StringRecord, at: usize) -> Result<Option<T>, String> {
    if row[at].is_empty() { Ok(None) } else { field(row, at).map(Some) }
}

fn unknown(row: &StringRecord, at: usize) -> String {
    let found: String = row[at].chars().take(40).collect();
    format!("`{}`: {found:?} is not known", COLUMNS[at])
}

fn ranges(row: &StringRecord, at: usize) -> Result<Vec<OffsetRange>, String> {
    let wrong = || format!("`{}`: ranges are written 100-119 130-199, at most {MAX_RANGES}", COLUMNS[at]);
    if row[at].is_empty() {
        return Ok(Vec::new());
    }
    let mut ranges = Vec::new();
    for text in row[at].split(' ') {
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let bound = |text: &str| {
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            number.ok_or_else(wrong)
        };
        if ranges.len() >= MAX_RANGES {
            return Err(wrong());
        }
        ranges.push(OffsetRange { first: bound(first)?, last: bound(last)? });
    }
    Ok(ranges)
}
