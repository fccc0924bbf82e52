# shellcheck shell=bash
# What every script here shares: pinned versions, the cache, messages, and the choice of the Rust toolchain.
# Sourced, never run. Does not change directory and prints nothing by itself.

# Pinned versions of what is downloaded; those of the checking tools are in scripts/tools/, of what ships with DDC in
# deploy/versions.toml.
# shellcheck disable=SC2034 # read by the scripts that source this file
{
  KAFKA_4_VERSION=4.3.1
  KAFKA_3_VERSION=3.9.2
  CARGO_DENY_VERSION=0.20.2
}

ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Services and CI sometimes run without a home in the environment.
if [[ -z ${HOME:-} ]]; then
  HOME=$(getent passwd "$(id -u)" | cut -d : -f 6)
  export HOME
fi
CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/ddc

# Exit codes as the ddc command uses them (sysexits): 64 usage, 69 something needed is not available.
readonly EX_USAGE=64 EX_UNAVAILABLE=69

say() { printf '%s\n' "$*" >&2; }

die() {
  local code=$1
  shift
  say "${0##*/}: $*"
  exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_at_least HAVE WANT: compares dotted numbers.
version_at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# The oldest compiler the workspace accepts, from the one place where it is written.
rust_version_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT_DIR/Cargo.toml"; }

# rust_is_recent [DIR]: cargo and rustc (of that directory, or of the PATH) are there and recent enough.
rust_is_recent() {
  local prefix=${1:+$1/} version
  "${prefix}cargo" --version >/dev/null 2>&1 || return 1
  version=$("${prefix}rustc" --version 2>/dev/null | cut -d ' ' -f 2) || return 1
  [[ -n $version ]] && version_at_least "${version%%-*}" "$(rust_version_wanted)"
}

# Puts a recent Rust toolchain first on the PATH: the one that is there; else ~/.cargo/bin, which a shell without
# login files does not have on its PATH; else the distribution's in /usr/bin, when an older one hides it.
use_rust() {
  local dir
  rust_is_recent && return 0
  for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" /usr/bin; do
    if rust_is_recent "$dir"; then
      export PATH="$dir:$PATH"
      # A cargo of the distribution must not call the compiler of an older rustup that comes later.
      unset RUSTUP_TOOLCHAIN
      return 0
    fi
  done
  return 1
}

# Where cargo puts what it builds, as an absolute path: tests run in the directories of their packages.
target_dir() {
  local target=${CARGO_TARGET_DIR:-target}
  [[ $target == /* ]] || target=$ROOT_DIR/$target
  printf '%s\n' "$target"
}

# minutes SECONDS: "3.4".
minutes() { printf '%d.%d\n' $(($1 / 60)) $(($1 % 60 * 10 / 60)); }

# require_root REASON
require_root() { ((EUID == 0)) || die "$EX_UNAVAILABLE" "needs root: $1"; }
