#!/usr/bin/env bash
# `make test`: everything that must hold before a change is done. Stages in order of cost; each prints its minutes.
# `scripts/test.sh kafka-3` is `make test-kafka-3`: every end-to-end test that has a variant for Kafka 3.x, with it.
# A failed stage does not stop the others, except where nothing after it could run. What can't be checked, because a
# tool is not to be had, has failed.
#
# The last line is the sum, for people and for CI: "N passed, M failed". N counts the tests that cargo ran and, for
# stages without tests of their own (formatting, lints, drift, licences, demo), one check each.
#
# All of it uses one cargo profile (dev) and one package selection (--workspace), so that librdkafka, minutes of C,
# is compiled once: another selection would resolve other features for its dependencies and build it again.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

# By these the tests find the brokers and the binary (CONTRIBUTING.md says more).
export DDC_KAFKA_HOME_4=$CACHE_DIR/kafka-$KAFKA_4_VERSION
export DDC_KAFKA_HOME_3=$CACHE_DIR/kafka-$KAFKA_3_VERSION
DDC_BIN=$(target_dir)/debug/ddc
export DDC_BIN

# A hanging test must not hang CI: these are some ten times what the stages take.
UNIT_LIMIT=20m
VECTOR_LIMIT=25m
E2E_LIMIT=40m
DEMO_LIMIT=5m
CHAOS_LIMIT=12m

# Of the variants for Kafka 3.x these are in `make test`: all fields, exactly once over a crash, a secure link, reading of transactions.
KAFKA_3_SAMPLE=(
  fields::every_field_is_intact_on_kafka_3
  restarts::egress_killed_on_kafka_3
  security::sasl_ssl_to_mutual_tls_on_kafka_3
  topic_log::transactions_on_kafka_3
)

LOGS=$(mktemp -d)
trap 'rm -rf "$LOGS"' EXIT
PASSED=0 FAILED=0 IGNORED=0 SUMMARY=()

main() {
  stage setup scripts/setup.sh --for test || finish
  use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later, although setup.sh ended well"
  say "Rust: $(rustc --version), $(command -v cargo)"
  case ${1:-} in
    "") ;;
    kafka-3) kafka_3 ;;
    *) die "$EX_USAGE" "usage: scripts/test.sh [kafka-3]" ;;
  esac

  stage format cargo fmt --all -- --check || true
  stage shell scripts/shellcheck.sh || true
  stage licences scripts/cargo-deny.sh check || true
  stage clippy cargo clippy --workspace --all-targets --locked -- -D warnings || true
  # After clippy, which has checked what it needs. Links that lead nowhere, or from public texts to private things.
  stage rustdoc env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet || true
  stage build build || finish
  # As built above; `cargo xtask` would select one package, and build librdkafka once more.
  stage generated "$(target_dir)/debug/xtask" check || true
  stage dashboards grafana/check.py || true
  stage rules deploy/prometheus/check.sh || true
  stage vector vector_pipeline || true
  stage mirror scripts/test_mirror.py || true
  stage one-way deploy/one-way/check.sh || true
  stage packages deploy/packages/check.sh || true
  stage images deploy/docker/check.sh || true
  stage compose deploy/compose/single-pair/check.sh || true
  stage ansible ansible/check.sh || true
  stage helm helm/check.sh || true
  stage unit unit_tests || true
  stage brokers fetch_brokers || finish
  stage e2e e2e_tests --skip kafka_3 || true
  stage kafka-3 e2e_tests --exact "${KAFKA_3_SAMPLE[@]}" || true
  stage demo demo || true
  stage chaos chaos || true
  finish
}

kafka_3() {
  stage build build || finish
  stage brokers fetch_brokers || finish
  stage kafka-3 e2e_tests kafka_3 || true
  finish
}

# --- the stages ----------------------------------------------------------------------------------------------------

