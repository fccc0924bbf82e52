#!/usr/bin/env bash
# Measures DDC between two real brokers beside a bare loop, in one run, and prints one table in Markdown.
#
#   scripts/measure.sh [--records N] [--size BYTES] [--rounds N] [--rate RATE] [--only PART,…]
#   scripts/measure.sh spool [DIRECTORY]    the spool alone, beside dd's way of writing; wants 12 GB there
#
# Builds the release binary, starts two Kafka brokers in a temporary directory, ends them at the end. Takes minutes;
# nothing else should run on the machine meanwhile. Progress goes to standard error, the table to standard output.
# What is measured: ddc/e2e/examples/measure. What was measured: docs/benchmarks.md.
#
# MEASURE_KEEP_LOGS=DIR keeps the logs of all proxies there; MEASURE_KAFKA=3 takes Kafka 3.9 instead of 4;
# MEASURE_PORT (19400) is the first of the ports of the brokers.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

KAFKA=deploy/kafka-dev/kafka.sh
VERSION=${MEASURE_KAFKA:-4}
SOURCE_PORT=${MEASURE_PORT:-19400}
DESTINATION_PORT=$((SOURCE_PORT + 10))

scripts/setup.sh --for test
use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later, although setup.sh ended well"
target=$(target_dir)
if [[ ${1:-} == spool ]]; then
  cargo build --quiet --release --locked -p ddc-spool --example append_speed
  work=$(mktemp -d -p "${2:-${TMPDIR:-/tmp}}")
  trap 'rm -rf "$work"' EXIT
  "$target/release/examples/append_speed" "$work" 1024 10240
  exit
fi
cargo build --quiet --release --locked -p ddc-cli
cargo build --quiet --release --locked -p ddc-e2e --example measure

work=$(mktemp -d)
clean_up() {
  "$KAFKA" stop measure-source --dir "$work/source" >&2 || true
  "$KAFKA" stop measure-destination --dir "$work/destination" >&2 || true
  rm -rf "$work"
}
trap clean_up EXIT

"$KAFKA" start measure-source "$VERSION" "$SOURCE_PORT" --dir "$work/source" >&2
"$KAFKA" start measure-destination "$VERSION" "$DESTINATION_PORT" --dir "$work/destination" >&2

"$target/release/examples/measure" --ddc "$target/release/ddc" --kafka-home "$("$KAFKA" fetch "$VERSION")" \
  --source "127.0.0.1:$SOURCE_PORT" --destination "127.0.0.1:$DESTINATION_PORT" "$@"
