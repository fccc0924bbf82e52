#!/usr/bin/env bash
# `make chaos SECONDS=… SEED=…`: sets up what is missing, builds, and runs ddc-chaos with the arguments given. docs/chaos.md
# says what it does. As root it runs in a mount namespace of its own: the small disk is gone however the run ends.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

scripts/setup.sh --for test
use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later, although setup.sh ended well"
deploy/kafka-dev/kafka.sh fetch 4 >/dev/null
export DDC_KAFKA_HOME_4=$CACHE_DIR/kafka-$KAFKA_4_VERSION
target=$(target_dir)
export DDC_BIN=$target/debug/ddc
# All binaries of the workspace, as `make test` builds them: another selection would build librdkafka once more.
cargo build --quiet --workspace --locked --bins
isolated=()
if ((EUID == 0)) && unshare --mount true 2>/dev/null; then
  isolated=(unshare --mount --propagation private)
fi
exec "${isolated[@]}" "$target/debug/ddc-chaos" --out "$target/chaos" "$@"
