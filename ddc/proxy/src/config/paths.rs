//! Paths as they are written in a configuration, and as they are opened.
//!
//! A relative path starts at the directory of the configuration file. One thing is expanded, at the very beginning:
//! `${CREDENTIALS_DIRECTORY}/`, which systemd sets for a unit with `LoadCredential=`. Nothing else is: a configuration that
//! means something else in every environment cannot be checked by looking at it.

use std::path::{Path, PathBuf};

use super::Environment;
use super::units::ValueError;

/// The one variable, as systemd names it.
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// How it is written, with what must follow.
const PREFIX: &str = "${CREDENTIALS_DIRECTORY}/";

/// What the description of every path says besides its own.
pub(crate) const NOTE: &str = " May begin with `${CREDENTIALS_DIRECTORY}/`.";

/// A path of the configuration, ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The name of the systemd credential, when it was written as one.
    pub(crate) credential: Option<String>,
}

impl From<PathBuf> for Located {
    fn from(path: PathBuf) -> Self {
        Self { path, credential: None }
    }
}

/// Refuses what looks like a variable and is none. A `$` in the midst of a name is an ordinary character.
pub(crate) fn check(text: &str) -> Result<(), ValueError> {
    let rest = match text.strip_prefix(PREFIX) {
        Some("") => {
            return Err(ValueError::new(format!("{text:?} names no file; for example \"{PREFIX}link.key\"")));
        }
        Some(rest) => rest,
        None => text,
    };
    let begins_with_variable = |part: &str| {
        part.strip_prefix('$')
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    };
    if rest.contains("${") || rest.split('/').any(begins_with_variable) {
        return Err(ValueError::new(format!(
            "{text:?} holds a variable that is not expanded; only {PREFIX} is, and only at the beginning; write the path itself"
        )));
    }
    Ok(())
}

/// Where a path of the configuration `file` leads. What cannot be told is said without the key's name.
pub(crate) fn locate(file: &Path, path: &Path, environment: Environment<'_>) -> Result<Located, String> {
    let Some(name) = path.to_str().and_then(|text| text.strip_prefix(PREFIX)) else {
        let directory = file.parent().unwrap_or(Path::new(""));
        return Ok(directory.join(path).into());
    };
    let directory = environment(VARIABLE).filter(|directory| !directory.is_empty()).ok_or_else(|| {
        format!(
            "{:?} needs the environment variable {VARIABLE}, which is not set: systemd sets it for a unit with LoadCredential={name}:FILE; by hand run: {VARIABLE}=DIR ddc check -c {}",
            path.display().to_string(),
            file.display()
        )
    })?;
    // As every path from the environment, it starts at the working directory, not at the configuration file's.
    let directory = std::path::absolute(&directory).unwrap_or_else(|_| directory.into());
    Ok(Located { path: directory.join(name), credential: Some(name.to_owned()) })
}

/// A text of `properties` that is written as a credential's path, such as a keytab's; every other text is left alone.
pub(crate) fn is_credential(text: &str) -> bool {
    text.starts_with(PREFIX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn one_variable_is_expanded_and_only_at_the_beginning() {
        for right in [
            "/etc/ddc/a.key",
            "a$b.key",
            "cost$",
            "/srv/$1/a",
            "${CREDENTIALS_DIRECTORY}/link.key",
            "${CREDENTIALS_DIRECTORY}/a$b",
        ] {
            assert!(check(right).is_ok(), "{right}");
        }
        for wrong in [
            "$HOME/a.key",
            "/etc/$LINK/a.key",
            "${HOME}/a.key",
            "keys/${CREDENTIALS_DIRECTORY}/a.key",
            "$CREDENTIALS_DIRECTORY/a.key",
            "${CREDENTIALS_DIRECTORY}",
            "${CREDENTIALS_DIRECTORY}link.key",
            "${CREDENTIALS_DIRECTORY}/${NAME}",
            "/a${",
        ] {
            let said = check(wrong).unwrap_err().to_string();
            assert!(said.contains("only ${CREDENTIALS_DIRECTORY}/ is"), "{wrong}: {said}");
        }
        assert!(check("${CREDENTIALS_DIRECTORY}/").unwrap_err().to_string().contains("names no file"));
    }

    #[test]
    fn a_credential_needs_its_directory_and_says_who_sets_it() {
        let file = Path::new("/etc/ddc/egress-a.toml");
        let written = Path::new("${CREDENTIALS_DIRECTORY}/link.key");
        let set = |value: &'static str| move |name: &str| (name == VARIABLE).then(|| value.to_owned());
        let found = locate(file, written, &set("/run/credentials/u")).unwrap();
        assert_eq!(found.path, Path::new("/run/credentials/u/link.key"));
        assert_eq!(found.credential.as_deref(), Some("link.key"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(locate(file, written, &set("c")).unwrap().path, here.join("c/link.key"));
        let unset = |_: &str| None;
        assert_eq!(locate(file, written, &unset), locate(file, written, &set("")), "empty is unset");
        insta::assert_snapshot!(
            locate(file, written, &unset).unwrap_err(),
            @r#""${CREDENTIALS_DIRECTORY}/link.key" needs the environment variable CREDENTIALS_DIRECTORY, which is not set: systemd sets it for a unit with LoadCredential=link.key:FILE; by hand run: CREDENTIALS_DIRECTORY=DIR ddc check -c /etc/ddc/egress-a.toml"#
        );
        // Without the variable nothing is asked for.
        assert_eq!(locate(file, Path::new("a.key"), &unset).unwrap(), PathBuf::from("/etc/ddc/a.key").into());
    }
}
