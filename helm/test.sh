#!/usr/bin/env bash
# The chart against a real Kubernetes API server (scripts/kube-apiserver.sh): Pod Security, schemas and controllers are real,
# nodes are not, so pods stay Pending. Prints a line for each step, then the sum.
#
#   helm/test.sh            minutes; the first run builds the server (twelve minutes on two cores)
#   helm/test.sh NAME…      of ddc/ci, only NAME-values.yaml
#
# Every step with Helm 4 and with Helm 3.
#
# Needs root and what scripts/kube-apiserver.sh needs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$ROOT_DIR"
# shellcheck source=scripts/kube-apiserver.sh
source scripts/kube-apiserver.sh

PASSED=0 FAILED=0

main() {
  local engine name
  FILES=("$@")
  (($#)) || mapfile -t FILES < <(basename --suffix -values.yaml --multiple helm/ddc/ci/*-values.yaml)
  HELM_4=$(scripts/tools.sh path helm) HELM_3=$(scripts/tools.sh path helm3)
  SCRATCH=$(mktemp -d)
  trap finish EXIT
  export HELM_CONFIG_HOME=$SCRATCH/config HELM_CACHE_HOME=$SCRATCH/cache HELM_DATA_HOME=$SCRATCH/data
  "$HELM_4" package helm/ddc --destination "$SCRATCH" >"$SCRATCH/package.log" 2>&1
  CHART=$(find "$SCRATCH" -name 'ddc-*.tgz')
  kube_start --crds
  say "helm/test.sh: $(kubectl version | sed -n 's/^Server Version: /Kubernetes /p'), Helm $("$HELM_4" version --short) and $("$HELM_3" version --short)"
  kubectl create priorityclass diode --value=1000 >/dev/null

  step "a field that Kubernetes does not know is refused" unknown_field
  step "hostNetwork in a restricted namespace makes no pod" refused_by_pod_security
  step "hostNetwork: the scheduler knows the ports of both links" host_ports
  for engine in 4 3; do
    declare -n HELM=HELM_$engine
    step "Helm $engine: an upgrade that changes nothing leaves the pod; a link that was scaled to 0 stays so" unchanged "$engine"
    step "Helm $engine: the claim outlives the release and is taken up again" claim_kept "$engine"
    step "Helm $engine: wrong values change nothing" nothing_changed "$engine"
    for name in "${FILES[@]}"; do
      step "Helm $engine, $name: accepted, installed, pods made, upgraded, uninstalled" life "$engine" "helm/ddc/ci/$name-values.yaml"
    done
  done
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

finish() {
  kube_stop
  rm -rf "$SCRATCH"
}

step() {
  local name=$1 code
  shift
  # Not as a condition: that would switch off `set -e` in it. The server is not the subshell's to stop.
  set +e
  (
    trap - EXIT
    set -e
    "$@"
  ) >"$SCRATCH/output" 2>&1
  code=$?
  set -e
  if ((code == 0)); then
    PASSED=$((PASSED + 1))
    printf 'ok    %s\n' "$name"
  else
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$name"
    sed 's/^/      /' "$SCRATCH/output"
  fi
}

helm() { kube_in "$HELM" --namespace "$NAMESPACE" "$@"; }
kube() { kubectl --namespace "$NAMESPACE" "$@"; }

# namespace NAME [LEVEL]: with what ci/several-links-values.yaml expects to find.
namespace() {
  NAMESPACE=$1
  kube_namespace "$@"
  kube create serviceaccount diode >/dev/null
}

# links FILE: the names of its links.
links() { sed -n 's/^  - name: \([a-z0-9-]*\)$/\1/p' "$1"; }

# No `head` and no `grep -q` behind kubectl: what it still writes then would end it by a signal, and the step.

# pods: one line a pod, its name and link. Without a node a pod is gone as soon as it is deleted.
pods() { kube get pods --output jsonpath='{range .items[*]}{.metadata.name} {.metadata.labels.link}{"\n"}{end}'; }

# pods_are LINK…: one pod each, and no others.
pods_are() { [[ $(pods | cut -d ' ' -f 2 | sort | xargs) == "$*" ]]; }
no_pods() { [[ -z $(pods) ]]; }

pod_is_new() {
  local now
  now=$(pods)
  [[ $now && $now != *"$1"* ]]
}

life() {
  local engine=$1 file=$2 level=restricted wanted first
  wanted=$(links "$file" | sort | xargs)
  if grep -q '^hostNetwork: true' "$file"; then level=privileged; fi
  namespace "$(basename "$file" -values.yaml)-$engine" "$level"
  kube_in "$HELM" template ddc "$CHART" --namespace "$NAMESPACE" --kube-version 1.29 -f "$file" |
    kube apply --server-side --dry-run=server --validate=strict --filename - >"$SCRATCH/applied"
  if grep -i warning "$SCRATCH/applied"; then return 1; fi
  helm install ddc "$CHART" -f "$file" >"$SCRATCH/notes"
  # shellcheck disable=SC2086 # words on purpose
  kube_wait 60 pods_are $wanted
  if [[ $wanted ]]; then
    grep -q '^2\. See each link come up' "$SCRATCH/notes"
    first=$(pods)
    first=${first%% *}
    helm upgrade ddc "$CHART" -f "$file" --set site=south >/dev/null
    kube_wait 60 pod_is_new "$first"
    # shellcheck disable=SC2086
    kube_wait 60 pods_are $wanted
    kube get configmap --selector "link=${wanted%% *}" --output yaml | grep 'site = "south"' >/dev/null
  fi
  if grep -q 'podMonitor: *{*enabled: true\|^podMonitor:$' "$file"; then [[ $(kube get podmonitor --output name) ]]; fi
  if grep -q 'prometheusRules' "$file"; then [[ $(kube get prometheusrule --output name | wc -l) -ge 6 ]]; fi
  helm uninstall ddc >/dev/null
  kube_wait 60 no_pods
  left=$(kube get deployment,configmap,networkpolicy,podmonitor,prometheusrule,secret --selector app.kubernetes.io/name=ddc --output name)
  [[ -z $left ]] || {
    echo "left behind: $left"
    return 1
  }
}

unchanged() {
  local file=helm/ddc/ci/egress-minimal-values.yaml before
  namespace "unchanged-$1"
  helm install ddc "$CHART" -f "$file" >/dev/null
  kube_wait 60 pods_are plant-a
  before=$(pods)
  helm upgrade ddc "$CHART" -f "$file" >/dev/null
  kube rollout history deployment/ddc-plant-a | grep -c '^[0-9]' | grep -x 1 >/dev/null
  [[ $(pods) == "$before" ]]
  kube scale deployment/ddc-plant-a --replicas=0
  kube_wait 60 no_pods
  helm upgrade ddc "$CHART" -f "$file" --set site=south >/dev/null
  [[ $(kube get deployment ddc-plant-a --output jsonpath='{.spec.replicas}') == 0 ]]
  no_pods
}

claim_kept() {
  local file=helm/ddc/ci/egress-minimal-values.yaml before
  namespace "claim-$1"
  helm install ddc "$CHART" -f "$file" >/dev/null
  before=$(kube get pvc ddc-plant-a --output jsonpath='{.metadata.uid}')
  helm uninstall ddc
  [[ $(kube get pvc ddc-plant-a --output jsonpath='{.metadata.uid}') == "$before" ]]
  helm install ddc "$CHART" -f "$file" >/dev/null
  [[ $(kube get pvc ddc-plant-a --output jsonpath='{.metadata.uid}') == "$before" ]]
}

nothing_changed() {
  local file=helm/ddc/ci/ingress-minimal-values.yaml said before after
  namespace "wrong-$1"
  helm install ddc "$CHART" -f "$file" >/dev/null
  before=$(versions)
  if said=$(helm upgrade ddc "$CHART" -f "$file" --set hostNetwork=true 2>&1); then return 1; fi
  echo "$said"
  grep -q "acceptPrivilegedNamespace: must be true with hostNetwork.*kubectl label namespace wrong-$1 " <<<"$said"
  after=$(versions)
  echo "$before / $after"
  [[ $before && $after == "$before" ]]
}

# What rises with every change of what the chart made; a Deployment's status is not its own.
versions() {
  kube get deployment ddc-plant-a --output jsonpath='{.metadata.generation} '
  kube get configmap ddc-plant-a ddc-vector --output jsonpath='{.items[*].metadata.resourceVersion}'
}

unknown_field() {
  local said
  declare -n HELM=HELM_4
  namespace unknown-field
  if said=$("$HELM" template ddc "$CHART" -f helm/ddc/ci/ingress-minimal-values.yaml | sed 's/^  revisionHistoryLimit:/  revisionHistoryLimits:/' |
    kube apply --server-side --dry-run=server --filename - 2>&1); then
    return 1
  fi
  grep -q 'revisionHistoryLimits' <<<"$said"
}

refused_by_pod_security() {
  declare -n HELM=HELM_4
  namespace host-network-refused restricted
  helm install ddc "$CHART" -f helm/ddc/ci/host-network-values.yaml >/dev/null
  kube_wait 60 violation
  no_pods
}

violation() {
  local said
  said=$(kube get deployment ddc-plant-a --output jsonpath='{.status.conditions[?(@.type=="ReplicaFailure")].message}')
  echo "$said"
  [[ $said == *'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'* ]]
}

# With hostNetwork the API server writes each containerPort as hostPort, by which the scheduler keeps pods apart.
host_ports() {
  declare -n HELM=HELM_4
  namespace host-ports privileged
  helm install ddc "$CHART" -f helm/ddc/ci/host-network-values.yaml >/dev/null
  kube_wait 60 pods_are plant-a plant-b
  [[ $(kube get pods --output jsonpath='{.items[*].spec.initContainers[*].ports[*].hostPort}' | xargs -n 1 | sort | xargs) == "9598 9599" ]]
}

main "$@"
