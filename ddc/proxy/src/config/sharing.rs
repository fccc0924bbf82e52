//! Who else can read or replace a file with a secret, and how that is mended where the file comes from.
//!
//! Owners do not matter: Kubernetes and compose hand out files of root and of strangers, and what this process can read
//! and others cannot is right. systemd gives the service's user an entry in the file's access control list; the mode's
//! group bits are that list's mask then and say nothing about the group. So the list is read where there is one.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use super::paths::Located;

const READ: u32 = 4;
const WRITE: u32 = 2;

/// An entry of a POSIX access control list, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    User { id: u32, rights: u32 },
    OwningGroup { rights: u32 },
    Group { id: u32, rights: u32 },
    Mask { rights: u32 },
}

/// The process, as files see it.
struct Me<'a> {
    user: u32,
    is_my_group: &'a dyn Fn(u32) -> bool,
}

/// Who has a secret that should not, if anybody, in words with mode and owner.
pub(super) fn too_open(file: &File, metadata: &Metadata) -> Option<String> {
    let me = Me { user: rustix::process::geteuid().as_raw(), is_my_group: &is_my_group };
    let with = sharing(metadata.mode(), metadata.gid(), &list_of(file), &me)?;
    Some(format!("{with} ({})", described(metadata)))
}

/// Mode and owner for messages.
pub(super) fn described(metadata: &Metadata) -> String {
    format!("mode {:04o}, owner {}, group {}", metadata.mode() & 0o777, metadata.uid(), metadata.gid())
}

/// Why a file with these rights is too open, if it is.
fn sharing(mode: u32, group: u32, list: &[Entry], me: &Me<'_>) -> Option<String> {
    let verb = |rights: u32| match (rights & READ != 0, rights & WRITE != 0) {
        (true, true) => Some("read and written"),
        (true, false) => Some("read"),
        (false, true) => Some("written"),
        (false, false) => None,
    };
    if let Some(verb) = verb(mode) {
        return Some(format!("{verb} by others"));
    }
    let strange_group = |id: u32, rights: u32| {
        let verb = verb(rights).filter(|_| !(me.is_my_group)(id))?;
        Some(format!("{verb} by group {id}, which this process is not in"))
    };
    let mask = list.iter().find_map(|entry| match entry {
        Entry::Mask { rights } => Some(*rights),
        _ => None,
    });
    // Without a mask there is no list, and the mode says it all.
    let Some(mask) = mask else { return strange_group(group, mode >> 3) };
    list.iter().find_map(|entry| match *entry {
        Entry::User { id, rights } if id != me.user => {
            verb(rights & mask).map(|verb| format!("{verb} by user {id}"))
        }
        Entry::User { .. } | Entry::Mask { .. } => None,
        Entry::OwningGroup { rights } => strange_group(group, rights & mask),
        Entry::Group { id, rights } => strange_group(id, rights & mask),
    })
}

fn is_my_group(group: u32) -> bool {
    rustix::process::getegid().as_raw() == group
        || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|own| own.as_raw() == group))
}

/// The most bytes of a list that are read: 128 entries. A longer one is not looked at: its mask, in the mode, then counts for
/// the group, which refuses too much rather than too little.
const LONGEST_LIST: usize = 4 + 128 * 8;

/// The file's access control list; empty when it has none, or the file system has no such thing.
fn list_of(file: &File) -> Vec<Entry> {
    let mut bytes = [0; LONGEST_LIST];
    match rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut bytes[..]) {
        Ok(length) => parse(&bytes[..length]),
        Err(_) => Vec::new(),
    }
}

/// Reads a list as the kernel stores it: a version, then a tag, rights and an id for each entry, all little-endian
/// (include/uapi/linux/posix_acl_xattr.h).
fn parse(bytes: &[u8]) -> Vec<Entry> {
    const VERSION: [u8; 4] = 2u32.to_le_bytes();
    let Some(entries) = bytes.strip_prefix(&VERSION) else { return Vec::new() };
    let entry = |entry: &[u8]| {
        let rights = u32::from(u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x02 => Some(Entry::User { id, rights }),
            0x04 => Some(Entry::OwningGroup { rights }),
            0x08 => Some(Entry::Group { id, rights }),
            0x10 => Some(Entry::Mask { rights }),
            // The owner and all others: the mode has them.
            _ => None,
        }
    };
    entries.chunks_exact(8).filter_map(entry).collect()
}

/// Who puts a file where it is, and so where rights are mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper<'a> {
    /// A person, on this host.
    Host,
    /// systemd, by `LoadCredential=` with this name.
    Systemd(&'a str),
    /// The kubelet, which mounts a secret as links into a directory that it exchanges as a whole.
    Kubernetes,
    /// Compose or an engine, which mounts a file of its host, with that file's mode and owner.
    Compose,
}

