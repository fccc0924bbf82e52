#!/usr/bin/env bash
# Makes the packages: dist/packages/*.deb and *.rpm, from the binaries that scripts/dist.sh put into dist/bin.
#
#   deploy/packages/build.sh [--arch amd64|arm64]… [--variant static|gssapi]… [--format deb|rpm]… [--version V]
#                            [--binaries DIR] [--output DIR]
#
#   ddc          the static binary, for every distribution with systemd 249 or later
#   ddc-gssapi   the dynamic one with Kerberos, as .deb only: it wants libsasl2.so.2, which is Debian's and Ubuntu's name;
#                Red Hat's is libsasl2.so.3. A binary that wants what no repository has is not packaged.
#
# The same commit gives the same bytes: times come from SOURCE_DATE_EPOCH, by default the commit's (without git, those of
# Cargo.toml). Packages are not signed here; sign them with the key of your own repository.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
HERE=$ROOT_DIR/deploy/packages

MAINTAINER=${DDC_PACKAGE_MAINTAINER:-Data Diode Connector maintainers <ddc@ddc.invalid>}
BINARIES=$ROOT_DIR/dist/bin
OUTPUT=$ROOT_DIR/dist/packages

main() {
  local archs=() variants=() formats=() arch variant format usage
  usage="usage: build.sh [--arch amd64|arm64]… [--variant static|gssapi]… [--format deb|rpm]… [--version V] [--binaries DIR] [--output DIR]"
  VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$ROOT_DIR/Cargo.toml")
  while (($#)); do
    case "$1 ${2:-}" in
      '--arch amd64' | '--arch arm64') archs+=("$2") ;;
      '--variant static' | '--variant gssapi') variants+=("$2") ;;
      '--format deb' | '--format rpm') formats+=("$2") ;;
      '--version '?*) VERSION=$2 ;;
      '--binaries '?*) BINARIES=$(realpath "$2") ;;
      '--output '?*) OUTPUT=$(realpath -m "$2") ;;
      *) die "$EX_USAGE" "unknown argument \`$*\`; $usage" ;;
    esac
    shift 2
  done
  ((${#archs[@]})) || archs=(amd64 arm64)
  ((${#variants[@]})) || variants=(static gssapi)
  ((${#formats[@]})) || formats=(deb rpm)

  cd "$ROOT_DIR"
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
  export SOURCE_DATE_EPOCH
  NFPM=$(scripts/tools.sh path nfpm)
  STAGE=$(mktemp -d "${TMPDIR:-/tmp}/ddc-packages.XXXXXX")
  trap 'rm -rf "$STAGE"' EXIT
  for variant in "${variants[@]}"; do
    for arch in "${archs[@]}"; do
      [[ -x $(binary "$variant" "$arch") ]] ||
        die "$EX_UNAVAILABLE" "there is no $(binary "$variant" "$arch"); run: make dist (or scripts/dist.sh --arch $arch --variant $variant)"
    done
  done

  stage_share
  stage_documentation
  mkdir -p "$OUTPUT"
  for variant in "${variants[@]}"; do
    stage_variant "$variant"
    for arch in "${archs[@]}"; do
      for format in "${formats[@]}"; do
        if [[ $variant == gssapi && $format == rpm ]]; then continue; fi
        package "$variant" "$arch" "$format"
      done
    done
  done
}

name() { if [[ $1 == gssapi ]]; then printf ddc-gssapi; else printf ddc; fi; }

# binary VARIANT ARCH: its path.
binary() { printf '%s/%s-%s\n' "$BINARIES" "$(name "$1")" "$2"; }

# The binary of this machine's architecture writes completions, examples and the manual: any variant will do.
runnable() {
  local arch variant
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=none ;;
  esac
  for variant in static gssapi; do
    if [[ -x $(binary "$variant" "$arch") ]] && "$(binary "$variant" "$arch")" version >/dev/null 2>&1; then
      binary "$variant" "$arch"
      return 0
    fi
  done
  # Only the other architecture was built.
  if have qemu-aarch64-static && [[ -x $(binary static arm64) ]]; then
    printf '#!/bin/sh\nexec qemu-aarch64-static %s "$@"\n' "$(binary static arm64)" >"$STAGE/ddc"
    chmod 755 "$STAGE/ddc"
    printf '%s\n' "$STAGE/ddc"
    return 0
  fi
  die "$EX_UNAVAILABLE" "no binary in $BINARIES runs on this machine ($(uname -m)); run: scripts/dist.sh --arch $arch"
}

# --- what is put in ------------------------------------------------------------------------------------------------

# /usr/share/ddc: what other programs load, without tests and the stand-in for Vector.
stage_share() {
  local share=$STAGE/share
  mkdir -p "$share"/{vector,prometheus,grafana,systemd/vector.service.d}
  cp -rd vector/*.yaml vector/vrl vector/snippets vector/README.md "$share/vector"
  cp -rd deploy/prometheus/*.yml deploy/prometheus/rules deploy/prometheus/targets deploy/prometheus/README.md "$share/prometheus"
  cp -rd grafana/dashboards grafana/provisioning grafana/README.md "$share/grafana"
  # Examples for other people's units: never in force by themselves.
  cp deploy/systemd/vector.service.d/ddc.conf "$share/systemd/vector.service.d"
  cp deploy/systemd/examples/*.conf "$share/systemd"
  same_modes "$share"
}

# /usr/share/doc/ddc, the manual and the completions.
stage_documentation() {
  local doc=$STAGE/doc generated=$STAGE/generated ddc side shell
  ddc=$(runnable)
  mkdir -p "$doc"/{examples,runbooks} "$generated"
  cp docs/*.md docs/*.json "$doc"
  cp deploy/one-way/README.md "$doc/one-way.md"
  gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
  cp docs/runbooks/*.md "$doc/runbooks"
  for side in ingress egress; do example "$ddc" "$side" >"$doc/examples/$side.toml"; done
  for shell in bash fish zsh; do "$ddc" completions "$shell" >"$generated/ddc.$shell"; done
  mv "$generated/ddc.zsh" "$generated/_ddc"
  "$HERE/manual.sh" "$ddc" "$VERSION" "$SOURCE_DATE_EPOCH" | gzip -9n >"$generated/ddc.1.gz"
  same_modes "$generated"
}

# The complete file of `ddc config`, with the paths that the units give: `sed s/plant-a/LINK/` makes it a link's own.
example() {
  local ddc=$1 side=$2
  "$ddc" config --side "$side" | sed \
    -e "s|^file = \"/etc/ddc/.*\"\$|file = \"\${CREDENTIALS_DIRECTORY}/link.key\"|" \
    -e "s|^#state_dir = .*|state_dir = \"/var/lib/ddc/$side-plant-a\"|" \
    -e "s|^#socket = .*|socket = \"/run/ddc/$side-plant-a/admin.sock\"|" >"$STAGE/example"
  (($(grep -cE "^(file = \"\\\$\{CREDENTIALS_DIRECTORY\}|state_dir = \"/var/lib|socket = \"/run/ddc)" "$STAGE/example") == 3)) ||
    die 70 "the file of \`ddc config --side $side\` has changed: its key file, state_dir or socket was not found; mend example() in build.sh"
  cat "$STAGE/example"
}

# What differs between ddc and ddc-gssapi.
stage_variant() {
  local variant=$1 generated=$STAGE/generated
  local features=()
  if [[ $variant == static ]]; then features=(--no-default-features); fi
  "$HERE/third_party.py" "${features[@]}" x86_64-unknown-linux-gnu | gzip -9n >"$STAGE/doc/THIRD-PARTY.txt.gz"
  copyright >"$generated/copyright"
  changelog "$(name "$variant")" | gzip -9n >"$generated/changelog.gz"
  same_modes "$STAGE/doc" "$generated"
  (cd "$STAGE/doc" && find . -type f -printf '%P\n' | LC_ALL=C sort) |
    sed "s|.*|  - { src: '$STAGE/doc/&', dst: '/usr/share/doc/ddc/&', type: doc, packager: rpm }|" >"$STAGE/documentation.yaml"
}

copyright() {
  cat <<TEXT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ddc
Comment: The program is one binary with many libraries in it. What they are and their complete terms stand in
 /usr/share/doc/ddc/THIRD-PARTY.txt.gz.

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) the Data Diode Connector contributors
License: Apache-2.0
 On Debian systems the text of the Apache License, Version 2.0, is in /usr/share/common-licenses/Apache-2.0.
TEXT
}

changelog() {
  cat <<TEXT
$1 ($VERSION-1) unstable; urgency=medium

  * Version $VERSION; what changed stands in /usr/share/doc/ddc/changelog.gz.

 -- $MAINTAINER  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
TEXT
}

# Modes and times that do not depend on who made the clone, and when.
same_modes() {
  chmod -R u=rwX,go=rX "$@"
  find "$@" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# --- the package ---------------------------------------------------------------------------------------------------

package() {
  local variant=$1 arch=$2 format=$3 name other provides='' depends recommends about file
  name=$(name "$variant")
  case $variant-$format in
    static-*)
      other="ddc-gssapi"
      about="This package holds one static program and needs no libraries. It has no\n  GSSAPI (Kerberos): the package ddc-gssapi has it."
      ;;
    gssapi-*)
      other=ddc
      provides="\"ddc (= $VERSION-1)\""
      about="This package has GSSAPI (Kerberos) and uses the system's OpenSSL and SASL\n  libraries. Without need for Kerberos the package ddc is simpler."
      ;;
  esac
  case $variant-$format in
    static-deb)
      depends='"systemd (>= 249)"'
      recommends='nftables, iproute2, chrony'
      ;;
    gssapi-deb)
      depends='"systemd (>= 249)", "libc6 (>= 2.34)", libgcc-s1, "libssl3 | libssl3t64", libsasl2-2, zlib1g'
      recommends='nftables, iproute2, chrony, libsasl2-modules-gssapi-mit'
      ;;
    static-rpm)
      depends='"systemd >= 249", bash'
      recommends='nftables, iproute-tc, chrony'
      ;;
  esac
  sed -e "s|@NAME@|$name|g" -e "s|@ARCH@|$arch|g" -e "s|@VERSION@|$VERSION|g" -e "s|@MAINTAINER@|$MAINTAINER|g" \
    -e "s|@MTIME@|$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)|g" \
    -e "s|@SUMMARY@|Kafka topics and datagrams across a data diode|g" -e "s|@VARIANT@|$about|g" \
    -e "s|@PROVIDES@|$provides|g" -e "s|@OTHER@|$other|g" -e "s#@DEPENDS@#$depends#g" \
    -e "s|@RECOMMENDS@|$recommends|g" -e "s|@BINARY@|$(binary "$variant" "$arch")|g" -e "s|@STAGE@|$STAGE|g" \
    -e "/# DOCUMENTATION/r $STAGE/documentation.yaml" "$HERE/nfpm.yaml.in" >"$STAGE/nfpm.yaml"
  ! grep -nE '@[A-Z]+@' "$STAGE/nfpm.yaml" || die 70 "nfpm.yaml.in has a name that build.sh does not know (see above)"
  file=$OUTPUT/$(file_name "$name" "$arch" "$format")
  "$NFPM" package --config "$STAGE/nfpm.yaml" --packager "$format" --target "$file" >"$STAGE/nfpm.log" 2>&1 ||
    die 70 "nfpm: $(cat "$STAGE/nfpm.log")"
  printf '%-34s %9d bytes\n' "${file##*/}" "$(stat -c %s "$file")"
}

# The names that apt and dnf repositories use.
file_name() {
  local name=$1 arch=$2
  case $3-$arch in
    deb-*) printf '%s_%s-1_%s.deb\n' "$name" "$VERSION" "$arch" ;;
    rpm-amd64) printf '%s-%s-1.x86_64.rpm\n' "$name" "$VERSION" ;;
    rpm-arm64) printf '%s-%s-1.aarch64.rpm\n' "$name" "$VERSION" ;;
  esac
}

main "$@"
