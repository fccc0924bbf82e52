#!/usr/bin/env bash
# `make observe`: the whole chain for a person to look at: `ddc demo` as traffic, Vector, Prometheus with the rules that are
# shipped, Alertmanager, and Grafana where it is installed. Everything is on loopback; Ctrl-C ends all of it.
#
#   scripts/observe.sh [ARGUMENTS OF ddc demo…]        for example: --loss 0.02 --per-second 5000
#
#   VECTOR_BIN       a real Vector; without it the test double of this repository, which knows only what our files use
#   GRAFANA_HOME     the directory of a Grafana (with bin/grafana and conf/); without it Debian's place, if it is there
#   OBSERVE_SECONDS  end after so many seconds; the exit code then tells whether every part lived that long
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

LOGS=$(mktemp -d)
PIDS=()

main() {
  scripts/setup.sh --for observe
  use_rust || die "$EX_UNAVAILABLE" "no Rust $(rust_version_wanted) or later, although setup.sh ended well"
  local target
  target=$(target_dir)
  say "Building ddc; the first time this takes some minutes …"
  cargo build --quiet --release --locked -p ddc-cli
  vector_binary
  trap stop EXIT
  trap 'exit 130' INT TERM

  DDC_VECTOR_DIR=$ROOT_DIR/vector DDC_SYSLOG_SOCKET=$LOGS/syslog.sock DDC_SITE=demo \
    start vector "$VECTOR" --config vector/vector.yaml --config vector/exporter.yaml
  wait_for Vector 9598 /metrics
  start alertmanager prometheus-alertmanager --config.file=deploy/prometheus/alertmanager.yml \
    --storage.path="$LOGS/alertmanager" --web.listen-address=127.0.0.1:9093 --cluster.listen-address=
  start prometheus prometheus --config.file=deploy/prometheus/prometheus-both.yml \
    --storage.tsdb.path="$LOGS/tsdb" --web.listen-address=127.0.0.1:9090
  wait_for Prometheus 9090 /-/ready
  wait_for Alertmanager 9093 /-/ready
  grafana
  start demo "$target/release/ddc" demo --records 100000000 --size 200 --per-second 2000 --loss 0.01 \
    --statsd 127.0.0.1:8125 --syslog tcp://127.0.0.1:5140 --site demo --admin "$@"

  # Debian's Prometheus has the old pages only.
  local pages=
  answers 9090 /alerts || pages=/classic
  cat <<TEXT
The chain runs; logs are in $LOGS.
  Prometheus     http://127.0.0.1:9090$pages/alerts and http://127.0.0.1:9090$pages/graph
  Alertmanager   amtool --alertmanager.url=http://127.0.0.1:9093 alert
  Grafana        $GRAFANA_WORD
  terminal       $target/release/ddc top
Ctrl-C ends it.
TEXT
  watch_over
}

# Sets VECTOR.
vector_binary() {
  if [[ -n ${VECTOR_BIN:-} ]]; then
    VECTOR=$VECTOR_BIN
    return
  fi
  VECTOR=$ROOT_DIR/vector/double/target/debug/ddc-vector-double
  [[ -x $VECTOR ]] || say "Building the test double of Vector; the first time this takes some ten minutes …"
  (cd vector/double && cargo build --quiet --locked --bins)
}

# Grafana with our provisioning, if there is one; sets GRAFANA_WORD.
grafana() {
  local home=${GRAFANA_HOME:-/usr/share/grafana} binary=
  GRAFANA_WORD="not installed here (set GRAFANA_HOME); the dashboards are in grafana/dashboards"
  for binary in "$home/bin/grafana" /usr/sbin/grafana; do
    [[ -x $binary ]] || continue
    GF_PATHS_DATA=$LOGS/grafana GF_PATHS_PROVISIONING=$ROOT_DIR/grafana/provisioning GF_SERVER_HTTP_ADDR=127.0.0.1 \
      GF_AUTH_ANONYMOUS_ENABLED=true GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer DDC_DASHBOARDS=$ROOT_DIR/grafana/dashboards \
      start grafana "$binary" server --homepath "$home"
    GRAFANA_WORD="http://127.0.0.1:3000/d/ddc-fleet"
    return
  done
}

# start NAME COMMAND…: in the background, with a log.
start() {
  local name=$1
  shift
  "$@" >"$LOGS/$name.log" 2>&1 </dev/null &
  PIDS+=("$name:$!")
}

# wait_for NAME PORT PATH: until it answers.
wait_for() {
  local patience
  for patience in {1..150}; do
    if answers "$2" "$3"; then return 0; fi
    all_live || exit 1
    sleep 0.2
  done
  say "$1 does not answer on 127.0.0.1:$2; its log is in $LOGS ($patience looks)"
  exit 1
}

answers() {
  local line
  exec 4<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&4
  read -r -t 5 line <&4 || line=
  exec 4>&-
  [[ $line == *" 200 "* ]]
} 2>/dev/null

# Says which part has ended, and why.
all_live() {
  local part
  for part in "${PIDS[@]}"; do
    kill -0 "${part#*:}" 2>/dev/null && continue
    say "${part%%:*} has ended; the end of its log:"
    tail -n 5 "$LOGS/${part%%:*}.log" >&2
    return 1
  done
}

watch_over() {
  local end=$((SECONDS + ${OBSERVE_SECONDS:-2147483647}))
  while ((SECONDS < end)); do
    all_live || exit 1
    sleep 1
  done
}

stop() {
  local part
  for part in "${PIDS[@]}"; do kill "${part#*:}" 2>/dev/null || true; done
  wait
  rm -rf "$LOGS"
}

main "$@"
