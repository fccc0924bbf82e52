#!/usr/bin/env bash
# Checks the chart without a cluster: what it renders from every file of ddc/ci and the README's examples, and what it says to wrong values.
# Prints a line for each step, then the sum.
#
#   helm/check.sh            with Helm 4; under a minute once the tools are built
#   helm/check.sh --helm3    the same with Helm 3 (without the unit tests, which have an engine of their own)
#
# Needs DDC_BIN (a ddc binary), the test double of Vector (vector/check.sh builds it; VECTOR_BIN names another, or a real
# Vector), promtool (Debian: prometheus) and openssl; the other tools come by scripts/tools.sh. What is missing fails.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$ROOT_DIR"

# How much of a processor `helm template` may take, in milliseconds: on a busy machine the clock would tell of the others.
TEMPLATE_LIMIT=1000
# What kube-score asks and this chart does otherwise, each with its reason.
KUBE_SCORE=(
  # Throttling delays datagrams; at the egress that is loss.
  --ignore-container-cpu-limit
  # The node has the image, by digest or by a tag that is never written anew: a link must start while the registry is away.
  --ignore-test container-image-pull-policy
  # One link is one pod: a budget would only block drains, and there is nothing to keep apart.
  --ignore-test deployment-has-poddisruptionbudget
  --ignore-test deployment-has-host-podantiaffinity
)

# The oldest that Chart.yaml allows. A Helm that was built from its module alone thinks of a much older one.
KUBE_VERSION=(--kube-version 1.29.0)

PASSED=0 FAILED=0

main() {
  local engine=helm
  case ${1:-} in
    --helm3) engine=helm3 ;;
    "") ;;
    *) die "$EX_USAGE" "usage: check.sh [--helm3]" ;;
  esac
  need_tools "$engine"
  SCRATCH=$(mktemp -d)
  trap 'rm -rf "$SCRATCH"' EXIT
  # Helm must not read or write what the user has.
  export HELM_CONFIG_HOME=$SCRATCH/config HELM_CACHE_HOME=$SCRATCH/cache HELM_DATA_HOME=$SCRATCH/data

  say "helm/check.sh: Helm $("$HELM" version --short)"
  [[ $engine == helm3 ]] || step "values.yaml, README.md and versions are as generated" helm/generate.py --check
  local file
  collect_values
  for file in "$SCRATCH"/values/*; do
    step "lint --strict and template, $(basename "$file")" lint_and_render "$file"
  done
  step "the package holds what the symbolic links name, and renders the same" package
  [[ $engine == helm3 ]] || step "unit tests" unit_tests
  step "broken on purpose: wrong values are refused" refused
  step "Kubernetes' schemas, strictly" checks kubernetes
  for file in "$SCRATCH"/rendered/*; do
    if grep -q '^kind: Deployment$' "$file"; then step "kube-score, $(basename "$file")" score "$file"; fi
  done
  step "every ddc configuration, by ddc check" checks ddc
  step "every Vector configuration" checks vector
  step "every PrometheusRule, by promtool; as in deploy/prometheus" checks rules
  step "every dashboard is the one in grafana/" checks dashboards
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

need_tools() {
  HELM=$(scripts/tools.sh path "$1")
  KUBE_SCORE_BIN=$(scripts/tools.sh path kube-score)
  PYTHON=$(dirname "$(scripts/tools.sh path kubernetes-validate)")/python
  have promtool || die "$EX_UNAVAILABLE" "promtool is missing; run: apt-get install prometheus"
  have openssl || die "$EX_UNAVAILABLE" "openssl is missing; run: apt-get install openssl"
  [[ -x ${DDC_BIN:-} ]] || die "$EX_UNAVAILABLE" "DDC_BIN names no ddc binary; run: cargo build --workspace, and DDC_BIN=\$PWD/target/debug/ddc helm/check.sh"
  export VECTOR_BIN=${VECTOR_BIN:-$ROOT_DIR/vector/double/target/debug/ddc-vector-double}
  [[ -x $VECTOR_BIN ]] || die "$EX_UNAVAILABLE" "no $VECTOR_BIN; run: vector/check.sh --quick"
}

# step NAME COMMAND…: the command's output is shown when it fails; when it does not, its last line.
step() {
  local name=$1 code
  shift
  # Not as a condition: that would switch off `set -e` in it.
  set +e
  (
    set -e
    "$@"
  ) >"$SCRATCH/output" 2>&1
  code=$?
  set -e
  if ((code == 0)); then
    PASSED=$((PASSED + 1))
    printf 'ok    %s%s\n' "$name" "$(tail -n 1 "$SCRATCH/output" | sed -n 's/^=//p')"
  else
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$name"
    sed 's/^/      /' "$SCRATCH/output"
  fi
}

# Helm says for each symbolic link that it follows it.
helm_quiet() {
  local code=0
  "$HELM" "$@" 2>"$SCRATCH/stderr" || code=$?
  grep -v 'found symbolic link in path' "$SCRATCH/stderr" >&2 || true
  return "$code"
}

# All of ddc/ci, and the two examples of the README.
collect_values() {
  mkdir -p "$SCRATCH/values"
  cp helm/ddc/ci/*-values.yaml "$SCRATCH/values"
  awk -v directory="$SCRATCH/values" '/^```yaml$/ { n++; inside = 1; next } /^```$/ { inside = 0 }
    inside { print > (directory "/README-" n "-values.yaml") }' helm/ddc/README.md
}

# lint_and_render FILE: leaves $SCRATCH/rendered/FILE.
lint_and_render() {
  local out=$SCRATCH/rendered/${1##*/} since took used
  mkdir -p "$SCRATCH/rendered"
  helm_quiet lint --strict helm/ddc "${KUBE_VERSION[@]}" -f "$1"
  since=${EPOCHREALTIME/./}
  TIMEFORMAT='%U %S'
  { time helm_quiet template ddc helm/ddc "${KUBE_VERSION[@]}" --namespace ddc -f "$1" >"$out"; } 2>"$SCRATCH/used" || {
    cat "$SCRATCH/used"
    return 1
  }
  took=$(((${EPOCHREALTIME/./} - since) / 1000))
  used=$(awk 'END { printf "%d", ($1 + $2) * 1000 }' "$SCRATCH/used")
  [[ -s $out ]]
  # Two of one link would be two senders; a scale to 0 must hold over an upgrade.
  if grep -nE '^ *replicas:|^kind: Service$' "$out"; then return 1; fi
  if ((used >= TEMPLATE_LIMIT)); then
    echo "helm template took $used ms of a processor; it may take $TEMPLATE_LIMIT"
    return 1
  fi
  echo "=: template in $took ms, $used ms of a processor"
}

