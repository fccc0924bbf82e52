#!/usr/bin/env bash
# Runs a pinned cargo-deny, built once and cached outside the clone. `cargo-deny.sh check` checks licences, sources
# and duplicates as deny.toml says.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"
use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later; run: scripts/setup.sh --for test"

tool=$CACHE_DIR/cargo-deny-$CARGO_DENY_VERSION
if [[ ! -x $tool/bin/cargo-deny ]]; then
  say "Building cargo-deny $CARGO_DENY_VERSION once …"
  # Unoptimised: it builds in half the time and runs as quickly. A target directory of its own, removed afterwards.
  build=$(mktemp -d)
  trap 'rm -rf "$build"' EXIT
  CARGO_TARGET_DIR=$build CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$tool" \
    --no-default-features "cargo-deny@$CARGO_DENY_VERSION" ||
    die "$EX_UNAVAILABLE" "cargo-deny $CARGO_DENY_VERSION could not be built (see above)"
fi

if [[ ${1:-} == check && $# == 1 ]]; then
  # Not advisories: their database is a git repository that build hosts behind a registry mirror can't reach. With
  # access, run: scripts/cargo-deny.sh check advisories
  set -- --locked check bans licenses sources
fi
"$tool/bin/cargo-deny" "$@"
