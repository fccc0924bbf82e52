//! Keys and passwords: read from files or the environment, never printed.
//!
//! A file with a secret is refused when people who have no business with it can read or replace it. Symbolic links are
//! followed, since Kubernetes, compose and systemd hand out secrets that way; what counts is the file they lead to.
//! Every refusal names the command that mends it.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;

use super::Environment;
use super::paths::Located;
use super::sharing::{Keeper, described, too_open};

/// A link's 256-bit key. Its `Debug` shows only the fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes key bytes, for instance fresh ones of a demonstration.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key itself. Where this is called, the key leaves the configuration's care.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 hex digits of the key's SHA-256: enough to see that two sides have the same key, useless otherwise.
    pub fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        hex(&digest.as_ref()[..4])
    }

    /// The key as a key file holds it: 64 hex digits and a newline.
    pub fn to_file_text(&self) -> String {
        hex(&self.0) + "\n"
    }

    /// Reads what a key file holds. The error says what is wrong with it, never what it holds.
    pub fn from_file_text(text: &[u8]) -> Result<Self, String> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        if let Some(at) = text.iter().position(|byte| digit(*byte).is_none()) {
            return Err(format!("is no key: character {} is no hex digit", at + 1));
        }
        if text.len() != 64 {
            return Err(format!("holds {} hex digits, a key has 64", text.len()));
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            // Both are digits: looked at above.
            *byte = digit(pair[0]).unwrap_or(0) << 4 | digit(pair[1]).unwrap_or(0);
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(fingerprint {})", self.fingerprint())
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A password. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The largest file that is read as a secret: tokens and passwords are far smaller.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Reads a key file.
pub(crate) fn key_file(located: &Located) -> Result<SecretKey, String> {
    let shown = located.path.display();
    let make = format!("ddc keygen --out {shown}");
    let bytes =
        secret_file("key file", located, &format!("run: {make}, and copy the file to the other side"))?;
    SecretKey::from_file_text(&bytes).map_err(|why| {
        format!("key file {shown} {why}; copy the other side's, or for a new link run: rm {shown} && {make}")
    })
}

/// Reads a password: the file's text without one newline at its end.
pub(crate) fn password_file(located: &Located) -> Result<Secret, String> {
    let shown = located.path.display();
    let bytes = secret_file("password file", located, "write the password into it and run: chmod 600 on it")?;
    let text = String::from_utf8(bytes).map_err(|_| format!("password file {shown} is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("password file {shown} is empty; write the password into it"));
    }
    Ok(Secret::new(text))
}

/// Reads a password from the environment.
pub(crate) fn password_env(name: &str, environment: Environment<'_>) -> Result<Secret, String> {
    match environment(name) {
        Some(text) if !text.is_empty() => Ok(Secret::new(text)),
        Some(_) => Err(format!("the environment variable {name} is empty; set it to the password")),
        None => Err(format!("the environment variable {name} is not set; set it to the password")),
    }
}

/// Checks that a private file that librdkafka will read is there, readable and not open to others.
pub(crate) fn private_file(what: &str, located: &Located) -> Result<(), String> {
    secret_file(what, located, "correct the path").map(drop)
}

/// Checks that a public file that librdkafka will read is there and readable.
pub(crate) fn public_file(what: &str, located: &Located) -> Result<(), String> {
    open(what, located, "correct the path").map(drop)
}

fn secret_file(what: &str, located: &Located, when_missing: &str) -> Result<Vec<u8>, String> {
    let path = &located.path;
    let shown = path.display();
    let (file, metadata) = open(what, located, when_missing)?;
    if let Some(with) = too_open(&file, &metadata) {
        return Err(format!(
            "{what} {shown} can be {with}; {}",
            Keeper::of(located).mend(path, Some(&metadata))
        ));
    }
    if metadata.len() > LARGEST_SECRET {
        return Err(format!("{what} {shown} is larger than 64 KiB; correct the path"));
    }
    let mut bytes = Vec::new();
    // The length can lie (pipes, /proc): the read is bounded by itself.
    file.take(LARGEST_SECRET)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{what} {shown} cannot be read: {error}"))?;
    match &located.credential {
        // How a unit makes a credential optional: an empty SetCredential= holds when LoadCredential= finds no file.
        Some(name) if bytes.trim_ascii().is_empty() => Err(format!(
            "{what} {shown} is empty: the unit's LoadCredential={name}:FILE found no file, or an empty one; fill that file (systemctl cat UNIT names it) and restart the unit, or take this path out of the configuration"
        )),
        _ => Ok(bytes),
    }
}

fn open(what: &str, located: &Located, when_missing: &str) -> Result<(File, Metadata), String> {
    let path = &located.path;
    let shown = path.display();
    let failed = |error: std::io::Error, metadata: Option<&Metadata>| match error.kind() {
        std::io::ErrorKind::NotFound => match &located.credential {
            Some(name) => format!(
                "{what} {shown} does not exist; the unit needs LoadCredential={name}:FILE (systemctl edit UNIT), or correct the name"
            ),
            None => format!("{what} {shown} does not exist; {when_missing}"),
        },
        std::io::ErrorKind::PermissionDenied => {
            let whose = metadata.map(|metadata| format!(" ({})", described(metadata))).unwrap_or_default();
            let mend = Keeper::of(located).mend(path, metadata);
            format!("{what} {shown} cannot be read by this user{whose}; {mend}")
        }
        _ => format!("{what} {shown} cannot be read: {error}"),
    };
    // Looked at before it is opened: opening a pipe that nobody writes would wait for ever.
    let metadata = std::fs::metadata(path).map_err(|error| failed(error, None))?;
    if !metadata.is_file() {
        return Err(format!("{what} {shown} is not a file; correct the path"));
    }
    let file = File::open(path).map_err(|error| failed(error, Some(&metadata)))?;
    // Of the opened file: what is judged is what is read.
    let metadata = file.metadata().map_err(|error| failed(error, None))?;
    Ok((file, metadata))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn written(directory: &Path, name: &str, text: &str, mode: u32) -> Located {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.into()
    }

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n";

    #[test]
    fn a_key_file_is_read_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), "a.key", KEY, 0o600);
        let key = key_file(&path).unwrap();
        assert_eq!(key.expose()[..3], [0x00, 0x11, 0x22]);
        assert_eq!(key.to_file_text(), KEY.to_lowercase());
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.fingerprint()) && !shown.contains("001122"), "{shown}");
        // A link, as Kubernetes makes them.
        let link = directory.path().join("link.key");
        symlink(&path.path, &link).unwrap();
        assert_eq!(key_file(&link.into()).unwrap(), key);
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn every_bad_key_file_is_refused_with_the_command_that_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let mut said = Vec::new();
        let owner = std::fs::metadata(at).unwrap();
        let owner = format!("owner {}, group {}", owner.uid(), owner.gid());
        let mut refuse = |located: Located| {
            let message = key_file(&located).unwrap_err();
            said.push(message.replace(at.to_str().unwrap(), "DIR").replace(&owner, "owner U, group G"));
        };
        refuse(written(at, "others-read.key", KEY, 0o644));
        refuse(written(at, "others-write.key", KEY, 0o602));
        refuse(written(at, "empty.key", "\n", 0o600));
        refuse(written(at, "short.key", &KEY[..32], 0o600));
        refuse(written(at, "long.key", &KEY.replace('\n', "00"), 0o600));
        refuse(written(at, "base64.key", "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=", 0o600));
        refuse(written(at, "huge.key", &"0".repeat(70_000), 0o600));
        refuse(at.join("missing.key").into());
        refuse(at.to_owned().into());
        // An optional credential that is not there: systemd makes an empty file, or none.
        let credential = |located: Located| Located { credential: Some("link-next.key".into()), ..located };
        refuse(credential(written(at, "link-next.key", "", 0o400)));
        refuse(credential(at.join("link.key").into()));
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn passwords_come_from_files_and_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), "password", "p w\r\n", 0o600);
        assert_eq!(password_file(&path).unwrap().expose(), "p w");
        let open = written(directory.path(), "open", "p\n", 0o644);
        let said = password_file(&open).unwrap_err();
        assert!(
            said.contains("can be read by others (mode 0644, owner ") && said.contains("run: chmod 600"),
            "{said}"
        );
        let empty = written(directory.path(), "empty", "\n", 0o600);
        assert!(password_file(&empty).unwrap_err().contains("is empty"));
        let environment = |name: &str| (name == "SET").then(|| "secret".to_owned());
        assert_eq!(password_env("SET", &environment).unwrap().expose(), "secret");
        assert_eq!(
            password_env("UNSET", &environment).unwrap_err(),
            "the environment variable UNSET is not set; set it to the password"
        );
    }
}
