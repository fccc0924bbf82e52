#!/usr/bin/env bash
# A real Kubernetes API server for tests, with etcd, the controllers that make pods, and kubectl; no nodes, so pods stay
# Pending. It runs in network, mount and process namespaces of its own, on memory, and ends with whoever started it.
#
# As a command:
#   kube-apiserver.sh run [--crds] COMMAND…   starts it, runs COMMAND beside it with KUBECONFIG set, ends both
#   kube-apiserver.sh check                   proves that it is a real one: pods come, Pod Security and schemas refuse
#   kube-apiserver.sh build                   only builds what is needed, once: about twelve minutes on two cores
# As a library, with lib.sh before it:
#   trap kube_stop EXIT
#   kube_start [--crds]       in the script itself, not in a subshell; --crds: prometheus-operator's PodMonitor,
#                             ServiceMonitor and PrometheusRule (monitoring.coreos.com/v1) are known
#   kube_in COMMAND…          COMMAND where the server is reached (helm, curl …); KUBECONFIG is set: an administrator
#   kubectl ARGS…             the same release's kubectl, in there
#   kube_namespace NAME [privileged|baseline|restricted]     makes a namespace that enforces this level; default restricted
#   kube_wait SECONDS COMMAND…      until COMMAND succeeds; shows what it said last when it does not
#   kube_stop                 may be repeated
# KUBE_DIR holds the logs until kube_stop: etcd.log, kube-apiserver.log, kube-controller-manager.log.
#
# `kubectl apply --server-side --dry-run=server` refuses unknown fields; `helm upgrade --dry-run=server` does not.
# Needs root and the Debian packages etcd-server, iproute2, openssl; Go from scripts/tools.sh. Everything is built from the
# modules that scripts/kubernetes/ pins.
set -euo pipefail
if [[ -z ${EX_USAGE:-} ]]; then
  # shellcheck source=scripts/lib.sh
  source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
fi

KUBE_SCRIPT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/${BASH_SOURCE[0]##*/}
KUBE_MODULES=$ROOT_DIR/scripts/kubernetes
KUBE_PROGRAMS=(kubectl kube-apiserver kube-controller-manager)
KUBE_CONTROLLERS=deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,job-controller
KUBE_CONTROLLERS+=,namespace-controller,serviceaccount-controller,garbage-collector-controller,disruption-controller
KUBE_START_SECONDS=240
KUBE_DIR=''
KUBE_PID=''

# ---- what is built ----

# The directory of the built programs, and that of the definitions; their names follow the content of the modules.
kube_programs() { kube_cached control-plane; }
kube_crds() { kube_cached crds; }
kube_release() { sed -n 's/.*\bk8s.io\/kubernetes \(v[^ ]*\).*/\1/p' "$KUBE_MODULES/control-plane/go.mod"; }
kube_cached() { printf '%s/kubernetes/%s-%s\n' "$CACHE_DIR" "$1" "$(cat "$KUBE_MODULES/$1"/go.* | sha256sum | cut -c 1-12)"; }

kube_build() {
  kube_once "$(kube_programs)" kube_build_programs
  [[ ${1:-} != --crds ]] || kube_once "$(kube_crds)" kube_build_crds
}

# kube_once DIRECTORY COMMAND: COMMAND fills the directory that is its argument; it counts when it ended well.
kube_once() {
  local lock
  [[ ! -d $1 ]] || return 0
  mkdir -p "${1%/*}"
  exec {lock}>"$1.lock"
  flock "$lock"
  if [[ ! -d $1 ]]; then
    rm -rf "$1.part"
    mkdir "$1.part"
    "$2" "$1.part" {lock}>&- || die "$EX_UNAVAILABLE" "kubernetes: ${1##*/} could not be built (see above)"
    mv "$1.part" "$1"
  fi
  exec {lock}>&-
}

kube_build_programs() {
  local program version package=k8s.io/component-base/version flags
  version=$(kube_release)
  [[ $version =~ ^v1\.[0-9]+\.[0-9]+$ ]] || die "$EX_UNAVAILABLE" "kubernetes: $KUBE_MODULES/control-plane/go.mod names no release"
  # Without it the server calls itself v0.0.0, and no chart's kubeVersion would fit.
  flags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d . -f 2 <<<"$version")"
  for program in "${KUBE_PROGRAMS[@]}"; do
    say "kubernetes: building $program $version once (minutes) …"
    kube_go control-plane build -trimpath -ldflags "$flags" -o "$1/$program" "k8s.io/kubernetes/cmd/$program" || return
  done
}

kube_build_crds() {
  say "kubernetes: building the definitions of prometheus-operator once …"
  kube_go crds tool controller-gen crd:allowDangerousTypes=true "output:crd:dir=$1" \
    paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1 || return
  # The rest is large, and no chart here makes objects of those kinds.
  find "$1" -type f ! -name '*_podmonitors.yaml' ! -name '*_servicemonitors.yaml' ! -name '*_prometheusrules.yaml' -delete
}