impl<'a> Keeper<'a> {
    /// Tells by the path, and by where its links lead.
    pub(super) fn of(located: &'a Located) -> Self {
        if let Some(name) = &located.credential {
            return Self::Systemd(name);
        }
        let of_kubelet = |part: Component<'_>| match part {
            Component::Normal(name) => name.to_string_lossy().starts_with(".."),
            _ => false,
        };
        let leads_to = located.path.canonicalize();
        if leads_to.is_ok_and(|path| path.components().any(of_kubelet)) {
            return Self::Kubernetes;
        }
        let mounts = ["/run/secrets", "/var/run/secrets"];
        if mounts.iter().any(|mount| located.path.starts_with(mount)) { Self::Compose } else { Self::Host }
    }

    /// What gives a file the right mode and owner. `metadata` is not known when even that was refused.
    pub(super) fn mend(self, path: &Path, metadata: Option<&Metadata>) -> String {
        let me = rustix::process::geteuid().as_raw();
        let path = path.display();
        let is_mine = metadata.is_some_and(|metadata| metadata.uid() == me);
        let is_for_a_group = metadata.is_some_and(|metadata| metadata.mode() & (READ | WRITE) == 0);
        match self {
            Self::Kubernetes => format!(
                "in the pod write defaultMode: 0440 for the secret's volume and fsGroup: {} in the securityContext",
                rustix::process::getegid().as_raw()
            ),
            Self::Compose => format!(
                "on the host run, for the file that is mounted here: chown {me} FILE && chmod 400 FILE"
            ),
            Self::Host if me == 0 && is_mine && is_for_a_group => format!(
                "run: chmod 600 {path}, or, if that is the group of the service, check as its user: sudo -u USER ddc check …"
            ),
            Self::Host | Self::Systemd(_) if is_mine => format!("run: chmod 600 {path}"),
            Self::Host | Self::Systemd(_) => format!("run: chown {me} {path} && chmod 600 {path}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const ME: Me<'_> = Me { user: 50, is_my_group: &|group| group == 7 };

    #[test]
    fn a_group_may_read_only_when_the_process_is_in_it() {
        let said = |mode, group| sharing(mode, group, &[], &ME);
        assert_eq!(said(0o640, 7), None);
        assert_eq!(said(0o440, 7), None, "as Kubernetes does it with fsGroup");
        assert_eq!(said(0o400, 8), None, "as systemd does it on a ramfs, whoever the owner is");
        assert_eq!(said(0o640, 8).as_deref(), Some("read by group 8, which this process is not in"));
        assert_eq!(
            said(0o660, 8).as_deref(),
            Some("read and written by group 8, which this process is not in")
        );
        assert_eq!(said(0o604, 7).as_deref(), Some("read by others"));
        assert_eq!(said(0o444, 7).as_deref(), Some("read by others"));
        assert_eq!(said(0o711, 8), None, "execution says nothing about the content");
    }

    /// The bytes of a list with these entries (tag, rights, id).
    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |(tag, rights, id): &(u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [2u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
    }

    const NONE: u32 = u32::MAX;

    /// systemd on a tmpfs: root's file, mode 0400, with an entry for the service's user; the mode then shows 0440.
    #[test]
    fn of_an_access_control_list_every_entry_counts_under_its_mask() {
        let said = |entries: &[(u16, u16, u32)]| sharing(0o440, 0, &parse(&list(entries)), &ME);
        let (owner, group, mask, other) = ((1, 4, NONE), (4, 0, NONE), (16, 4, NONE), (32, 0, NONE));
        assert_eq!(said(&[owner, (2, 4, 50), group, mask, other]), None);
        assert_eq!(said(&[owner, (2, 4, 51), group, mask, other]).as_deref(), Some("read by user 51"));
        assert_eq!(said(&[owner, (2, 4, 51), group, (16, 0, NONE), other]), None, "the mask takes it away");
        assert_eq!(
            said(&[owner, (4, 4, NONE), mask, other]).as_deref(),
            Some("read by group 0, which this process is not in")
        );
        assert_eq!(said(&[owner, group, (8, 4, 7), mask, other]), None);
        assert_eq!(
            said(&[owner, group, (8, 4, 9), mask, other]).as_deref(),
            Some("read by group 9, which this process is not in")
        );
        assert!(said(&[]).is_some(), "without a list the mode counts");
        assert_eq!(parse(b"\x01\0\0\0junk"), []);
        assert_eq!(parse(b""), []);
    }

    #[test]
    fn a_files_list_is_read_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(list_of(&file), []);
        let stranger = rustix::process::geteuid().as_raw() + 4321;
        let bytes = list(&[(1, 4, NONE), (2, 4, stranger), (4, 0, NONE), (16, 4, NONE), (32, 0, NONE)]);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&file, "system.posix_acl_access", &bytes, flags)
            .expect("the file system of temporary files has access control lists");
        let said = too_open(&file, &file.metadata().unwrap()).unwrap();
        assert!(said.starts_with(&format!("read by user {stranger} (mode 0440, owner ")), "{said}");
    }

    #[test]
    fn the_mend_is_for_the_place_the_file_comes_from() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("..2026_11_22")).unwrap();
        std::fs::write(at("..2026_11_22/a.key"), "").unwrap();
        symlink("..2026_11_22", at("..data")).unwrap();
        symlink("..data/a.key", at("a.key")).unwrap();
        std::fs::write(at("b.key"), "").unwrap();
        let keeper = |located: Located| format!("{:?}", Keeper::of(&located));
        assert_eq!(keeper(at("a.key").into()), "Kubernetes");
        assert_eq!(keeper(at("b.key").into()), "Host");
        assert_eq!(keeper(Path::new("/run/secrets/link").to_owned().into()), "Compose");
        assert_eq!(
            keeper(Located { path: at("a.key"), credential: Some("link.key".into()) }),
            "Systemd(\"link.key\")"
        );
        let mine = std::fs::metadata(at("b.key")).unwrap();
        let mend = |keeper: Keeper<'_>, metadata| keeper.mend(Path::new("F"), metadata);
        assert_eq!(mend(Keeper::Host, Some(&mine)), "run: chmod 600 F");
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(mend(Keeper::Host, None), format!("run: chown {me} F && chmod 600 F"));
        assert!(mend(Keeper::Kubernetes, Some(&mine)).contains("defaultMode: 0440"));
        assert!(mend(Keeper::Compose, Some(&mine)).contains("on the host"));
    }
}