package() {
  local file name directory=$SCRATCH/package
  mkdir -p "$directory/unpacked"
  helm_quiet package helm/ddc --destination "$directory"
  tar -xzf "$directory"/ddc-*.tgz -C "$directory/unpacked"
  if find "$directory/unpacked" -type l | grep .; then
    echo "the package holds symbolic links"
    return 1
  fi
  diff -r "$directory/unpacked/ddc/charts/vector/files/vrl" vector/vrl
  diff "$directory/unpacked/ddc/charts/vector/files/vector.yaml" vector/vector.yaml
  diff -r "$directory/unpacked/ddc/charts/prometheus-rules/files/parts" deploy/prometheus/rules/parts
  diff -r "$directory/unpacked/ddc/charts/dashboards/files" grafana/dashboards
  for file in "$SCRATCH"/rendered/*; do
    name=${file##*/}
    "$HELM" template ddc "$directory"/ddc-*.tgz "${KUBE_VERSION[@]}" --namespace ddc -f "$SCRATCH/values/$name" >"$directory/$name"
    diff "$file" "$directory/$name"
  done
  echo "=: $(stat -c %s "$directory"/ddc-*.tgz) bytes"
}

unit_tests() {
  local code=0
  # It writes a cache into the chart's directory of the user otherwise.
  scripts/tools.sh run helm-unittest --color=false helm/ddc >"$SCRATCH/unittest" 2>&1 || code=$?
  grep -v 'found symbolic link in path' "$SCRATCH/unittest"
  echo "=: $(sed -n 's/^Tests: *//p' "$SCRATCH/unittest")"
  return "$code"
}

# One mistake of each kind that stops an installation; the texts are checked by the unit tests.
refused() {
  local count=0 values code
  while read -r values; do
    count=$((count + 1))
    code=0
    "$HELM" template ddc helm/ddc "${KUBE_VERSION[@]}" -f helm/ddc/ci/ingress-minimal-values.yaml -f <(printf '%s\n' "$values") >/dev/null 2>&1 || code=$?
    if ((code == 0)); then
      echo "not refused: $values"
      return 1
    fi
  done <<'END'
{replicas: 2}
{side: both}
{links: []}
{hostNetwork: true}
{requireDigests: true}
{links: [{name: plant-a}]}
{image: {digest: "sha256:12"}}
{vector: {image: {name: vector}}}
{links: [{name: plant-a, id: 1, peer: 198.18.0.2, brokers: ["kafka:9092"], topics: [orders], keys: [{secret: ddc-plant-a}], replicas: 2}]}
END
  echo "=: $count mistakes"
}

checks() {
  local code=0
  "$PYTHON" helm/checks.py "$1" "$SCRATCH"/rendered/* >"$SCRATCH/checks" 2>&1 || code=$?
  cat "$SCRATCH/checks"
  echo "=: $(tail -n 1 "$SCRATCH/checks")"
  return "$code"
}

score() {
  local more=()
  # There a NetworkPolicy would hold nothing.
  if grep -q 'hostNetwork: true' "$1"; then more+=(--ignore-test pod-networkpolicy); fi
  "$KUBE_SCORE_BIN" score --output-format ci --kubernetes-version v1.29 --exit-one-on-warning "${KUBE_SCORE[@]}" "${more[@]}" "$1" >"$SCRATCH/score" || {
    grep -v '^\[OK\]\|^\[SKIPPED\]' "$SCRATCH/score"
    return 1
  }
}

main "$@"
