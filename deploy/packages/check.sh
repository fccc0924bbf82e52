#!/usr/bin/env bash
# The quick checks of units and packages, without hosts: systemd's own verdict on the units, the sandbox's score, user and
# directories, both kinds of package from the binary at hand, their contents, lintian, rpmlint, the same bytes twice.
#
#   DDC_BIN=target/debug/ddc deploy/packages/check.sh            half a minute
#   DDC_BIN=… deploy/packages/check.sh --update                  writes contents-*.txt again; look at the difference
#
# The binary is stripped and stands in for those of `make dist`; test.sh takes the real ones. Needs root (owners of files),
# systemd 252, dpkg, lintian, rpm, rpmlint. What is missing fails.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

# Exposure in tenths, as `systemd-analyze security --threshold` counts.
EXPOSURE_LIMIT=15
HERE=$ROOT_DIR/deploy/packages
passed=0 failed=0

main() {
  local update=''
  case "$#${1:-}" in
    0) ;;
    1--update) update=1 ;;
    *) die "$EX_USAGE" "usage: check.sh [--update]" ;;
  esac
  requirements
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/ddc-packages-check.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  cd "$ROOT_DIR"
  units
  user_and_directories
  build
  if [[ $update ]]; then
    contents_deb >"$HERE/contents-deb.txt"
    contents_rpm >"$HERE/contents-rpm.txt"
  fi
  packages
  examples
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

requirements() {
  local tool
  require_root "it installs files for their owners into a temporary root"
  [[ -x ${DDC_BIN:-} ]] || die "$EX_UNAVAILABLE" "DDC_BIN must name a ddc binary; run: cargo build --workspace, and set DDC_BIN=target/debug/ddc"
  DDC_BIN=$(realpath "$DDC_BIN")
  for tool in systemd-analyze:systemd systemd-sysusers:systemd systemd-tmpfiles:systemd dpkg-deb:dpkg lintian:lintian rpm:rpm \
    rpmlint:rpmlint strip:binutils; do
    have "${tool%%:*}" || die "$EX_UNAVAILABLE" "${tool%%:*} is missing; run: apt-get install ${tool#*:}"
  done
}

# expect WHAT COMMAND…: what it printed is shown when it fails.
expect() {
  local what=$1
  shift
  if "$@" >"$WORK/output" 2>&1 </dev/null; then
    printf 'ok      %s\n' "$what"
    passed=$((passed + 1))
  else
    printf 'FAILED  %s\n' "$what"
    tail -n 30 "$WORK/output" | sed 's/^/        /'
    failed=$((failed + 1))
  fi
}

silent() {
  local said
  said=$("$@" 2>&1) || { printf '%s\n' "$said"; return 1; }
  printf '%s\n' "$said"
  [[ -z $said ]]
}

same() { diff <(printf '%s\n' "$1") <(printf '%s\n' "$2"); }

# --- units -----------------------------------------------------------------------------------------------------------

