//! When the certificates end that this side shows to Kafka or trusts: `ddc_certificate_expiry_timestamp_seconds`.
//!
//! It stands beside the line. The files are read at the start, after a reload and each hour, on a thread of their own: a
//! file system that hangs holds up nothing. What is told is what the *files* say; a client that was started with an older
//! file may still use that one. librdkafka judges certificates by itself; nothing is refused here.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ddc_kafka::settings::ClientSettings;
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_telemetry::reasons::Certificate;
use ddc_udp::clock::wall_clock_micros;
use x509_parser::pem::Pem;

use crate::config::EgressConfig;

/// How often the files are read.
const EVERY: Duration = Duration::from_hours(1);
/// No file is read beyond this; the authorities of a whole operating system take a quarter of it.
const LARGEST: u64 = 1 << 20;
/// What ends sooner is told in the log too, at each start and reload.
const SOON: i64 = 14 * 86_400;

/// The certificate files of one link side.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Vec<(Certificate, PathBuf)>,
    next: Mutex<Next>,
    reading: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Next {
    at: Instant,
    /// Whether what ends soon is told in the log.
    told: bool,
}

/// Why nothing is known of a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// See [`LARGEST`].
    #[error("is larger than 1 MiB, so it is not looked at")]
    TooLarge,
    /// Not even one certificate.
    #[error("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    None,
    /// One that cannot be parsed.
    #[error("certificate {number} cannot be parsed: {why}")]
    Malformed {
        /// Counted from 1.
        number: usize,
        /// The parser's words.
        why: String,
    },
}

impl Certificates {
    /// The files that these settings name; the system's own authorities are not looked at. A link without Kafka has none.
    pub(crate) fn of(client: Option<&ClientSettings>) -> Self {
        Self::of_clients(client.map(|client| (Certificate::Ca, Certificate::Client, client)))
    }

    /// Those of the destination, and those of `[missing_records]`.
    pub(crate) fn of_egress(config: &EgressConfig) -> Self {
        let sink = config.kafka().map(|(client, _)| (Certificate::Ca, Certificate::Client, client));
        let missing = config.missing_records.as_ref().map(|missing| {
            (Certificate::MissingRecordsCa, Certificate::MissingRecordsClient, &missing.client)
        });
        Self::of_clients(sink.into_iter().chain(missing))
    }

    fn of_clients<'a>(
        clients: impl IntoIterator<Item = (Certificate, Certificate, &'a ClientSettings)>,
    ) -> Self {
        let with_tls = clients.into_iter().filter(|(_, _, client)| client.protocol.uses_tls());
        let named = with_tls.flat_map(|(authorities, own, client)| {
            [(authorities, client.tls.ca_file.clone()), (own, client.tls.certificate_file.clone())]
        });
        Self {
            files: named.filter_map(|(which, file)| Some((which, file?))).collect(),
            next: Mutex::new(Next { at: Instant::now(), told: false }),
            reading: Arc::default(),
        }
    }

    /// After a reload: the files are read with the next [`Self::serve`].
    pub(crate) fn reload(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Next { at: Instant::now(), told: false };
    }

    /// Called each second: reads the files when it is time to. Waits for nothing.
    pub(crate) fn serve<T: Send + Sync + 'static>(&self, now: Instant, metrics: &Arc<LinkMetrics<T>>) {
        if self.files.is_empty() {
            return;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // A former read may still hang in a file system.
        if now < next.at || self.reading.swap(true, Ordering::Acquire) {
            return;
        }
        let quiet = std::mem::replace(&mut next.told, true);
        next.at = now + EVERY;
        drop(next);
        let (files, metrics, reading) = (self.files.clone(), Arc::clone(metrics), Arc::clone(&self.reading));
        let thread = std::thread::Builder::new().name("ddc-certificates".to_owned()).spawn(move || {
            for (which, file) in &files {
                tell(*which, file, quiet, &metrics);
            }
            reading.store(false, Ordering::Release);
        });
        if let Err(error) = thread {
            self.reading.store(false, Ordering::Release);
            tracing::warn!(%error, "the certificates' ends are not known: no thread can be started; trying again in an hour");
        }
    }
}

