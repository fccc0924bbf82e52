//! `ddc keygen`: a fresh link key, written so that nobody else can read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ddc_proxy::config::SecretKey;
use ring::rand::{SecureRandom, SystemRandom};

use super::{print, words};
use crate::exit::{Exit, Failure};

/// Make a link key: 256 random bits as 64 hex digits
///
/// Both sides of a link need the same file. The fingerprint (the first 8 hex digits of the key's SHA-256) tells whether
/// they have it; `ddc check` prints it too.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the key to this file (mode 0600) instead of standard output; an existing file is never overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new(Exit::Internal, "the system gives no random numbers"))?;
    let key = SecretKey::new(bytes);
    let Some(path) = &arguments.out else {
        // The fingerprint must not end up in the file that standard output is sent to.
        super::remark(&format!("key with fingerprint {}", key.fingerprint()));
        return print(&key.to_file_text());
    };
    let shown = path.display();
    match write(path, &key) {
        Ok(()) => print(&format!("{shown}: key with fingerprint {}\n", key.fingerprint())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(
            Exit::Usage,
            format!("{shown} exists and is not overwritten; choose another name, or remove it first"),
        )),
        Err(error) => Err(Failure::new(Exit::Unavailable, format!("{shown}: {}", words(&error)))),
    }
}

/// Creates the file for its owner only and waits until it is on the disk, its name too.
fn write(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(key.to_file_text().as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key helps nobody and would stand in the way of the next try.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
