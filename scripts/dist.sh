#!/usr/bin/env bash
# Builds the binaries that are installed, shipped and put into images; `make dist`. Who wants which: docs/binaries.md.
#
#   scripts/dist.sh [--arch amd64|arm64] [--variant static|gssapi]     default: all four
#   scripts/dist.sh --sums                                             only writes dist/SHA256SUMS again
#
#   dist/bin/ddc-ARCH          static: the whole program in one file, for every Linux of that architecture; no GSSAPI
#   dist/bin/ddc-gssapi-ARCH   gssapi: uses the system's glibc (2.34 or later), OpenSSL 3, SASL and zlib; with GSSAPI
#
# Debian 12 and its own toolchain, so that two people get the same bytes and the C library linked in is one that is
# maintained. The other architecture is cross-built. As root it installs what is missing; otherwise it says what to
# install. This script alone adds a foreign architecture to dpkg. Each result is checked and run before it counts.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/cross.sh
source "$ROOT_DIR/scripts/cross.sh"

OUTPUT=$ROOT_DIR/dist
# RHEL 9's; Ubuntu 22.04 has 2.35, Debian 12 2.36.
GLIBC_LIMIT=2.34
NEEDED_GSSAPI='libc.so.6 libcrypto.so.3 libgcc_s.so.1 libm.so.6 libsasl2.so.2 libssl.so.3 libz.so.1'

main() {
  local archs=(arm64 amd64) variants=(static gssapi) arch variant
  while (($#)); do
    case "$1 ${2:-}" in
      '--sums '*)
        write_sums
        return 0
        ;;
      '--arch amd64' | '--arch arm64') archs=("$2") ;;
      '--variant static' | '--variant gssapi') variants=("$2") ;;
      *) die "$EX_USAGE" "unknown argument \`$*\`; usage: dist.sh [--arch amd64|arm64] [--variant static|gssapi]" ;;
    esac
    shift 2
  done
  cd "$ROOT_DIR"
  cross_packages "${archs[@]}"
  cross_prepare
  printf '%-18s %-11s %6s %8s  %s\n' binary kind MiB minutes needs
  for variant in "${variants[@]}"; do
    for arch in "${archs[@]}"; do build_and_check "$variant" "$arch"; done
  done
  # What the image shows about the licences of everything that is linked in; the packages make their own.
  deploy/packages/third_party.py --no-default-features x86_64-unknown-linux-gnu >"$OUTPUT/THIRD-PARTY.txt.new"
  mv "$OUTPUT/THIRD-PARTY.txt.new" "$OUTPUT/THIRD-PARTY.txt"
  write_sums
}

# binary VARIANT ARCH: its path.
binary() {
  case $1 in
    static) printf '%s/bin/ddc-%s' "$OUTPUT" "$2" ;;
    gssapi) printf '%s/bin/ddc-gssapi-%s' "$OUTPUT" "$2" ;;
  esac
}

# --- the build -----------------------------------------------------------------------------------------------------

# build VARIANT ARCH, in a subshell: everything it exports is for this one.
build() (
  local features=(--no-default-features --features "$1") target
  target=$(machine "$2")-unknown-linux-gnu
  cross_environment "$1" "$2"
  nice "$CROSS_CARGO" build --locked --quiet --release -p ddc-cli "${features[@]}" \
    --target "$target" --target-dir "$CROSS_TARGET/$1" &&
    install -D -m 755 "$CROSS_TARGET/$1/$target/release/ddc" "$(binary "$1" "$2")"
)

# --- the checks ----------------------------------------------------------------------------------------------------

build_and_check() {
  local variant=$1 arch=$2 since=$SECONDS file
  file=$(binary "$variant" "$arch")
  build "$variant" "$arch" || die 70 "the build of ${file##*/} failed (see above)"
  local built=$((SECONDS - since)) type needs
  check_elf "$file" "$arch"
  if [[ $variant == static ]]; then check_static "$file"; else check_dynamic "$file"; fi
  check_runs "$file" "$variant" "$arch"
  type=$(elf -h "$file" | sed -n 's/^ *Type: *\([A-Z]*\).*/\1/p')
  case $variant-$type in
    static-DYN) type='static PIE' ;;
    static-*) type=static ;;
    *-DYN) type='dynamic PIE' ;;
    *) type=dynamic ;;
  esac
  needs='no library'
  [[ $variant == static ]] || needs="glibc $(glibc_needed "$file") or later"
  printf '%-18s %-11s %6s %8s  %s\n' "${file##*/}" "$type" "$(mebibytes "$file")" "$(minutes "$built")" "$needs"
}

elf() { LC_ALL=C readelf -W "$@"; }
wrong() { die 70 "$1: $2"; }
mebibytes() { awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f", bytes / 1048576 }'; }

check_elf() {
  local file=$1 arch=$2 machine alignment
  machine=$(elf -h "$file" | sed -n 's/^ *Machine: *//p')
  case $arch-$machine in
    amd64-*X86-64 | arm64-AArch64) ;;
    *) wrong "$file" "is for $machine" ;;
  esac
  elf -l "$file" | grep 'GNU_STACK.* RW ' >/dev/null || wrong "$file" "its stack is executable, or unmarked"
  ! elf -l "$file" | awk '$1 == "LOAD"' | grep 'RWE' >/dev/null || wrong "$file" "a segment is writable and executable"
  [[ $arch == arm64 ]] || return 0
  # Kernels with pages of 64 KiB can map nothing that is aligned to less.
  while read -r alignment; do
    ((alignment >= 65536)) || wrong "$file" "a segment is aligned to $alignment, not to 64 KiB"
  done < <(elf -l "$file" | awk '$1 == "LOAD" { print $NF }')
}

check_static() {
  [[ -z $(elf -d "$1" | grep NEEDED || true) ]] || wrong "$1" "needs libraries: $(needed "$1")"
  ! elf -l "$1" | grep INTERP >/dev/null || wrong "$1" "asks for a dynamic loader"
}

check_dynamic() {
  local found
  found=$(needed "$1")
  [[ $found == "$NEEDED_GSSAPI" ]] || wrong "$1" "needs $found; expected $NEEDED_GSSAPI (packages declare them)"
  version_at_least "$GLIBC_LIMIT" "$(glibc_needed "$1")" ||
    wrong "$1" "needs glibc $(glibc_needed "$1"); Ubuntu 22.04 and RHEL 9 have less"
}

# The shared libraries by name, in one line; the loader's own name is no package's business.
needed() { elf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^ld-linux' | LC_ALL=C sort | paste -sd ' '; }
glibc_needed() { elf -V "$1" | grep -o 'GLIBC_[0-9.]*' | cut -d _ -f 2 | sort -V | tail -n 1; }

check_runs() {
  local file=$1 variant=$2 arch=$3 linkage=dynamic gssapi=true runner=() said
  [[ $variant == gssapi ]] || linkage=static gssapi=false
  mapfile -t runner < <(cross_runner "$arch")
  said=$("${runner[@]}" "$file" version --json) || wrong "$file" "does not run"
  [[ $said == *"\"linkage\":\"$linkage\""* && $said == *"\"sasl_gssapi\":$gssapi"* ]] ||
    wrong "$file" "says of itself: $said"
}

write_sums() (
  cd "$OUTPUT"
  # Packages are made later, by another script.
  set -- bin
  [[ ! -d packages ]] || set -- bin packages
  find "$@" -type f | LC_ALL=C sort | xargs -r sha256sum >SHA256SUMS.new
  mv SHA256SUMS.new SHA256SUMS
)

main "$@"
