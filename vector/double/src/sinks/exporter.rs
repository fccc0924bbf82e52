//! `prometheus_exporter`: keeps the series and serves the page.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_yaml_ng::Value as Yaml;

use super::aggregate::{Aggregate, Settings};
use super::http::{self, Answer, Request};
use crate::event::Metric;

/// The sink. The page is written when it is asked for; scrapes at the same time each get a whole one.
pub(crate) struct Exporter(Arc<Mutex<Aggregate>>);

impl Exporter {
    pub(super) fn start(options: &Yaml, stop: &Arc<AtomicBool>) -> Result<Self, String> {
        let address = options["address"].as_str().unwrap_or_default();
        if options["tls"]["enabled"].as_bool() == Some(true) {
            return Err("the double has no TLS; only a real Vector serves the page with it".into());
        }
        let expected = authorization(&options["auth"])?;
        let aggregate = Arc::new(Mutex::new(Aggregate::new(Settings::read(options), Instant::now())));
        let shared = aggregate.clone();
        http::serve(address, stop, move |request| answer(request, expected.as_deref(), &shared))?;
        Ok(Self(aggregate))
    }

    pub(super) fn take(&self, metric: Metric) {
        // A panic in between leaves the map usable: each series is changed in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(metric, Instant::now());
    }
}

fn answer(request: &Request, expected: Option<&str>, aggregate: &Mutex<Aggregate>) -> Answer {
    if let Some(expected) = expected
        && request.authorization.as_deref() != Some(expected)
    {
        return Answer {
            status: "401 Unauthorized",
            header: "WWW-Authenticate: Basic, Bearer\r\n",
            body: String::new(),
        };
    }
    if request.method != "GET" || request.path != "/metrics" {
        return Answer::not_found();
    }
    let page = aggregate.lock().unwrap_or_else(PoisonError::into_inner).page();
    Answer { status: "200 OK", header: "Content-Type: text/plain; version=0.0.4\r\n", body: page }
}

/// The whole value of the header that a request must carry.
fn authorization(auth: &Yaml) -> Result<Option<String>, String> {
    let text = |key: &str| auth[key].as_str().ok_or_else(|| format!("auth: `{key}` is missing"));
    match auth["strategy"].as_str() {
        Some("basic") => Ok(Some(format!(
            "Basic {}",
            base64(format!("{}:{}", text("user")?, text("password")?).as_bytes())
        ))),
        Some("bearer") => Ok(Some(format!("Bearer {}", text("token")?))),
        _ => Ok(None),
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_lengths() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("user:pass", "dXNlcjpwYXNz")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