# shellcheck disable=SC2329 # the stages are called by name, through `stage`
{
  # Unit tests of all crates, integration tests of all but e2e, documentation examples.
  unit_tests() {
    local directory directories=() selection code=0
    for directory in ddc/*/tests; do
      [[ $directory == ddc/e2e/tests ]] || directories+=("$directory")
    done
    mapfile -t selection < <(test_targets "${directories[@]}")
    cargo_test "$UNIT_LIMIT" --lib --bins "${selection[@]}" || code=$?
    cargo_test "$UNIT_LIMIT" --doc || code=$?
    return "$code"
  }

  build() {
    cargo test --workspace --locked --no-run && cargo build --workspace --locked --bins
  }

  # The pipeline with the double's VRL compiler; its tests are cargo's, in a workspace of its own.
  vector_pipeline() {
    timeout -k 10 "$VECTOR_LIMIT" vector/check.sh &&
      scripts/cargo-deny.sh --manifest-path vector/double/Cargo.toml --config vector/double/deny.toml check bans licenses sources
  }

  fetch_brokers() {
    deploy/kafka-dev/kafka.sh fetch "$KAFKA_4_VERSION" && deploy/kafka-dev/kafka.sh fetch "$KAFKA_3_VERSION"
  }

  # e2e_tests [FILTER…]: real brokers, real sockets, network namespaces; one after the other, since they measure and kill things.
  e2e_tests() {
    local selection
    mapfile -t selection < <(test_targets ddc/e2e/tests)
    if ((${#selection[@]} == 0)); then
      say "no end-to-end tests in ddc/e2e/tests"
      return 1
    fi
    cargo_test "$E2E_LIMIT" "${selection[@]}" -- --test-threads=1 "$@"
  }

  # The main job once more as a user would see it, with loss, so that repair is at work.
  demo() {
    timeout -k 10 "$DEMO_LIMIT" "$DDC_BIN" demo --records 20000 --loss 0.01
  }

  # A minute of faults with a fixed seed; `make chaos` takes any.
  chaos() {
    timeout -k 10 "$CHAOS_LIMIT" scripts/chaos.sh --seconds 60 --seed 7
  }

  cargo_test() { timeout -k 10 "$1" cargo test --workspace --locked --no-fail-fast "${@:2}"; }

  # test_targets DIRECTORY…: `--test NAME` for every integration test in them, one word a line.
  test_targets() {
    local directory file
    for directory in "$@"; do
      for file in "$directory"/*.rs; do
        [[ ! -f $file ]] || printf '%s\n' --test "$(basename "$file" .rs)"
      done
      for file in "$directory"/*/main.rs; do
        [[ ! -f $file ]] || printf '%s\n' --test "$(basename "$(dirname "$file")")"
      done
    done
  }
}

# --- running and counting ------------------------------------------------------------------------------------------

# stage NAME COMMAND…: runs it, shows and keeps its output, counts its tests, prints its minutes.
stage() {
  local name=$1 log=$LOGS/$1.log since=$SECONDS code=0
  shift
  printf '\n== %s\n' "$name"
  exec 3> >(exec tee "$log")
  local tee_pid=$! patience
  "$@" >&3 2>&3 3>&- </dev/null || code=$?
  exec 3>&-
  # Something a failed test left running may hold the other end: tee is given 5 s, not for ever.
  for patience in {1..50}; do
    kill -0 "$tee_pid" 2>/dev/null || break
    ((patience < 50)) || kill "$tee_pid" 2>/dev/null || true
    sleep 0.1
  done
  count "$name" "$log" "$code"
  local line
  line="stage $name: $(minutes $((SECONDS - since))) min"
  ((code == 0)) || line+=", FAILED (exit code $code)"
  ((code != 124)) || line+=": took longer than its limit"
  SUMMARY+=("$line")
  printf '%s\n' "$line"
  return "$code"
}

# count NAME LOG CODE: adds cargo's own sums and those of scripts ("N passed, M failed", alone on a line); a stage
# without any counts as one check.
count() {
  local name=$1 log=$2 code=$3 passed failed ignored
  read -r passed failed ignored < <(
    awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1)
           if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) g += $(i-1) } }
         /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3 } END { print p+0, f+0, g+0 }' "$log"
  )
  if ((code != 0 && failed == 0)); then
    # It failed without a failed test: does not compile, ran too long.
    failed=1
  elif ((code == 0 && passed == 0)); then
    # Tests that did not run have not passed.
    if [[ $name == unit || $name == e2e ]]; then failed=1; else passed=1; fi
  fi
  PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) IGNORED=$((IGNORED + ignored))
}

finish() {
  printf '\n== summary\n'
  printf '%s\n' "${SUMMARY[@]}"
  printf 'total: %s min\n' "$(minutes "$SECONDS")"
  ((IGNORED == 0)) || printf 'ignored tests: %s\n' "$IGNORED"
  printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0 && PASSED > 0)) || exit 1
  exit 0
}

main "$@"
