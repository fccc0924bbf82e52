# shellcheck shell=bash
# Debian 12's own toolchain for amd64 and arm64, native or across. Sourced after lib.sh by dist.sh and test-arm64.sh.
#
#   cross_packages ARCH…            what must be installed, as root installs it; else says what to install and ends
#   cross_prepare                   once: sets and clears what must be the same for every build
#   cross_environment VARIANT ARCH  exports what cargo and the C builds need for one target; call it in a subshell
#   cross_runner ARCH               prints the emulator that runs its programs here, nothing when none is needed
#
# VARIANT is static or gssapi, ARCH amd64 or arm64. Tried on amd64; building on arm64 uses the same names, NOT TRIED.

CROSS_CARGO=/usr/bin/cargo
# Never shared with another compiler: cargo would take one's artefacts for the other's.
CROSS_TARGET=$ROOT_DIR/target/dist
CROSS_HOST=$(dpkg --print-architecture 2>/dev/null) || CROSS_HOST=

# machine ARCH: its name in target triples.
machine() {
  case $1 in
    amd64) printf x86_64 ;;
    arm64) printf aarch64 ;;
    *) die "$EX_USAGE" "unknown architecture \`$1\`; one of amd64, arm64" ;;
  esac
}

cross_runner() { [[ $1 == "$CROSS_HOST" ]] || printf 'qemu-%s-static' "$(machine "$1")"; }

cross_packages() {
  local name arch package packages missing=() foreign=()
  # shellcheck source=/dev/null
  name=$(source /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-}" "${VERSION_ID:-}") || name='an unknown system'
  [[ $name == 'debian 12'* ]] || die "$EX_UNAVAILABLE" "the binaries are built on Debian 12 with its toolchain, and
  this is $name; use a Debian 12 root or container: scripts/fresh-root.sh --keep \"make dist\""
  packages=(rustc-web cargo-web make cmake pkg-config ca-certificates git)
  for arch in "$@"; do
    packages+=("libstd-rust-web-dev:$arch" "libc6-dev:$arch" "libssl-dev:$arch" "zlib1g-dev:$arch" libsasl2-dev)
    if [[ $arch == "$CROSS_HOST" ]]; then
      packages+=(gcc g++)
    else
      name=$(machine "$arch")
      # Not its libsasl2-dev: only one architecture's can be installed, and apt would remove the host's. The library
      # itself can; foreign_sasl makes of it what a linker wants.
      packages+=("libsasl2-2:$arch" "gcc-${name//_/-}-linux-gnu" "g++-${name//_/-}-linux-gnu" qemu-user-static)
      dpkg --print-foreign-architectures | grep -qx "$arch" || foreign+=("$arch")
    fi
  done
  for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || die "$EX_UNAVAILABLE" "packages are missing; have this run as root:
  ${foreign[*]:+dpkg --add-architecture ${foreign[*]} && }apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  say "installing ${missing[*]}"
  for arch in "${foreign[@]}"; do dpkg --add-architecture "$arch"; done
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 \
    "${missing[@]}" </dev/null >&2 || die "$EX_UNAVAILABLE" "\`apt-get install\` failed (see above)"
}

# The date, the crates, and the directories that must not show in the result.
cross_prepare() {
  export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
  unset RUSTUP_TOOLCHAIN CARGO_TARGET_DIR CARGO_BUILD_TARGET RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
  unset CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS PKG_CONFIG_PATH
  if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
    SOURCE_DATE_EPOCH=$(git -C "$ROOT_DIR" log -1 --format=%ct 2>/dev/null) ||
      die "$EX_UNAVAILABLE" "this is no git checkout: set SOURCE_DATE_EPOCH to the date of the sources, in seconds"
  fi
  export SOURCE_DATE_EPOCH
  # The registry's directory must be there before it can be named below.
  "$CROSS_CARGO" fetch --locked --quiet
  local directory
  CROSS_REMAP=("$CROSS_TARGET=/build" "$ROOT_DIR=/ddc")
  for directory in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do CROSS_REMAP+=("${directory%/}=/crates"); done
  # librdkafka includes curl's header although curl is switched off (its issue 5135): an empty one will do.
  mkdir -p "$CROSS_TARGET/no-curl/curl"
  : >"$CROSS_TARGET/no-curl/curl/curl.h"
}

cross_environment() {
  local variant=$1 name under upper libraries linker rustflags cflags remap
  name=$(machine "$2")
  under=${name}_unknown_linux_gnu
  upper=${under^^}
  libraries=/usr/lib/$name-linux-gnu
  linker=$name-linux-gnu-gcc
  # -B: Debian's cross compiler brings a C library of its own, without the security updates that libc6-dev gets.
  rustflags="-C link-arg=-B$libraries"
  cflags="-idirafter $CROSS_TARGET/no-curl"
  for remap in "${CROSS_REMAP[@]}"; do
    rustflags+=" --remap-path-prefix=$remap"
    cflags+=" -ffile-prefix-map=$remap"
  done
  if [[ $variant == static ]]; then
    rustflags+=" -C target-feature=+crt-static"
    linker=$ROOT_DIR/scripts/static-pie-gcc
    export "${upper}_OPENSSL_STATIC=1" "STATIC_PIE_GCC=$name-linux-gnu-gcc"
  fi
  export "CARGO_TARGET_${upper}_RUSTFLAGS=$rustflags" "CARGO_TARGET_${upper}_LINKER=$linker"
  export "CFLAGS_$under=$cflags" "CXXFLAGS_$under=$cflags"
  export "CC_$under=$name-linux-gnu-gcc" "CXX_$under=$name-linux-gnu-g++" "AR_$under=$name-linux-gnu-ar"
  export "${upper}_OPENSSL_LIB_DIR=$libraries" "${upper}_OPENSSL_INCLUDE_DIR=/usr/include"
  # The plain name is for cmake, which looks for libsasl2.
  export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR="$libraries/pkgconfig:/usr/share/pkgconfig"
  if [[ $variant == gssapi && $2 != "$CROSS_HOST" ]]; then
    foreign_sasl "$CROSS_TARGET/sasl-$2" "$libraries"
    PKG_CONFIG_LIBDIR="$CROSS_TARGET/sasl-$2:$PKG_CONFIG_LIBDIR"
  fi
}

# foreign_sasl DIRECTORY LIBRARIES: puts into it the two files of libsasl2-dev that differ between architectures.
foreign_sasl() {
  local version
  mkdir -p "$1"
  # The host's own, which is the same package.
  version=$(env -u PKG_CONFIG_LIBDIR pkg-config --modversion libsasl2) ||
    die "$EX_UNAVAILABLE" "libsasl2-dev is missing; run: apt-get install libsasl2-dev"
  ln -sf "$2/libsasl2.so.2" "$1/libsasl2.so"
  printf '%s\n' 'Name: Cyrus SASL' 'Description: as of libsasl2-dev' "Version: $version" \
    'Cflags: -I/usr/include' "Libs: -L$1 -lsasl2" >"$1/libsasl2.pc"
}
