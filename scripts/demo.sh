#!/usr/bin/env bash
# `make demo`: sets up what is missing, builds the release binary, runs `ddc demo` with the arguments given.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

scripts/setup.sh --for demo
use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later, although setup.sh ended well"
target=$(target_dir)
# The first build takes minutes and shows its progress; later ones only speak when something is wrong.
quiet=(--quiet)
if [[ ! -x $target/release/ddc ]]; then
  quiet=()
  say "Building ddc; the first time this takes some minutes (librdkafka is C) …"
fi
cargo build "${quiet[@]}" --release --locked -p ddc-cli
exec "$target/release/ddc" demo "$@"