# kube_go MODULE ARGS…: the go command in that module; only what go.sum names, no other toolchain.
kube_go() {
  local go
  go=$(kube_find_go) || return
  (cd "$KUBE_MODULES/$1" && PATH="${go%/*}:$PATH" GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 nice "$go" "${@:2}")
}

# The machine's go when it is recent enough, else the one that tools.sh keeps for its own Go tools.
kube_find_go() {
  local wanted version go
  wanted=$(sed -n 's/^go //p' "$KUBE_MODULES/control-plane/go.mod")
  if ! have go; then "$ROOT_DIR/scripts/tools.sh" fetch helm >&2; fi
  for go in "$(command -v go || true)" "$CACHE_DIR"/tools/go-*/bin/go; do
    [[ -x $go ]] || continue
    version=$(GOTOOLCHAIN=local "$go" env GOVERSION)
    if version_at_least "${version#go}" "$wanted"; then
      printf '%s\n' "$go"
      return 0
    fi
  done
  say "kubernetes: Go $wanted or later is missing; run: scripts/tools.sh fetch helm (it installs one)"
  return 1
}

# ---- what runs ----

kube_start() {
  local program crds=''
  case "$*" in
    '') ;;
    --crds) crds=1 ;;
    *) die "$EX_USAGE" "kubernetes: unknown option \`$*\`; known: --crds" ;;
  esac
  require_root "the API server runs in namespaces of its own"
  for program in etcd ip openssl setpriv unshare nsenter; do
    have "$program" || die "$EX_UNAVAILABLE" \
      "kubernetes: \`$program\` is missing; run: apt-get install etcd-server iproute2 openssl util-linux"
  done
  kube_build ${crds:+--crds}
  KUBE_DIR=$(mktemp -d "${TMPDIR:-/tmp}/ddc-kubernetes.XXXXXX")
  kube_write_files
  setpriv --pdeathsig KILL unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child=KILL \
    "$BASH" "$KUBE_SCRIPT" __inside "$KUBE_DIR" "$(kube_programs)" >"$KUBE_DIR/inside.log" 2>&1 </dev/null &
  KUBE_PID=$!
  export KUBECONFIG=$KUBE_DIR/kubeconfig
  kube_wait_start
  if [[ $crds ]]; then
    # Larger than what a client-side apply may note in an annotation.
    kubectl apply --server-side --filename "$(kube_crds)" >"$KUBE_DIR/crds.log"
    kubectl wait --for=condition=Established --timeout=60s --all crd >>"$KUBE_DIR/crds.log"
  fi
}

kube_write_files() {
  local token
  mkdir "$KUBE_DIR/certificates"
  openssl genrsa -out "$KUBE_DIR/accounts.key" 2048 2>/dev/null
  token=$(openssl rand -hex 16)
  (umask 077 && echo "$token,admin,admin,system:masters" >"$KUBE_DIR/tokens.csv")
  (umask 077 && cat >"$KUBE_DIR/kubeconfig") <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $KUBE_DIR/certificates/apiserver.crt}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
YAML
}

kube_wait_start() {
  local end=$((SECONDS + KUBE_START_SECONDS)) log
  # The namespace default and its account are the last to come.
  until kubectl get --raw /readyz >/dev/null 2>&1 && kubectl get serviceaccount default >/dev/null 2>&1; do
    if ! kill -0 "$KUBE_PID" 2>/dev/null || ((SECONDS >= end)); then
      for log in "$KUBE_DIR"/*.log; do
        say "kubernetes: it did not start; the end of ${log##*/}:"
        tail -n 5 "$log" >&2
      done
      kube_stop
      die "$EX_UNAVAILABLE" "kubernetes: no API server"
    fi
    sleep 0.3
  done
}

# Process 1 of the namespaces. When one of the three ends, all end.
kube_inside() {
  local dir=$1 programs=$2
  ip link set lo up
  # Data are for this run only; memory spares the disk etcd's fsyncs.
  mkdir "$dir/etcd"
  mount -t tmpfs tmpfs "$dir/etcd"
  etcd --data-dir "$dir/etcd/data" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 >"$dir/etcd.log" 2>&1 &
  # Privileged pods are allowed here so that it is Pod Security that refuses them.
  "$programs/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=127.0.0.1 --advertise-address=127.0.0.1 \
    --secure-port=6443 --cert-dir="$dir/certificates" --token-auth-file="$dir/tokens.csv" --authorization-mode=RBAC,Node \
    --service-account-key-file="$dir/accounts.key" --service-account-signing-key-file="$dir/accounts.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=198.19.0.0/16 \
    --allow-privileged=true \
    >"$dir/kube-apiserver.log" 2>&1 &
  until [[ -s $dir/certificates/apiserver.crt ]]; do sleep 0.1; done
  # It waits ten seconds for the server and then ends; a loaded machine needs longer, so it is started anew.
  until "$programs/kube-controller-manager" --kubeconfig="$dir/kubeconfig" --controllers="$KUBE_CONTROLLERS" --leader-elect=false \
    --service-account-private-key-file="$dir/accounts.key" --use-service-account-credentials=false \
    --bind-address=127.0.0.1 --cert-dir="$dir/certificates" >>"$dir/kube-controller-manager.log" 2>&1; do sleep 1; done &
  wait -n
}

