#!/usr/bin/env bash
# Builds the test double, runs its tests (recordings of a real Vector, the shipped files, bad input), and validates and tests the shipped files with it.
#
#   vector/check.sh            everything; the first build takes minutes, later runs under one
#   vector/check.sh --quick    without clippy and rustfmt
#   vector/check.sh --oldest-vrl   the tests once more with the VRL and the syslog parser of Vector 0.43, in a copy; minutes
#
# Needs cargo of the Rust in double/Cargo.toml, and promtool (Debian: prometheus). CARGO may name another cargo.
# The double has a workspace, a lock file and a target directory of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

quick='' oldest=''
case ${1:-} in
  --quick) quick=1 ;;
  --oldest-vrl) oldest=1 ;;
  "") ;;
  *)
    echo "usage: check.sh [--quick | --oldest-vrl]" >&2
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

if [[ -n $oldest ]]; then
  copy=$(mktemp -d)
  trap 'rm -rf "$copy"' EXIT
  mkdir -p "$copy/vector/double" "$copy/ddc/telemetry/tests"
  cp -r ./*.yaml README.md vrl tests snippets "$copy/vector"
  cp -r double/Cargo.toml double/src double/tests double/golden "$copy/vector/double"
  cp ../ddc/telemetry/tests/vectors.json "$copy/ddc/telemetry/tests"
  sed -i 's/^vrl = .*/vrl = { version = "0.20", default-features = false, features = ["compiler", "value", "stdlib"] }/
    s/^syslog_loose = .*/syslog_loose = "0.21"/' "$copy/vector/double/Cargo.toml"
  # The one name that changed since.
  find "$copy/vector/double/src" -name '*.rs' -exec sed -i 's/to_str_lossy/as_str/g' {} +
  "$cargo" test --manifest-path "$copy/vector/double/Cargo.toml"
  exit
fi

manifest=(--locked --manifest-path double/Cargo.toml)
"$cargo" build "${manifest[@]}"
if [[ -z $quick ]]; then
  "$cargo" fmt --manifest-path double/Cargo.toml --check
  "$cargo" clippy "${manifest[@]}" --all-targets -- -D warnings
fi
"$cargo" test "${manifest[@]}"
VECTOR_BIN=$PWD/double/target/debug/ddc-vector-double ./verify.sh
