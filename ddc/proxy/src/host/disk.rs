//! The state directory: whether it is there or can be made, and what is left on its file system.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use super::{good, problem, warning};
use crate::config::SpoolConfig;
use crate::sink::preflight::Finding;

/// What must be free on the file system of a state directory: state files are small (positions, sessions, history) and are
/// written anew beside the old ones; a full disk stops a link at its next start.
pub const LEAST_FREE: u64 = 64 << 20;

/// The size of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// All of it.
    pub bytes: u64,
    /// What this process may still write.
    pub free: u64,
}

/// The file system of a directory, or of the nearest one above it that is there.
pub fn file_system(directory: &Path) -> std::io::Result<FileSystem> {
    let absolute = std::path::absolute(directory)?;
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let system = statvfs(there)?;
    Ok(FileSystem {
        bytes: system.f_blocks.saturating_mul(system.f_frsize),
        free: system.f_bavail.saturating_mul(system.f_frsize),
    })
}

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

/// Where the spool will lie, how large it gets, and whether there is room for it.
pub(super) fn spool(config: &SpoolConfig) -> Vec<Finding> {
    let shown = config.directory.display();
    let system = match file_system(&config.directory) {
        Ok(system) => system,
        Err(error) => {
            return vec![problem(format!("the file system of {shown} cannot be asked for: {error}"))];
        }
    };
    let absolute = std::path::absolute(&config.directory).unwrap_or_else(|_| config.directory.clone());
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if let Err(why) = may_write(there) {
        return vec![problem(format!("[spool] directory {shown}: {why}"))];
    }
    let size = match config.size(system.bytes) {
        Ok(size) => size,
        Err(why) => return vec![problem(format!("[spool] in {shown}: {why}"))],
    };
    let (max, free) = (size.max, system.free);
    let has = config.used().map_or(String::new(), |used| format!(", has {used} bytes now"));
    let what = format!(
        "[spool] in {shown} takes {max} at most, in files of {}{has}; {free} bytes are free on its file system",
        size.segment
    );
    vec![if free.saturating_add(config.used().unwrap_or(0)) >= max.bytes() {
        good(what)
    } else {
        warning(format!(
            "{what}: the disk will be full first; make room, lower max_size, or choose another `directory`"
        ))
    }]
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
    fn a_spool_is_as_large_as_its_disk_lets_it() {
        let directory = tempfile::tempdir().unwrap();
        let config = |max_size| SpoolConfig {
            directory: directory.path().join("a/spool"),
            max_size,
            max_age: None,
            segment_size: None,
            fsync: ddc_spool::Fsync::Never,
            when_full: ddc_spool::WhenFull::DropNewest,
            max_batch_bytes: 17 << 20,
        };
        let said = |max_size| spool(&config(max_size)).iter().map(ToString::to_string).collect::<Vec<_>>();
        let small = said(Some(crate::config::ByteSize(80 << 20)));
        assert!(
            small[0].starts_with("ok: [spool] in ")
                && small[0].contains("takes 80MiB at most, in files of 10MiB"),
            "{small:?}"
        );
        let large = said(Some(crate::config::ByteSize(1 << 60)));
        assert!(
            large[0].starts_with("warning: ") && large[0].contains("the disk will be full first"),
            "{large:?}"
        );
        assert!(!directory.path().join("a").exists(), "looking has made it");
        // By default: never more than half of the file system, and what is too small for one is said.
        let size = config(None).size(1 << 30).unwrap();
        assert_eq!((size.max.bytes(), size.segment.bytes()), (512 << 20, 64 << 20));
        assert_eq!(config(None).size(1 << 50).unwrap().max.bytes(), 10 << 30);
        let error = config(None).size(100 << 20).unwrap_err();
        assert!(error.contains("write max_size in [spool]"), "{error}");
        std::fs::create_dir_all(directory.path().join("a/spool")).unwrap();
        std::fs::write(directory.path().join("a/spool/x.seg"), [0; 100]).unwrap();
        assert!(said(None)[0].contains(", has 100 bytes now; "), "{:?}", said(None));
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
