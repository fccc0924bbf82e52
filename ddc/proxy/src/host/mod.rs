//! Looks at this host with the eyes of a link side that is about to run here: interface, way, ports, buffers, disk, clock.
//!
//! ```text
//!  machine()   architecture, pages, clock                     once for all files
//!  link_side() path: interface, MTU, route, neighbour         for each file
//!              ports: UDP, admin, socket buffers
//!              disk: the state directory, the spool, and their file systems
//! ```
//!
//! Changes nothing and sends nothing: sockets are opened as the link would open them and closed again, the rest is asked
//! of the kernel. What a look cannot find out is a warning, not a problem: a sandbox may forbid to ask.

mod disk;
mod netlink;
mod path;
mod ports;

use std::io;
use std::time::Duration;

pub use disk::{FileSystem, LEAST_FREE, file_system};

use crate::config::{Config, DeadLetterPlace};
use crate::dead_letters;
use crate::sink::preflight::{Finding, Severity};

/// What is right or wrong for every link: the machine and its clock.
pub fn machine() -> Vec<Finding> {
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy();
    let pages = page_size()
        .map_or_else(|| "pages of unknown size".to_owned(), |size| format!("pages of {size} bytes"));
    let what = format!("{}, {pages}, Linux {kernel}", std::env::consts::ARCH);
    vec![good(what), clock(ddc_udp::clock::kept_within())]
}

/// What is right or wrong for one side of a link.
pub fn link_side(config: &Config) -> Vec<Finding> {
    let path = path::look(config);
    let mut findings = path.findings;
    if path.is_there {
        findings.extend(ports::link(config));
    }
    findings.extend(ports::streams(config));
    findings.extend(ports::buffers(config));
    findings.extend(ports::admin(config));
    findings.extend(disk::look(&config.link().state_dir));
    if let Config::Egress(config) = config {
        findings.extend(config.spool.as_deref().map(disk::spool).unwrap_or_default());
    }
    if let Some(DeadLetterPlace::Directory { path, max_size }) =
        config.dead_letters().map(|letters| &letters.place)
    {
        findings.extend(disk::look_at("directory for dead letters", "directory", path));
        findings.extend(dead_letters::preflight::directory(
            path,
            *max_size,
            &config.link().name,
            config.side(),
        ));
    }
    findings
}

/// Beyond this nobody would call a clock kept; the kernel itself counts up to 16 s.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

fn clock(kept: io::Result<Option<Duration>>) -> Finding {
    const MEND: &str = "sessions, timestamps and alarms go by it; run: timedatectl set-ntp true, or look at chrony with: chronyc tracking";
    match kept {
        Ok(Some(error)) if error <= CLOCK_TOLERANCE => {
            good(format!("the clock is kept by a time service, to {} ms at worst", error.as_millis()))
        }
        Ok(Some(error)) => warning(format!("the clock may be {:.1} s off; {MEND}", error.as_secs_f64())),
        Ok(None) => warning(format!("the clock is not kept by a time service; {MEND}")),
        Err(error) => warning(format!("whether a time service keeps the clock cannot be asked: {error}")),
    }
}

/// The size of a page, as the kernel tells every process at its start (AT_PAGESZ of the auxiliary vector).
fn page_size() -> Option<usize> {
    const PAGE_SIZE: usize = 6;
    const WORD: usize = size_of::<usize>();
    let vector = std::fs::read("/proc/self/auxv").ok()?;
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    vector
        .chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(PAGE_SIZE))
        .and_then(|pair| word(&pair[WORD..]))
}

fn good(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Good, text: text.into() }
}

fn warning(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, text: text.into() }
}

fn problem(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Problem, text: text.into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn pages_are_a_power_of_two() {
        let size = page_size().unwrap();
        assert!(size.is_power_of_two() && (4096..=65536).contains(&size), "{size}");
    }

    #[test]
    fn only_a_clock_that_is_kept_is_good() {
        let said = |kept| clock(kept).to_string();
        assert!(
            said(Ok(Some(Duration::from_millis(12))))
                .starts_with("ok: the clock is kept by a time service, to 12 ms")
        );
        assert!(
            said(Ok(Some(Duration::from_secs(16)))).starts_with("warning: the clock may be 16.0 s off; ")
        );
        assert!(said(Ok(None)).starts_with("warning: the clock is not kept"));
        assert!(said(Err(io::ErrorKind::PermissionDenied.into())).starts_with("warning: whether"));
    }
}
