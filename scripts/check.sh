#!/usr/bin/env bash
# `make check`: the quick loop, under a minute when warm. Formatting of everything; clippy and tests of the crates
# that do not need librdkafka.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

# A tenth of the scenarios that `make test` runs: this loop is for every few minutes.
export SIM_SCENARIOS=${SIM_SCENARIOS:-200}

use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later; run: scripts/setup.sh --for test"
pure=(-p ddc-wire -p ddc-fec -p ddc-link -p ddc-progress -p ddc-udp -p ddc-spool -p ddc-telemetry)
cargo fmt --all -- --check
cargo clippy --quiet --locked "${pure[@]}" --all-targets -- -D warnings
cargo test --quiet --locked "${pure[@]}"
