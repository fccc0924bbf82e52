//! No process and no directory outlives the tests, however they end.
//!
//! A shell waits at the other end of a pipe. When this process ends (also by SIGKILL), the pipe closes, and the shell
//! kills every process and removes every directory that it was told of. `Drop` alone would not do: brokers live in
//! statics, which are never dropped.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = r#"
trap '' TERM INT HUP
pids= dirs=
while read -r verb what; do
  case $verb in
    pid) pids="$pids $what" ;;
    gone) left=; for pid in $pids; do [ "$pid" = "$what" ] || left="$left $pid"; done; pids=$left ;;
    dir) dirs="$dirs $what" ;;
  esac
done
for pid in $pids; do kill -KILL "$pid"; done
for dir in $dirs; do rm -rf -- "$dir"; done
"#;

struct Reaper {
    pipe: ChildStdin,
    // Kept so that its pipe stays open; it ends by itself.
    _shell: Child,
}

fn tell(line: &str) {
    static REAPER: OnceLock<Mutex<Reaper>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let pipe = shell.stdin.take().expect("its input is a pipe");
        Mutex::new(Reaper { pipe, _shell: shell })
    });
    let mut reaper = reaper.lock().unwrap_or_else(PoisonError::into_inner);
    reaper.pipe.write_all(format!("{line}\n").as_bytes()).expect("the reaper lives");
}

/// This process shall not outlive us.
pub fn watch(child: &Child) {
    tell(&format!("pid {}", child.id()));
}

/// This process has ended and was waited for.
pub fn ended(child: &Child) {
    tell(&format!("gone {}", child.id()));
}

/// This directory shall not outlive us. Its path must not hold white space.
pub fn remove_at_end(directory: &Path) {
    tell(&format!("dir {}", directory.display()));
}