# A root with the targets of this machine's systemd, our units, and programs that only have to be there.
units() {
  local root=$WORK/root program side
  mkdir -p "$root/usr/bin" "$root/usr/lib/systemd/system" "$root/usr/lib/ddc" "$root/etc/systemd/system/vector.service.d"
  ln -s usr/bin usr/lib "$root/"
  for program in bin/ddc bin/vector bin/sh bin/env lib/ddc/one-way; do
    printf '#!/bin/sh\n' >"$root/usr/$program"
    chmod 755 "$root/usr/$program"
  done
  cp /usr/lib/systemd/system/*.target "$root/usr/lib/systemd/system/" 2>/dev/null ||
    cp /lib/systemd/system/*.target "$root/usr/lib/systemd/system/"
  cp deploy/systemd/*.service deploy/one-way/*.service "$root/usr/lib/systemd/system/"
  # The shape of the unit that Vector's package brings.
  printf '[Unit]\nDescription=stand-in\n[Service]\nUser=vector\nExecStartPre=/usr/bin/vector validate\nExecStart=/usr/bin/vector\n' \
    >"$root/usr/lib/systemd/system/vector.service"
  cp deploy/systemd/vector.service.d/ddc.conf "$root/etc/systemd/system/vector.service.d/"
  for side in ingress egress; do
    expect "systemd finds no fault in ddc-$side@" silent systemd-analyze --root="$root" --man=no verify "ddc-$side@plant-a.service"
    expect "exposure of ddc-$side@: $(exposure "$root" "$side"), at most $((EXPOSURE_LIMIT / 10)).$((EXPOSURE_LIMIT % 10))" \
      systemd-analyze security --root="$root" --offline=true --threshold="$EXPOSURE_LIMIT" "ddc-$side@plant-a.service"
  done
  expect "nor in the drop-in for Vector" silent systemd-analyze --root="$root" --man=no verify vector.service
  for side in ingress egress; do
    mkdir "$root/etc/systemd/system/ddc-$side@plant-a.service.d"
    cp deploy/systemd/examples/restrict-network.conf "$root/etc/systemd/system/ddc-$side@plant-a.service.d/"
    expect "nor in ddc-$side@ with the example drop-in" silent systemd-analyze --root="$root" --man=no verify "ddc-$side@plant-a.service"
  done
  expect "the two sides' units differ in their side only" units_agree
}

exposure() { systemd-analyze security --root="$1" --offline=true "ddc-$2@plant-a.service" 2>/dev/null | sed -n 's/.*: \([0-9.]*\) .*/\1/p'; }

# Settings, without comments and without what each side has of its own.
units_agree() {
  local side
  for side in ingress egress; do
    sed -e '/^#/d' -e '/^Description=/d' -e '/^TimeoutStopSec=/d' -e "s/$side/SIDE/g" "deploy/systemd/ddc-$side@.service" >"$WORK/$side.settings"
  done
  diff "$WORK/ingress.settings" "$WORK/egress.settings"
}

user_and_directories() {
  local root=$WORK/root
  expect "sysusers makes the user" systemd-sysusers --root="$root" "$HERE/sysusers.conf"
  expect "who cannot log in" grep -E '^ddc:x:[0-9]+:[0-9]+:[^:]*:/:/usr/sbin/nologin$' "$root/etc/passwd"
  expect "tmpfiles makes the directories" silent systemd-tmpfiles --root="$root" --create "$HERE/tmpfiles.conf"
  expect "with their modes" same $'755 etc/ddc\n700 etc/ddc/credentials\n755 etc/ddc/one-way\n755 etc/ddc/tls\n750 var/lib/ddc' \
    "$(cd "$root" && stat -c '%a %n' etc/ddc etc/ddc/* var/lib/ddc)"
  expect "sysctl.d has known settings only" sysctl_settings
}

sysctl_settings() {
  local key value
  while IFS=' =' read -r key value; do
    [[ $key == net.core.@(rmem_max|wmem_max|netdev_max_backlog) && $value =~ ^[0-9]+$ ]] || { echo "line: $key = $value"; return 1; }
  done < <(grep -vE '^(#|$)' deploy/sysctl.d/60-ddc.conf)
  (($(grep -cvE '^(#|$)' deploy/sysctl.d/60-ddc.conf) == 3))
}

# --- packages ----------------------------------------------------------------------------------------------------------

build() {
  local name
  ARCH=$(dpkg --print-architecture)
  VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
  export SOURCE_DATE_EPOCH
  mkdir "$WORK/bin"
  for name in ddc ddc-gssapi; do strip -o "$WORK/bin/$name-$ARCH" "$DDC_BIN"; done
  expect "build.sh makes both kinds" "$HERE/build.sh" --arch "$ARCH" --binaries "$WORK/bin" --output "$WORK/packages"
  DEB=$WORK/packages/ddc_$VERSION-1_$ARCH.deb
  GSSAPI=$WORK/packages/ddc-gssapi_$VERSION-1_$ARCH.deb
  RPM=$(echo "$WORK"/packages/ddc-*.rpm)
}

packages() {
  local package
  expect "contents and modes of the deb" diff "$HERE/contents-deb.txt" <(contents_deb)
  expect "contents and modes of the rpm" diff "$HERE/contents-rpm.txt" <(contents_rpm)
  expect "ddc-gssapi holds the same" diff "$HERE/contents-deb.txt" <(contents_deb "$GSSAPI" | sed 's|/ddc-gssapi/|/ddc/|; s|/ddc-gssapi$|/ddc|' | LC_ALL=C sort -k 3)
  expect "/usr/share/ddc is what the repository has" shared_files
  # The stand-in is dynamic, ddc's real binary is not.
  expect "lintian: ddc" lintian --allow-root --fail-on error,warning --suppress-tags missing-dependency-on-libc "$DEB"
  expect "lintian: ddc-gssapi" lintian --allow-root --fail-on error,warning "$GSSAPI"
  expect "rpmlint" rpmlint_clean
  expect "the rpm's digests" bash -c "rpm -K --nosignature '$RPM' | grep -q 'digests OK'"
  expect "the rpm asks for what Red Hat 9 has" same $'systemd >= 249\nbash' "$(rpm -qp --requires "$RPM" | grep -v '^rpmlib')"
  expect "the rpm has its scripts" same $'postinstall\npreuninstall\npostuninstall\nposttrans' \
    "$(rpm -qp --scripts "$RPM" | sed -n 's/ scriptlet.*//p')"
  for package in "$DEB" "$GSSAPI"; do
    expect "fields of ${package##*/}" fields "$package"
  done
  expect "the same commit gives the same bytes" same_bytes
}

# mode owner path of every file; what other directories of the repository fill is left to shared_files.
contents_deb() {
  dpkg-deb -c "${1:-$DEB}" | awk '$1 !~ /^d/ { print $1, $2, $6 }' | sed 's|\./|/|' | own_files
}

contents_rpm() {
  rpm -qplv "$RPM" | awk '$1 !~ /^d/ { print $1, $3 "/" $4, $9 }' | own_files
}

own_files() { grep -vE ' /usr/share/(ddc/(vector|prometheus|grafana)|doc/ddc/(runbooks/|[a-z.-]*\.(md|json)))' | LC_ALL=C sort -k 3; }

# Vector's files, rules and dashboards: all of them, readable for all, and no tests.
shared_files() {
  dpkg-deb -c "$DEB" | awk '$1 !~ /^[dl]/ && $1 != "-rw-r--r--" && $6 ~ /usr\/share/ { print; wrong = 1 } END { exit wrong }'
  dpkg-deb -c "$DEB" | awk '$1 !~ /^d/ { print $6 }' | sed -nE 's#^\./usr/share/ddc/(vector|prometheus|grafana)/#\1/#p' | LC_ALL=C sort >"$WORK/have"
  {
    find vector -maxdepth 1 -name '*.yaml' -o -path vector/README.md
    find vector/vrl vector/snippets grafana/dashboards grafana/provisioning grafana/README.md ! -type d
    (cd deploy && find prometheus -maxdepth 1 -name '*.yml' -o -path prometheus/README.md && find prometheus/rules prometheus/targets ! -type d)
  } | LC_ALL=C sort >"$WORK/want"
  diff "$WORK/want" "$WORK/have"
}

rpmlint_clean() {
  local said
  said=$(rpmlint --config "$HERE/rpmlint.toml" "$RPM" 2>&1) || true
  printf '%s\n' "$said"
  [[ $said == *" 0 errors, 0 warnings"* ]]
}

fields() {
  local name=ddc other=ddc-gssapi
  if [[ $1 == "$GSSAPI" ]]; then name=ddc-gssapi other=ddc; fi
  [[ "$(dpkg-deb -f "$1" Package Version Architecture)" == "Package: $name"$'\n'"Version: $VERSION-1"$'\n'"Architecture: $ARCH" ]] &&
    [[ "$(dpkg-deb -f "$1" Conflicts) $(dpkg-deb -f "$1" Replaces)" == "$other $other" ]] &&
    [[ $(dpkg-deb -f "$1" Description | wc -l) -ge 4 && -z $(dpkg-deb -f "$1" Pre-Depends) ]]
}

# Another directory, time zone and mask; the second package must not know.
same_bytes() {
  local file
  mkdir "$WORK/elsewhere"
  (umask 077 && TZ=Asia/Tokyo TMPDIR=$WORK/elsewhere "$HERE/build.sh" --arch "$ARCH" --variant static --binaries "$WORK/bin" --output "$WORK/again")
  for file in "$WORK"/again/*; do cmp "$file" "$WORK/packages/${file##*/}"; done
}