fn tell<T>(which: Certificate, file: &Path, quiet: bool, metrics: &LinkMetrics<T>) {
    let cell = &metrics.common.certificate_expiry_timestamp_seconds;
    let (link, certificate) = (metrics.link(), which.as_str());
    match earliest_end(file) {
        Ok(end) => {
            cell.set(which, end as f64);
            let left = end - (wall_clock_micros() / 1_000_000) as i64;
            if left < SOON && !quiet {
                tracing::warn!(
                    link, certificate, file = %file.display(), days_left = left.div_euclid(86_400),
                    "a certificate ends soon or has ended: replace the file, then restart this side"
                );
            }
        }
        Err(error) => {
            cell.clear(which);
            if !quiet {
                tracing::warn!(link, certificate, file = %file.display(), %error, "the end of a certificate is not known");
            }
        }
    }
}

/// The earliest end of validity of all certificates in a PEM file, in seconds since 1970. Keys and other things in it
/// are passed over.
fn earliest_end(file: &Path) -> Result<i64, CertificateError> {
    let mut bytes = Vec::new();
    File::open(file)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(CertificateError::TooLarge);
    }
    let mut earliest: Option<i64> = None;
    let mut number = 0;
    for pem in Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|why| malformed(number + 1, &why))?;
        if !matches!(pem.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
            continue;
        }
        number += 1;
        let parsed = pem.parse_x509().map_err(|why| malformed(number, &why))?;
        let end = parsed.validity().not_after.timestamp();
        earliest = Some(earliest.map_or(end, |earliest| earliest.min(end)));
    }
    earliest.ok_or(CertificateError::None)
}

