#!/usr/bin/env bash
# Writes what is here only because containers have names where hosts have loopback: Prometheus' configuration, Grafana's
# data source, and the references of images. check.sh compares them with their sources.
#
#   generate.sh [DIRECTORY]      default: this one
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../../.." && pwd)
out=${1:-$HERE}
mkdir -p "$out/destination/grafana/datasources"

# written SOURCE EXPRESSION FILE: SOURCE with EXPRESSION applied, under a head of its own.
written() {
  printf '# Written by deploy/compose/single-pair/generate.sh from %s. Do not edit.\n' "$1"
  sed -E "$2" "$ROOT/$1"
}

written deploy/prometheus/prometheus-destination.yml 's/127\.0\.0\.1:9093/alertmanager:9093/' \
  >"$out/destination/prometheus.yml"
written grafana/provisioning/datasources/ddc.yaml 's/127\.0\.0\.1:9090/prometheus:9090/' \
  >"$out/destination/grafana/datasources/ddc.yaml"
"$ROOT/scripts/mirror.py" references >"$out/images.env"