# --- examples ----------------------------------------------------------------------------------------------------------

# The files of /usr/share/doc/ddc/examples, with a key where the unit puts it.
examples() {
  local side
  dpkg-deb -x "$DEB" "$WORK/unpacked"
  mkdir "$WORK/credentials"
  "$DDC_BIN" keygen --out "$WORK/credentials/link.key" >/dev/null 2>&1
  for side in ingress egress; do
    expect "the example of the $side passes ddc check" env CREDENTIALS_DIRECTORY="$WORK/credentials" \
      "$DDC_BIN" check -c "$WORK/unpacked/usr/share/doc/ddc/examples/$side.toml"
    expect "and names what the unit gives" grep -c -e "^state_dir = \"/var/lib/ddc/$side-plant-a\"" "$WORK/unpacked/usr/share/doc/ddc/examples/$side.toml"
  done
  expect "the manual page has every command" manual_page
}

manual_page() {
  local command
  gzip -dc "$WORK/unpacked/usr/share/man/man1/ddc.1.gz" >"$WORK/ddc.1"
  for command in $("$DDC_BIN" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -vx help); do
    grep -qx ".SS ddc $command" "$WORK/ddc.1" || { echo "no section for $command"; return 1; }
  done
  grep -q '^\.SH FILES$' "$WORK/ddc.1"
}

main "$@"