fn malformed(number: usize, why: &dyn std::fmt::Display) -> CertificateError {
    CertificateError::Malformed { number, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use ddc_kafka::settings::SecurityProtocol;
    use proptest::prelude::*;

    use super::*;

    /// Self-signed, ends on 2036-11-19 07:50:20 UTC.
    const TEN_YEARS: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUDyMAEEKKoKbkC4vdiDFLhQs1FJkwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGdGVzdCAxMB4XDTI2MTEyMjA3NTAyMFoXDTM2MTExOTA3NTAy
MFowETEPMA0GA1UEAwwGdGVzdCAxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
U9H9wDXHYBdiSccJqLia0GFz8Fj5Kbs8XVYcCqkLvEh5tuu2AnTk5gZqNPWlbmK8
xDBl9v9dBoU4YqaCIQFEFKNTMFEwHQYDVR0OBBYEFLrCvjWR7Y7lWwETJQN5/0lw
6/XzMB8GA1UdIwQYMBaAFLrCvjWR7Y7lWwETJQN5/0lw6/XzMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgLv0ntUfHoNuuzYcRz1gsw5/XsEhFlR+P
TF0kz6ed+IsCIQD9mypL/Cludy/sPSrhi51yQsKb8PGlkW556OWfYmcYHA==
-----END CERTIFICATE-----
";
    const TEN_YEARS_END: i64 = 2_110_693_820;
    /// Self-signed, ends on 2046-11-17 07:50:20 UTC.
    const TWENTY_YEARS: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIUBH8IGieVE5qTiVLN1iDG6bzkRvowCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGdGVzdCAyMB4XDTI2MTEyMjA3NTAyMFoXDTQ2MTExNzA3NTAy
MFowETEPMA0GA1UEAwwGdGVzdCAyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
ifxx1cuZX1iGFVf3PjLgpqv09fJyYDuKSGxEbExKLQ7Ke/5rq2rEThk6zsbd1ZMt
ch3C89TPOLOEyhFvFnRFj6NTMFEwHQYDVR0OBBYEFLqrXK75JpMJCKWFIpB5nIHY
AvZbMB8GA1UdIwQYMBaAFLqrXK75JpMJCKWFIpB5nIHYAvZbMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAOoQ8uwd5xO4ht7OyQ0DSGGCmcNcKT6P
l3CBDhOMRkRUAiEAzqeOysU1UxFaKTPmkseK8Tllpbp9jdFXHfLkqorE+0M=
-----END CERTIFICATE-----
";
    const TWENTY_YEARS_END: i64 = 2_426_053_820;
    /// Not a key of anything.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    fn end_of(text: &[u8]) -> Result<i64, CertificateError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        earliest_end(file.path())
    }

    #[test]
    fn the_earliest_end_of_a_file_counts() {
        assert_eq!(end_of(TEN_YEARS.as_bytes()).unwrap(), TEN_YEARS_END);
        assert_eq!(end_of(TWENTY_YEARS.as_bytes()).unwrap(), TWENTY_YEARS_END);
        let chain = format!("subject=CN = test\n{KEY}{TWENTY_YEARS}\n{TEN_YEARS}");
        assert_eq!(end_of(chain.as_bytes()).unwrap(), TEN_YEARS_END);
    }

    #[test]
    fn a_file_without_a_readable_certificate_says_so() {
        let said = |text: &[u8]| end_of(text).unwrap_err().to_string();
        assert!(said(b"").contains("holds no certificate"));
        assert!(said(KEY.as_bytes()).contains("holds no certificate"));
        assert!(
            said(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                .contains("certificate 1 cannot be parsed")
        );
        assert!(
            said(&TEN_YEARS.as_bytes()[..TEN_YEARS.len() / 2]).contains("certificate 1 cannot be parsed")
        );
        assert!(said(&vec![b'\n'; (LARGEST + 1) as usize]).contains("larger than 1 MiB"));
        assert!(
            earliest_end(Path::new("/nonexistent/ca.pem"))
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
        assert!(earliest_end(Path::new("/")).is_err(), "a directory");
    }

    proptest! {
        /// A damaged file is an error or an end, never a panic.
        #[test]
        fn damage_never_panics(at in 0usize..600, byte in any::<u8>(), cut in 0usize..700) {
            let mut text = TEN_YEARS.as_bytes().to_vec();
            let at = at % text.len();
            text[at] = byte;
            text.truncate(cut.max(at));
            let _ = end_of(&text);
        }
    }

    #[test]
    fn the_metric_follows_the_file_and_is_absent_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let (ca, client) = (directory.path().join("ca.pem"), directory.path().join("client.pem"));
        std::fs::write(&ca, TWENTY_YEARS).unwrap();
        let mut settings = ClientSettings::plaintext(["b:1"], "t");
        settings.tls.ca_file = Some(ca.clone());
        settings.tls.certificate_file = Some(client);
        assert!(Certificates::of(Some(&settings)).files.is_empty(), "without TLS no file is used");
        settings.protocol = SecurityProtocol::Ssl;
        let certificates = Certificates::of(Some(&settings));
        let metrics = Arc::new(LinkMetrics::egress("t"));
        let ends = |now: Instant| {
            certificates.serve(now, &metrics);
            while certificates.reading.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let cell = &metrics.common.certificate_expiry_timestamp_seconds;
            [Certificate::Ca, Certificate::Client].map(|which| cell.value(which))
        };
        let now = Instant::now();
        assert_eq!(ends(now), [Some(TWENTY_YEARS_END as f64), None]);
        std::fs::write(&ca, TEN_YEARS).unwrap();
        assert_eq!(ends(now + EVERY / 2), [Some(TWENTY_YEARS_END as f64), None], "not read yet");
        assert_eq!(ends(now + EVERY), [Some(TEN_YEARS_END as f64), None]);
        std::fs::remove_file(&ca).unwrap();
        certificates.reload();
        assert_eq!(ends(Instant::now()), [None, None]);
    }

    #[test]
    fn each_client_has_its_own() {
        let client = |protocol, ca: &str| {
            let mut settings = ClientSettings::plaintext(["b:1"], "t");
            settings.protocol = protocol;
            settings.tls.ca_file = Some(ca.into());
            settings
        };
        let (sink, missing) =
            (client(SecurityProtocol::Ssl, "/sink"), client(SecurityProtocol::SaslSsl, "/missing"));
        let of = |sink, missing| {
            Certificates::of_clients([
                (Certificate::Ca, Certificate::Client, sink),
                (Certificate::MissingRecordsCa, Certificate::MissingRecordsClient, missing),
            ])
        };
        let expected =
            [(Certificate::Ca, "/sink".into()), (Certificate::MissingRecordsCa, "/missing".into())];
        assert_eq!(of(&sink, &missing).files, expected);
        let plain = client(SecurityProtocol::Plaintext, "/not-used");
        assert_eq!(of(&plain, &missing).files, expected[1..]);
    }
}
