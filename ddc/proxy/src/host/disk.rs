//! The state directory: whether it is there or can be made, and what is left on its file system.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use super::{good, problem};
use crate::sink::preflight::Finding;

/// What must be free on the file system of a state directory: state files are small (positions, sessions, history) and are
/// written anew beside the old ones; a full disk stops a link at its next start.
pub const LEAST_FREE: u64 = 64 << 20;

pub(super) fn look(directory: &Path) -> Vec<Finding> {
    look_at("state directory", "state_dir", directory)
}

/// The same of another directory, called `what` and configured by `key`.
pub(super) fn look_at(what: &str, key: &str, directory: &Path) -> Vec<Finding> {
    let shown = directory.display();
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.into());
    // What is not there yet is made at the start, below the nearest directory that is.
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let is_there = there == absolute;
    if !there.is_dir() {
        let text = format!("{what} {shown}: {} is not a directory; choose another `{key}`", there.display());
        return vec![problem(text)];
    }
    let own = if is_there { "can be written" } else { "will be made at the start" };
    let writable = match may_write(there) {
        Ok(()) => good(format!("{what} {shown} {own}")),
        Err(why) => problem(format!("{what} {shown}: {why}")),
    };
    vec![writable, space(key, directory, there)]
}

/// Whether this process could make a file there; if not, why, and what to do.
pub(super) fn may_write(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| match error {
        rustix::io::Errno::ROFS => {
            format!("{shown} is on a read-only file system; mount a writable one there (systemd: ReadWritePaths or StateDirectory)")
        }
        _ => format!(
            "{shown} cannot be written by user {}; run: install -d -m 0700 -o USER DIRECTORY, with the user of the service (systemd: StateDirectory makes it)",
            rustix::process::geteuid().as_raw()
        ),
    })
}

fn space(key: &str, directory: &Path, there: &Path) -> Finding {
    let shown = directory.display();
    let system = match statvfs(there) {
        Ok(system) => system,
        Err(error) => return problem(format!("the file system of {shown} cannot be asked for: {error}")),
    };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        problem(format!("the file system of {shown} is read-only; mount a writable one there"))
    } else if free < LEAST_FREE {
        problem(format!(
            "{free} bytes are free on the file system of {shown}, {LEAST_FREE} are needed; make room, or choose another `{key}`"
        ))
    } else if system.f_files > 0 && system.f_favail == 0 {
        problem(format!(
            "no file can be made on the file system of {shown} (no inodes left: df -i); remove files there"
        ))
    } else {
        good(format!("{free} bytes are free on the file system of {shown}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn said(directory: &Path) -> Vec<String> {
        look(directory).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_directory_is_there_or_can_be_made_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let there = said(at);
        assert_eq!(there[0], format!("ok: state directory {} can be written", at.display()));
        assert!(
            there[1].starts_with("ok: ") && there[1].contains(" bytes are free on the file system of "),
            "{there:?}"
        );
        let missing = at.join("a/b");
        assert_eq!(
            said(&missing)[0],
            format!("ok: state directory {} will be made at the start", missing.display())
        );
        assert!(!at.join("a").exists(), "looking has made it");
        std::fs::write(at.join("file"), "").unwrap();
        let under_a_file = said(&at.join("file/b"));
        assert!(
            under_a_file[0].starts_with("problem: ") && under_a_file[0].contains("is not a directory"),
            "{under_a_file:?}"
        );
        assert!(said(Path::new("not-there-yet"))[0].starts_with("ok: "));
        // Nobody can make anything in there, not even root.
        let nowhere = said(Path::new("/proc/ddc"));
        assert!(nowhere[0].starts_with("problem: ") || nowhere[1].starts_with("problem: "), "{nowhere:?}");
    }
}
