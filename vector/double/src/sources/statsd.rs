//! StatsD lines, with the errors and oddities of Vector's parser: `name:value|type[|@rate][|#key:value,…]`.

use std::num::ParseFloatError;
use std::str::Utf8Error;

use crate::event::{Kind, Metric, MetricValue, Tags};

/// Why a line was dropped; worded as Vector logs it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("Statsd parse error: {0:?}")]
pub struct ParseError(pub Reason);

/// Why a line was dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The line is not UTF-8.
    InvalidUtf8(Utf8Error),
    /// A part is missing or impossible.
    Malformed(&'static str),
    /// Not one of c, g, h, ms, d, s.
    UnknownMetricType(String),
    /// A value or rate is no number.
    InvalidFloat(ParseFloatError),
}

impl From<ParseFloatError> for Reason {
    fn from(error: ParseFloatError) -> Self {
        Self::InvalidFloat(error)
    }
}

/// How lines are read.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Replace or drop characters of the name that StatsD does not know (dots and dashes stay).
    pub sanitize: bool,
}

impl Parser {
    /// The metrics of one datagram; each bad line is dropped alone.
    pub fn datagram(self, datagram: &[u8]) -> impl Iterator<Item = Result<Metric, ParseError>> {
        let datagram = datagram.strip_suffix(b"\n").unwrap_or(datagram);
        datagram.split(|byte| *byte == b'\n').map(move |line| {
            let line = std::str::from_utf8(line).map_err(|error| ParseError(Reason::InvalidUtf8(error)))?;
            self.line(line).map_err(ParseError)
        })
    }

    fn line(self, line: &str) -> Result<Metric, Reason> {
        let (key, body) =
            line.split_once(':').ok_or(Reason::Malformed("should be key and body with ':' separator"))?;
        let mut parts = body.split('|');
        let value = parts.next().unwrap_or_default();
        let kind = parts
            .next()
            .ok_or(Reason::Malformed("body should have at least two pipe separated components"))?;
        let mut third = parts.next();
        let weight = match third.and_then(|part| part.strip_prefix('@')) {
            Some(rate) => {
                third = parts.next();
                1.0 / rate_of(rate)?
            }
            None => 1.0,
        };
        // What follows the tags (a container id, a time stamp) is ignored.
        let tags = match third.and_then(|part| part.strip_prefix('#')) {
            Some("") => return Err(Reason::Malformed("expected non empty '#'-prefixed tags component")),
            Some(tags) => tags_of(tags),
            None => Tags::new(),
        };
        let (kind, value) = value_of(kind, value, weight)?;
        Ok(Metric { tags, ..Metric::new(self.name(key), kind, value) })
    }

    fn name(self, key: &str) -> String {
        if !self.sanitize {
            return key.into();
        }
        let mut name = String::with_capacity(key.len());
        let mut after_space = false;
        for c in key.chars() {
            if c.is_whitespace() {
                if !after_space {
                    name.push('_');
                }
            } else if c == '/' {
                name.push('-');
            } else if c.is_ascii_alphanumeric() || "_-.".contains(c) {
                name.push(c);
            }
            after_space = c.is_whitespace();
        }
        name
    }
}

fn value_of(kind: &str, text: &str, weight: f64) -> Result<(Kind, MetricValue), Reason> {
    let value = match kind {
        "c" => MetricValue::Counter(text.parse::<f64>()? * weight),
        "h" | "ms" | "d" => {
            let value = text.parse::<f64>()?;
            let value = if kind == "ms" { value / 1000.0 } else { value };
            // The cast cuts off: 1/0.0204081633 is 48.99…, so 48 observations. Rates of 1/(n+0.5) give exactly n.
            MetricValue::Distribution { samples: vec![(value, weight as u32)], summary: kind == "d" }
        }
        "g" => return gauge(text),
        "s" => MetricValue::Set([text.to_owned()].into()),
        other => return Err(Reason::UnknownMetricType(other.into())),
    };
    Ok((Kind::Incremental, value))
}

/// A sign makes the value relative.
fn gauge(text: &str) -> Result<(Kind, MetricValue), Reason> {
    let (kind, sign, digits) = match text.chars().next() {
        None => return Err(Reason::Malformed("empty first body component")),
        Some('+') => (Kind::Incremental, 1.0, &text[1..]),
        Some('-') => (Kind::Incremental, -1.0, &text[1..]),
        Some(c) if c.is_ascii_digit() => (Kind::Absolute, 1.0, text),
        Some(_) => return Err(Reason::Malformed("invalid gauge value prefix")),
    };
    Ok((kind, MetricValue::Gauge(sign * digits.parse::<f64>()?)))
}

/// A rate of 0 counts as 1.
fn rate_of(text: &str) -> Result<f64, Reason> {
    if text.is_empty() {
        return Err(Reason::Malformed("expected non empty '@'-prefixed sampling component"));
    }
    let rate: f64 = text.parse()?;
    if rate.is_sign_negative() {
        return Err(Reason::Malformed("sample rate can't be negative"));
    }
    Ok(if rate == 0.0 { 1.0 } else { rate })
}

/// The value is everything after the first colon. Of a repeated key the last value counts (a real Vector keeps all; we send none).
fn tags_of(text: &str) -> Tags {
    text.split(',')
        .map(|tag| match tag.split_once(':') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (tag.to_owned(), None),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARSER: Parser = Parser { sanitize: true };

    fn one(line: &str) -> Result<Metric, ParseError> {
        PARSER.datagram(line.as_bytes()).next().unwrap()
    }

    #[test]
    fn weights_of_our_histograms_are_exact() {
        for n in (1..5000).chain([1_000_000, 16_000_000]) {
            let line = format!("x:0.1|h|@{}", 1.0 / (f64::from(n) + 0.5));
            let Ok(Metric { value: MetricValue::Distribution { samples, .. }, .. }) = one(&line) else {
                panic!("{line}")
            };
            assert_eq!(samples, [(0.1, n)], "{line}");
        }
    }

    #[test]
    fn hostile_lines_are_errors_and_never_panics() {
        for line in [
            "",
            ":",
            "x",
            "x:",
            "x:|",
            "x:1",
            "x:1|",
            "x:|c",
            "x:|g",
            "x:ü|g",
            "x:1|c|@",
            "x:1|c|@-1",
            "x:1|c|#",
            "x:+|g",
        ] {
            assert!(one(line).is_err(), "{line}");
        }
        // Every prefix and every single byte of a good line replaced.
        let good = b"ddc.x:1.5|h|@0.5|#link:a,side:in";
        for cut in 0..good.len() {
            let _ = PARSER.datagram(&good[..cut]).count();
            for byte in [0u8, b':', b'|', b'#', b'@', 255] {
                let mut line = good.to_vec();
                line[cut] = byte;
                let _ = PARSER.datagram(&line).count();
            }
        }
    }
}
