#!/usr/bin/env bash
# Proves that the set-up is complete: makes a minimal Debian 12 root, clones HEAD of this checkout into it and runs
# commands there as a new machine would. A green run on a machine where things were installed by hand hides a
# missing step. Only what is committed is tried.
#
#   fresh-root.sh [--keep] [--directory D] [COMMAND…]     default commands: "make demo" "make test"
#
# A directory kept by an earlier run is used again, with a new clone.
#
# Each COMMAND is one argument, run by bash in the clone. Minutes of each are printed; the first failure ends it.
# Needs root, git and mmdebstrap. What this host needs to reach its package registries (certificates, proxy
# variables, the cargo, Maven and pip configuration of the user, apt settings) goes along, when there is any.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/roots.sh
source "$(dirname "${BASH_SOURCE[0]}")/roots.sh"

# What the README asks for before the two commands.
INCLUDE=make,git,ca-certificates

main() {
  local keep='' directory=''
  while (($#)); do
    case $1 in
      --keep) keep=1 ;;
      --directory)
        directory=${2:?--directory needs a value}
        shift
        ;;
      -*) die "$EX_USAGE" "unknown option \`$1\`; usage: fresh-root.sh [--keep] [--directory D] [COMMAND…]" ;;
      *) break ;;
    esac
    shift
  done
  require_root "it makes a root directory with mounts"

  # Mounts live in a namespace of their own: they end with this script, and removing the root can't follow them.
  if [[ ${FRESH_ROOT_UNSHARED:-} != "$$" ]]; then
    # exec keeps the process id, which therefore marks the second round.
    FRESH_ROOT_UNSHARED=$$ exec unshare --mount --propagation private "${BASH_SOURCE[0]}" \
      ${keep:+--keep} ${directory:+--directory "$directory"} "$@"
  fi

  ROOT=${directory:-$(mktemp -d "${TMPDIR:-/tmp}/ddc-fresh-root.XXXXXX")}
  [[ $keep ]] || trap remove_root EXIT
  (($#)) || set -- "make demo" "make test"

  timed "mmdebstrap $ROOTS_SUITE" make_root
  timed "host settings" copy_host_settings
  timed "clone" clone
  mount_system
  local command
  for command in "$@"; do
    timed "$command" in_root "$command"
  done
  say "fresh root: all of it worked${keep:+; kept in $ROOT}"
}

timed() {
  local name=$1 since=$SECONDS code=0
  shift
  "$@" || code=$?
  printf 'fresh root: %s: %s min\n' "$name" "$(minutes $((SECONDS - since)))"
  ((code == 0)) || die "$code" "failed: $name"
}

make_root() {
  if [[ -d $ROOT/root/ddc ]]; then
    rm -rf "$ROOT/root/ddc"
    return 0
  fi
  debian_root "$ROOT" "$INCLUDE"
}

copy_host_settings() {
  local file
  cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
  if [[ -f /etc/hosts ]]; then cp /etc/hosts "$ROOT/etc/hosts"; fi
  # Every authority this host trusts, one file each, so that Debian's own hooks (Java's store too) take them over.
  mkdir -p "$ROOT/usr/local/share/ca-certificates"
  awk -v dir="$ROOT/usr/local/share/ca-certificates" \
    '/BEGIN CERTIFICATE/ { n++ } n { print > (dir "/host-" n ".crt") } /END CERTIFICATE/ { close(dir "/host-" n ".crt") }' \
    /etc/ssl/certs/ca-certificates.crt
  chroot "$ROOT" update-ca-certificates >/dev/null 2>&1
  for file in "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$HOME/.m2/settings.xml" "$HOME/.config/pip/pip.conf"; do
    [[ -f $file ]] || continue
    case $file in
      */config.toml) install -D -m 600 "$file" "$ROOT/root/.cargo/config.toml" ;;
      */settings.xml) install -D -m 600 "$file" "$ROOT/root/.m2/settings.xml" ;;
      *) install -D -m 600 "$file" "$ROOT/root/.config/pip/pip.conf" ;;
    esac
  done
  if [[ -f /etc/pip.conf ]]; then cp /etc/pip.conf "$ROOT/etc/pip.conf"; fi
}

# A clean clone: nothing built, nothing ignored, nothing uncommitted.
clone() {
  git -c advice.detachedHead=false clone --quiet --no-local "$ROOT_DIR" "$ROOT/root/ddc"
  say "fresh root: commit $(git -C "$ROOT/root/ddc" log -1 --format='%h %s')"
}

mount_system() {
  # The root must be a mount point of its own, or `ip netns exec` can't make it private.
  mount --bind "$ROOT" "$ROOT"
  mount -t proc proc "$ROOT/proc"
  mount --rbind /dev "$ROOT/dev"
  mount --rbind /sys "$ROOT/sys"
  mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
}

in_root() {
  local name variables=()
  # Only what says how to reach the registries.
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY MAVEN_OPTS PIP_INDEX_URL \
    PIP_DEFAULT_TIMEOUT CARGO_HTTP_CAINFO CARGO_NET_GIT_FETCH_WITH_CLI; do
    if [[ -n ${!name:-} ]]; then variables+=("$name=${!name}"); fi
  done
  chroot "$ROOT" env -i HOME=/root LANG=C.UTF-8 TERM=dumb CI=true \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${variables[@]}" \
    bash -c "cd /root/ddc && $1" </dev/null
}

remove_root() {
  local mounted
  for mounted in /run /sys /dev /proc ''; do
    ! mountpoint -q "$ROOT$mounted" || umount -R -l "$ROOT$mounted" || true
  done
  # Never across a mount that could not be undone.
  rm -rf --one-file-system "${ROOT:?}"
}

main "$@"