kube_in() { nsenter --net="/proc/$KUBE_PID/ns/net" -- "$@"; }

kubectl() { kube_in "$(kube_programs)/kubectl" "$@"; }

kube_namespace() {
  kubectl create namespace "$1" >/dev/null
  kubectl label namespace "$1" "pod-security.kubernetes.io/enforce=${2:-restricted}" >/dev/null
  # What the controllers add; a pod that comes earlier is refused for the lack of it.
  kube_wait 30 kubectl --namespace "$1" get serviceaccount default >/dev/null
}

kube_wait() {
  local end=$((SECONDS + $1)) said
  shift
  until said=$("$@" 2>&1); do
    if ((SECONDS >= end)); then
      printf '%s\n' "$said"
      return 1
    fi
    sleep 0.3
  done
  printf '%s\n' "$said"
}

kube_stop() {
  [[ $KUBE_DIR ]] || return 0
  if [[ $KUBE_PID ]]; then
    # Nothing in there is kept, so nothing need end well.
    kill -KILL "$KUBE_PID" 2>/dev/null || true
    wait "$KUBE_PID" 2>/dev/null || true
  fi
  rm -rf --one-file-system "${KUBE_DIR:?}" || true
  KUBE_DIR='' KUBE_PID=''
  unset KUBECONFIG
}

# ---- the proof ----

kube_check() {
  local passed=0 failed=0
  kube_start --crds
  kube_namespace lab
  kube_verify "the server names its release" kube_version
  kube_verify "a deployment in a restricted namespace makes a pod" kube_makes_a_pod
  kube_verify "a privileged pod is refused there, by Pod Security" kube_refuses 'violates PodSecurity "restricted' \
    '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"lab"},"spec":{"containers":[{"name":"c","image":"i","securityContext":{"privileged":true}}]}}'
  kube_verify "an unknown field is refused, by the schema" kube_refuses 'spec.replica: field not declared' \
    '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"lab"},"spec":{"replica":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}'
  kube_verify "an unknown field of a PodMonitor is refused" kube_refuses 'spec.endpoints' \
    '{"apiVersion":"monitoring.coreos.com/v1","kind":"PodMonitor","metadata":{"name":"m","namespace":"lab"},"spec":{"selector":{},"endpoints":[]}}'
  kube_verify "a wrong PrometheusRule is refused" kube_refuses 'spec.groups\[0\].rules\[0\].expr: Required' \
    '{"apiVersion":"monitoring.coreos.com/v1","kind":"PrometheusRule","metadata":{"name":"r","namespace":"lab"},"spec":{"groups":[{"name":"g","rules":[{"alert":"A"}]}]}}'
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

kube_verify() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$name"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n%s\n' "$name" "$said"
  fi
}

kube_version() { kubectl version | grep -qF "Server Version: $(kube_release)"; }

kube_makes_a_pod() {
  kubectl --namespace lab apply --filename - <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - {name: web, image: web, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
YAML
  kube_wait 30 kube_has_pod
}

kube_has_pod() { [[ $(kubectl --namespace lab get pods --selector app=web --output name | wc -l) == 1 ]]; }

# kube_refuses REASON OBJECT
kube_refuses() {
  local said
  if said=$(kubectl apply --server-side --dry-run=server --filename - <<<"$2" 2>&1); then
    echo "it was taken: $said"
    return 1
  fi
  grep -q "$1" <<<"$said" || { echo "another reason: $said"; return 1; }
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  usage="usage: kube-apiserver.sh run [--crds] COMMAND… | check | build"
  command=${1:-}
  shift || true
  trap kube_stop EXIT
  trap 'exit 143' TERM
  trap 'exit 130' INT
  case $command in
    run)
      crds=()
      if [[ ${1:-} == --crds ]]; then
        crds=(--crds)
        shift
      fi
      (($#)) || die "$EX_USAGE" "$usage"
      kube_start "${crds[@]}"
      kube_in "$@"
      ;;
    check) kube_check ;;
    build) kube_build --crds ;;
    __inside)
      trap - EXIT
      kube_inside "$@"
      ;;
    *) die "$EX_USAGE" "$usage" ;;
  esac
fi
