#!/usr/bin/env bash
# Builds the test double, runs its tests (recordings of a real Vector, the shipped files, bad input), and validates and tests the shipped files with it.
#
#   vector/check.sh            everything; the first build takes minutes, later runs under one
#   vector/check.sh --quick    without clippy and rustfmt
#
# Needs cargo of the Rust in double/Cargo.toml, and promtool (Debian: prometheus). CARGO may name another cargo.
# The double has a workspace, a lock file and a target directory of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

quick=
case ${1:-} in
  --quick) quick=1 ;;
  "") ;;
  *)
    echo "usage: check.sh [--quick]" >&2
    exit 64
    ;;
esac
if ! command -v promtool >/dev/null; then
  echo "check.sh: no promtool (Debian: prometheus)" >&2
  exit 69
fi

cargo=${CARGO:-cargo}
# What the main workspace's target directory is set to must not be shared: two crate graphs would push each other out.
unset CARGO_TARGET_DIR
manifest=(--locked --manifest-path double/Cargo.toml)
"$cargo" build "${manifest[@]}"
if [[ -z $quick ]]; then
  "$cargo" fmt --manifest-path double/Cargo.toml --check
  "$cargo" clippy "${manifest[@]}" --all-targets -- -D warnings
fi
"$cargo" test "${manifest[@]}"
VECTOR_BIN=$PWD/double/target/debug/ddc-vector-double ./verify.sh
