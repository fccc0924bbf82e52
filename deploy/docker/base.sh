#!/usr/bin/env bash
# Makes a base for the image where none may be pulled: from Debian's packages, without shell, package manager or C
# library, which the static binary does not need; for either architecture, without an emulator.
#
#   deploy/docker/base.sh ARCH FILE.tar        ARCH: amd64 or arm64
#
# In it: certificate authorities, time zones, os-release, names of protocols and services, /etc/passwd with root and
# nonroot (65532), /tmp, every package's copyright, and its record where scanners of images look for it. The same
# versions of the packages give the same bytes. Needs root, mmdebstrap and the package archive of apt.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
# shellcheck source=scripts/roots.sh
source "$ROOT_DIR/scripts/roots.sh"

PACKAGES=(base-files ca-certificates netbase tzdata)

main() {
  local arch=${1:-} output=${2:-} work
  [[ $arch == amd64 || $arch == arm64 ]] && [[ $output ]] || die "$EX_USAGE" "usage: base.sh amd64|arm64 FILE.tar"
  work=$(mktemp -d "${TMPDIR:-/tmp}/ddc-base.XXXXXX")
  # shellcheck disable=SC2064 # this directory
  trap "rm -rf --one-file-system '$work'" EXIT
  # Unpacked, not installed: no script of a package runs. What they depend on comes too, and is left behind below.
  debian_root "$work/all" "$(IFS=, && echo "${PACKAGES[*]}")" --variant=extract --arch="$arch" \
    --extract-hook="cp --recursive \"\$1/var/cache/apt/archives\" '$work/archives'"
  pick "$work/all" "$work/base"
  people "$work/base"
  records "$work/all" "$work/base" "$work/archives"
  pack "$work/base" "$output"
}

# pick ALL BASE: the files that a program without a shell can use.
pick() {
  local all=$1 base=$2
  mkdir -p "$base"/{etc/ssl/certs,usr/lib,usr/share,var/lib,run,tmp}
  cp "$all/etc/protocols" "$all/etc/services" "$all/etc/debian_version" "$base/etc/"
  cp "$all/usr/lib/os-release" "$base/usr/lib/"
  ln -s ../usr/lib/os-release "$base/etc/os-release"
  cp -R "$all/usr/share/zoneinfo" "$base/usr/share/"
  # What update-ca-certificates would make of them.
  find "$all/usr/share/ca-certificates/mozilla" -name '*.crt' -print0 | LC_ALL=C sort -z | xargs -0 cat \
    >"$base/etc/ssl/certs/ca-certificates.crt"
  chmod 1777 "$base/tmp"
}

people() {
  local etc=$1/etc
  printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin \
    nonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin >"$etc/passwd"
  printf '%s\n' root:x:0: nogroup:x:65534: nonroot:x:65532: >"$etc/group"
  echo 'hosts: files dns' >"$etc/nsswitch.conf"
}

# records ALL BASE ARCHIVES: each package's copyright, and its control data as distroless images keep them.
records() {
  local all=$1 base=$2 archives=$3 package
  mkdir -p "$base/var/lib/dpkg/status.d"
  for package in "${PACKAGES[@]}"; do
    mkdir -p "$base/usr/share/doc/$package"
    cp -L "$all/usr/share/doc/$package/copyright" "$base/usr/share/doc/$package/"
    dpkg-deb --field "$archives/${package}"_*.deb >"$base/var/lib/dpkg/status.d/$package"
  done
}

# pack BASE FILE: one archive for one content, whoever makes it and whenever.
pack() {
  find "$1" -mindepth 1 -type d ! -name tmp -exec chmod 755 {} +
  mkdir -p "$(dirname "$2")"
  tar --create --directory "$1" --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 --format=gnu --file "$2" .
}

main "$@"
