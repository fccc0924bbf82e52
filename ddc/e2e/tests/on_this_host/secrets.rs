//! Keys as systemd, Kubernetes and compose mount them, looked at by the user who is to read them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{Answer, Host, INGRESS, USER};

/// The kubelet's way: a new directory is filled, then one link is exchanged.
pub(super) fn exchange(secret: &Path, version: &str, digit: &str) {
    fs::create_dir_all(secret.join(version)).unwrap();
    let key = secret.join(version).join("link.key");
    fs::write(&key, digit.repeat(64)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o440)).unwrap();
    symlink(version, secret.join("..data_tmp")).unwrap();
    fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
    if !secret.join("link.key").exists() {
        symlink("..data/link.key", secret.join("link.key")).unwrap();
    }
}

/// A configuration with its key elsewhere.
fn key_in(path: &str) -> String {
    INGRESS.replace("\"link.key\"", &format!("{path:?}"))
}

/// Who hands a key out, and what it takes to be accepted or is said instead.
#[test]
fn keys_are_taken_as_they_are_mounted_and_wrong_modes_are_named() {
    let host = Host::new();
    let credential = key_in("${CREDENTIALS_DIRECTORY}/link.key");
    host.write("link.toml", &credential);
    exchange(&host.at("secret"), "..one", "1");
    let key = host.at("secret/..one/link.key");
    let set = |user: u32, group: u32, mode: u32| {
        chown(&key, Some(user), Some(group)).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
    };
    let as_user = |file: &str| {
        let mut command = host.ddc(&format!("check -c {file}"));
        Answer::of(command.env("CREDENTIALS_DIRECTORY", host.at("secret")).uid(USER).gid(USER))
    };
    let accepted = |answer: &Answer| assert_eq!((answer.code, answer.errors.as_str()), (0, ""));
    let refused = |answer: &Answer, parts: &[&str]| {
        assert_eq!(answer.code, 78, "{}{}", answer.out, answer.errors);
        let line = answer.errors.lines().next().unwrap();
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
    };
    // LoadCredential= on a ramfs: the service's user owns it. Kubernetes: root's file, the pod's fsGroup.
    set(USER, 0, 0o400);
    accepted(&as_user("link.toml"));
    set(0, USER, 0o440);
    accepted(&as_user("link.toml"));
    host.write("pod.toml", &key_in("secret/link.key"));
    accepted(&as_user("pod.toml"));
    set(0, USER, 0o444);
    let shown = "mode 0444, owner 0, group 65532";
    refused(&as_user("pod.toml"), &["can be read by others", shown, "defaultMode: 0440", "fsGroup: 65532"]);
    set(0, 0, 0o400);
    let shown = "mode 0400, owner 0, group 0";
    refused(&as_user("pod.toml"), &["cannot be read by this user", shown, "fsGroup: 65532"]);
    refused(&as_user("link.toml"), &["cannot be read by this user", shown, "run: chown 65532 ", "chmod 600"]);

    // Compose: the host's file is mounted over an empty one, with the host's owner and mode.
    let compose = |user: u32, mode: u32| {
        host.key("of-the-host.key", '1');
        chown(host.at("of-the-host.key"), Some(user), Some(user)).unwrap();
        fs::set_permissions(host.at("of-the-host.key"), Permissions::from_mode(mode)).unwrap();
        host.write("compose.toml", &key_in("/run/secrets/link.key"));
        let script = "mount -t tmpfs tmpfs /run; mkdir -p /run/secrets; : > /run/secrets/link.key; \
                      mount --bind of-the-host.key /run/secrets/link.key; \
                      exec setpriv --reuid 65532 --regid 65532 --clear-groups ./ddc check -c compose.toml";
        let mut command = Command::new("unshare");
        Answer::of(command.args(["-m", "sh", "-ec", script]).current_dir(host.directory.path()))
    };
    accepted(&compose(USER, 0o400));
    refused(
        &compose(1000, 0o644),
        &["can be read by others", "owner 1000", "on the host run", "chown 65532 FILE"],
    );
    refused(&compose(1000, 0o400), &["cannot be read by this user", "owner 1000", "chown 65532 FILE"]);

    // A real ramfs, as systemd mounts it, for the service's user and for root.
    let on_ramfs = |user: u32| {
        let script = format!(
            "mkdir -p creds; mount -t ramfs -o mode=0700 ramfs creds; chown {user} creds; \
             install -m 0400 -o {user} link.key creds/link.key; : > creds/empty; chown {user} creds/empty; chmod 0400 creds/empty; \
             export CREDENTIALS_DIRECTORY=$PWD/creds; \
             exec setpriv --reuid {user} --regid {user} --clear-groups ./ddc check -c link.toml"
        );
        let mut command = Command::new("unshare");
        Answer::of(command.args(["-m", "sh", "-ec", &script]).current_dir(host.directory.path()))
    };
    accepted(&on_ramfs(USER));
    accepted(&on_ramfs(0));
    host.write("link.toml", &key_in("${CREDENTIALS_DIRECTORY}/empty"));
    refused(&on_ramfs(USER), &["is empty: the unit's LoadCredential=empty:FILE found no file"]);
}
