#!/usr/bin/env bash
# cargo of a Rust toolchain that is recent enough, wherever it lies. For the Makefile.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"
use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later; run: scripts/setup.sh --for test"
exec cargo "$@"
