#!/usr/bin/env bash
# Installs what `make demo` or `make test` needs and what is not there yet. Safe to run again: the second run finds
# everything and ends in a fraction of a second, without a network.
#
#   scripts/setup.sh --for demo     compiler, C libraries, Rust
#   scripts/setup.sh --for observe  the same, and Prometheus and Alertmanager
#   scripts/setup.sh --for test     all of it, and clippy, rustfmt, Java and Maven for the brokers, network tools, collectors
#   scripts/setup.sh --for images   what `test` needs, and a container engine, buildah, skopeo, qemu for the other architecture
#   scripts/setup.sh --for hosts    what `test` needs, and systemd-nspawn and mmdebstrap: hosts that boot
#   scripts/setup.sh --for kubernetes  what `test` needs, and etcd: a real API server
#
# scripts/dist.sh adds the cross compiler itself: it makes arm64 a foreign architecture of the machine, which nothing else needs.
#
# Services that come with a package are neither started nor enabled: the tests start what they need for themselves.
#
# Debian 12: tried in a fresh root. Ubuntu 24.04: the same package names are written down, NOT TRIED.
# Needs root or sudo when something is missing. Elsewhere it checks what it can and names what to install.
#
# There is no "already done" stamp: asking dpkg costs 50 ms and stays right when a package is removed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# rdkafka-sys builds librdkafka with cmake against OpenSSL, SASL and zlib. The curl headers are needed although curl
# is switched off (librdkafka issue 5135).
DEMO_PACKAGES=(build-essential cmake pkg-config libssl-dev libsasl2-dev zlib1g-dev libcurl4-openssl-dev ca-certificates)
# What shows and judges the metrics; of `make observe`.
OBSERVE_PACKAGES=(prometheus prometheus-alertmanager)
# Brokers: Java 17 or later, Maven, openssl for their certificates. Software diode: ip, nft. Shell check: a Python venv.
# Telemetry: the real Prometheus and Alertmanager (with promtool and amtool), rsyslog and netdata as collectors.
# Packages and units: lintian, rpm, systemd-analyze.
TEST_PACKAGES=(openjdk-17-jre-headless maven openssl iproute2 nftables procps python3 python3-venv git
  "${OBSERVE_PACKAGES[@]}" rsyslog netdata-core lintian rpm rpmlint binutils systemd skopeo)
# The targets that are not part of `make test`.
IMAGE_PACKAGES=(docker.io buildah skopeo mmdebstrap qemu-user-static)
HOST_PACKAGES=(systemd-container mmdebstrap qemu-user-static openssh-client tcpdump)
KUBERNETES_PACKAGES=(etcd-server)
USAGE='setup.sh --for demo|observe|test|images|hosts|kubernetes'

main() {
  local profile=
  while (($#)); do
    case $1 in
      --for)
        profile=${2:-}
        shift
        ;;
      *) die "$EX_USAGE" "unknown argument \`$1\`; usage: $USAGE" ;;
    esac
    shift
  done
  local packages=("${DEMO_PACKAGES[@]}")
  case $profile in
    demo) ;;
    observe) packages+=("${OBSERVE_PACKAGES[@]}") ;;
    test) packages+=("${TEST_PACKAGES[@]}") ;;
    images) packages+=("${TEST_PACKAGES[@]}" "${IMAGE_PACKAGES[@]}") ;;
    hosts) packages+=("${TEST_PACKAGES[@]}" "${HOST_PACKAGES[@]}") ;;
    kubernetes) packages+=("${TEST_PACKAGES[@]}" "${KUBERNETES_PACKAGES[@]}") ;;
    *) die "$EX_USAGE" "usage: $USAGE" ;;
  esac
  # From here on these differ in nothing but their packages.
  case $profile in images | hosts | kubernetes) profile='test' ;; esac

  [[ $(uname -s) == Linux ]] || die "$EX_UNAVAILABLE" "DDC builds and runs on Linux; this is $(uname -s)"
  local distribution
  distribution=$(distribution_name)
  case $distribution in
    debian-12 | debian-12.*) ;;
    ubuntu-24.04) notice_untried "$distribution" ;;
    *)
      if have apt-get && have dpkg-query; then
        notice_untried "$distribution"
      else
        check_unknown "$distribution" "$profile" "${packages[@]}"
        return 0
      fi
      ;;
  esac

  add_rust_packages "$distribution" "$profile"
  packages+=("${RUST_PACKAGES[@]}")
  install_missing "${packages[@]}"
  finish_rust "$profile"
}

distribution_name() {
  # shellcheck source=/dev/null
  (source /etc/os-release 2>/dev/null && printf '%s-%s\n' "${ID:-unknown}" "${VERSION_ID:-unknown}") ||
    printf 'unknown\n'
}

# Said only when something will really be installed.
UNTRIED=
notice_untried() { UNTRIED=$1; }

# --- packages ------------------------------------------------------------------------------------------------------

install_missing() {
  local package state missing=()
  declare -A installed=()
  # One call for all; packages dpkg has never heard of are simply not in the answer.
  while read -r package state; do
    [[ $state == installed ]] && installed[$package]=1
  done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
  for package in "$@"; do
    [[ ${installed[$package]:-} ]] || brought_otherwise "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0

  [[ -z $UNTRIED ]] || say "setup: these package names have not been tried on $UNTRIED"
  ((EUID == 0)) || have sudo || die "$EX_UNAVAILABLE" \
    "not root and no sudo; have this run as root: apt-get update && apt-get install -y ${missing[*]}"
  say "setup: installing ${missing[*]}"
  as_root apt-get update -qq ||
    die "$EX_UNAVAILABLE" "\`apt-get update\` failed (see above); the packages still missing: ${missing[*]}"
  local log
  log=$(mktemp)
  keep_services_down
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Use-Pty=0 "${missing[@]}" >"$log" 2>&1 </dev/null; then
    say "$(tail -n 30 "$log")"
    rm -f "$log"
    die "$EX_UNAVAILABLE" "\`apt-get install\` failed (see above); the packages still missing: ${missing[*]}"
  fi
  rm -f "$log"
  let_services_be "${missing[@]}"
}

# While packages are installed, Debian's own switch (policy-rc.d) keeps their services from being started.
POLICY=/usr/sbin/policy-rc.d
POLICY_IS_OURS=
keep_services_down() {
  [[ ! -e $POLICY ]] || return 0
  POLICY_IS_OURS=yes
  trap remove_policy EXIT
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
  as_root chmod 755 "$POLICY"
}

remove_policy() {
  [[ ! $POLICY_IS_OURS ]] || as_root rm -f "$POLICY"
  POLICY_IS_OURS=
}

# let_services_be PACKAGE…: what was installed just now is not started at the next boot either.
let_services_be() {
  remove_policy
  [[ -d /run/systemd/system ]] || return 0
  local package service
  for package in "$@"; do
    case $package in
      prometheus | prometheus-alertmanager | rsyslog) service=$package ;;
      netdata-core) service=netdata ;;
      docker.io) service=docker ;;
      etcd-server) service=etcd ;;
      *) continue ;;
    esac
    as_root systemctl disable --quiet "$service" 2>/dev/null || true
  done
}

# Java, Maven and cmake often come from elsewhere (SDKMAN, pip); one that works is not doubled.
brought_otherwise() {
  local version
  case $1 in
    openjdk-17-jre-headless)
      version=$(java -version 2>&1 | sed -n '1s/.*"\([0-9]*\).*/\1/p') || return 1
      [[ -n $version ]] && version_at_least "$version" 17
      ;;
    maven) have mvn ;;
    cmake) have cmake ;;
    *) return 1 ;;
  esac
}

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# --- Rust ----------------------------------------------------------------------------------------------------------

# Sets RUST_PACKAGES: none, when a recent toolchain is there.
add_rust_packages() {
  RUST_PACKAGES=()
  use_rust && return 0
  case $1 in
    ubuntu-*) RUST_PACKAGES=(rustup) ;; # its own rustc is too old; NOT TRIED
    *)
      # Debian keeps a current compiler, for its browsers, under these names.
      RUST_PACKAGES=(rustc-web cargo-web)
      [[ $2 == test ]] && RUST_PACKAGES+=(rust-web-clippy rustfmt-web)
      ;;
  esac
  return 0
}

# After the packages: the toolchain must be there, for `test` with clippy and rustfmt.
finish_rust() {
  hash -r
  if ! use_rust && have rustup; then
    say "setup: installing the stable Rust toolchain with rustup"
    rustup toolchain install stable --profile minimal >&2
    rustup default stable >&2
    hash -r
  fi
  use_rust || die "$EX_UNAVAILABLE" \
    "no Rust toolchain of version $(rust_version_wanted) or later; install one (https://rustup.rs) and run this again"
  [[ $1 == test ]] || return 0
  rust_tools_present && return 0
  if debian_rust; then
    install_missing rust-web-clippy rustfmt-web
  elif have rustup; then
    say "setup: adding clippy and rustfmt to the Rust toolchain"
    rustup component add clippy rustfmt >&2 || true
  fi
  rust_tools_present || die "$EX_UNAVAILABLE" \
    "clippy or rustfmt is missing for $(command -v cargo); run: rustup component add clippy rustfmt"
}

# The toolchain in use is Debian's rustc-web. (A packaged rustup puts its cargo in /usr/bin too.)
debian_rust() {
  [[ $(command -v cargo) == /usr/bin/cargo ]] &&
    dpkg-query -W -f '${db:Status-Status}' rustc-web 2>/dev/null | grep -qx installed
}

rust_tools_present() { cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; }

# --- other distributions -------------------------------------------------------------------------------------------

# Nothing can be installed here: goes on when everything is there, else names it.
check_unknown() {
  local distribution=$1 profile=$2 missing=() tool library tools=(cc c++ cmake pkg-config git)
  shift 2
  [[ $profile == demo ]] || tools+=(prometheus promtool amtool)
  [[ $profile == test ]] && tools+=(java mvn openssl ip nft python3 rsyslogd netdata)
  # ip and nft lie in directories that only root has on its PATH.
  local PATH=$PATH:/usr/sbin:/sbin
  for tool in "${tools[@]}"; do have "$tool" || missing+=("$tool"); done
  if have pkg-config; then
    for library in openssl libsasl2 zlib libcurl; do
      pkg-config --exists "$library" || missing+=("$library (headers)")
    done
  fi
  use_rust || missing+=("Rust $(rust_version_wanted) or later")
  if ((${#missing[@]} == 0)); then
    finish_rust "$profile"
    return 0
  fi
  local list
  printf -v list '%s, ' "${missing[@]}"
  die "$EX_UNAVAILABLE" "$distribution is not a distribution this script can install on.
  Missing: ${list%, }
  On Debian 12 these packages bring it (yours will have other names): $* rustc-web cargo-web rust-web-clippy rustfmt-web"
}

main "$@"
