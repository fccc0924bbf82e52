#!/usr/bin/env bash
# A private Docker engine for tests: Debian's dockerd in network, mount and process namespaces of its own, with its
# own data. Nothing of it is seen by, or sees, an engine of this host; nothing of it outlives the script that started
# it, not even after `kill -9`. Its networks reach no other network: images are built or loaded here, never pulled.
#
# As a command:
#   engine.sh run [OPTION…] [--] COMMAND…     starts an engine, runs COMMAND with DOCKER_HOST set and in the engine's
#                                             network namespace (published ports are on its 127.0.0.1), ends both
# As a library, with lib.sh before it:
#   trap engine_stop EXIT
#   engine_start [OPTION…]         in the script itself, not in a subshell: the engine ends with whoever started it
#   engine_docker ARGS…            docker, of this engine; `compose` (v2) and `buildx` are scripts/tools.sh's, built when
#                                  first used (give compose `--pull never`: there is no registry)
#   engine_net COMMAND…            COMMAND in the engine's network namespace (curl to a published port or a container)
#   engine_enter COMMAND…          COMMAND in all of the engine's namespaces (process ids are those of docker inspect)
#   engine_copy ARCH SOURCE NAME   the image of ARCH out of a skopeo SOURCE (oci:DIR:TAG …) into the engine as NAME
#   engine_stop                    ends containers, engine, mounts and registrations and removes the data; may be repeated
# After engine_start these are set and exported: DOCKER_HOST, DOCKER_CONFIG, DOCKER_BUILDKIT=1, so that a plain `docker`
# is this engine's too; and ENGINE_DIR, a directory that is removed by engine_stop (dockerd.log lies there).
#
# Options:
#   --cache NAME   keep images and build cache in the cache directory under NAME for the next run (one engine at a time
#                  per NAME; containers and their volumes are removed at the end); default: data that are thrown away
#   --foreign      run images of the other architecture too (arm64 on amd64, amd64 on arm64), by qemu-user
#
# Host paths may be mounted into containers, except those under /run, which is private to the engine.
# Needs root and the Debian packages docker.io, iproute2, iptables; for --foreign qemu-user-static; for engine_copy skopeo.
set -euo pipefail
if [[ -z ${EX_USAGE:-} ]]; then
  # shellcheck source=scripts/lib.sh
  source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
fi

ENGINE_SCRIPT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/${BASH_SOURCE[0]##*/}
ENGINE_DIR=''
ENGINE_PID=''
ENGINE_CACHE_LOCK=''
# Addresses for benchmarks (RFC 2544): they clash with no site's network.
ENGINE_BRIDGE=198.18.255.1/24
ENGINE_POOL=base=198.19.0.0/16,size=24
ENGINE_START_SECONDS=60
ENGINE_STOP_SECONDS=20

engine_start() {
  local cache='' foreign='' data
  while (($#)); do
    case $1 in
      --cache)
        cache=${2:?--cache needs a name}
        shift
        ;;
      --foreign) foreign=1 ;;
      *) die "$EX_USAGE" "engine: unknown option \`$1\`; known: --cache NAME, --foreign" ;;
    esac
    shift
  done
  [[ -z $ENGINE_PID ]] || die "$EX_USAGE" "engine: it already runs; call engine_stop first"
  engine_need
  engine_sweep
  ENGINE_DIR=$(mktemp -d "${TMPDIR:-/tmp}/ddc-engine.XXXXXX")
  exec {ENGINE_LOCK}>"$ENGINE_DIR/lock.new"
  flock "$ENGINE_LOCK"
  mv "$ENGINE_DIR/lock.new" "$ENGINE_DIR/lock"
  data=$ENGINE_DIR/data
  if [[ $cache ]]; then
    data=$CACHE_DIR/engine-$cache
    mkdir -p "$data"
    exec {ENGINE_CACHE_LOCK}>"$data.lock"
    flock --wait 600 "$ENGINE_CACHE_LOCK" || die "$EX_UNAVAILABLE" "engine: $data is in use by another engine for 10 minutes"
  fi
  # The namespaces end with this script: the parent's death kills unshare, unshare's death kills process 1 inside, and
  # with process 1 the kernel ends all the others and drops their mounts.
  setpriv --pdeathsig KILL unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child=KILL \
    "$BASH" "$ENGINE_SCRIPT" __inside "$ENGINE_DIR" "$data" "$foreign" >"$ENGINE_DIR/dockerd.log" 2>&1 </dev/null &
  ENGINE_PID=$!
  export ENGINE_DIR DOCKER_HOST=unix://$ENGINE_DIR/docker.sock DOCKER_CONFIG=$ENGINE_DIR/config DOCKER_BUILDKIT=1
  unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_DEFAULT_PLATFORM
  mkdir "$ENGINE_DIR/bin"
  ln -s "$ENGINE_CLIENT" "$ENGINE_DIR/bin/docker"
  export PATH=$ENGINE_DIR/bin:$PATH
  engine_plugins
  engine_share
  engine_wait
}

engine_need() {
  local program
  require_root "the engine makes namespaces and mounts"
  for program in dockerd ip iptables setpriv unshare nsenter flock; do
    have "$program" || die "$EX_UNAVAILABLE" \
      "engine: \`$program\` is missing; run: apt-get install docker.io iproute2 iptables util-linux"
  done
  # The client beside the engine; another one, earlier on the PATH, may be too new for it.
  ENGINE_CLIENT=/usr/bin/docker
  [[ -x $ENGINE_CLIENT ]] || ENGINE_CLIENT=$(command -v docker) ||
    die "$EX_UNAVAILABLE" "engine: the client \`docker\` is missing; run: apt-get install docker.io"
}

engine_wait() {
  local end=$((SECONDS + ENGINE_START_SECONDS))
  until engine_docker version >/dev/null 2>&1; do
    if ! kill -0 "$ENGINE_PID" 2>/dev/null || ((SECONDS >= end)); then
      say "engine: dockerd did not start; the end of its log:"
      tail -n 15 "$ENGINE_DIR/dockerd.log" >&2
      engine_stop
      die "$EX_UNAVAILABLE" "engine: no Docker engine"
    fi
    sleep 0.1
  done
}

# With version 1 of control groups all of an engine's containers together get as much of the processors as one process
# outside; so each gets that much. The engine itself would make the group with its first container.
engine_share() {
  local group=/sys/fs/cgroup/cpu/${ENGINE_DIR##*/}
  [[ -e ${group%/*}/cpu.shares ]] || return 0
  mkdir -p "$group"
  echo $((1024 * 12)) >"$group/cpu.shares"
}

engine_docker() { "$ENGINE_CLIENT" "$@"; }

# The pinned plug-ins: tools.sh builds one when it is first called, so who does not use it does not wait for it.
engine_plugins() {
  local tool directory=$DOCKER_CONFIG/cli-plugins
  mkdir -p "$directory"
  echo '{}' >"$DOCKER_CONFIG/config.json"
  for tool in compose:docker-compose buildx:buildx; do
    # shellcheck disable=SC2016 # expanded by the plug-in
    printf '#!/bin/sh\nprogram=$("%s" path %s) && exec "$program" "$@"\n' "$ROOT_DIR/scripts/tools.sh" "${tool#*:}" \
      >"$directory/docker-${tool%%:*}"
    chmod 755 "$directory/docker-${tool%%:*}"
  done
}

engine_net() { nsenter --net="/proc/$ENGINE_PID/ns/net" -- "$@"; }

engine_enter() { nsenter --target "$(engine_leader)" --mount --net --pid -- "$@"; }

# Process 1 of the engine's namespaces, as it is called out here.
engine_leader() {
  local leader
  read -r leader _ <"/proc/$ENGINE_PID/task/$ENGINE_PID/children"
  printf '%s\n' "$leader"
}

engine_copy() {
  have skopeo || die "$EX_UNAVAILABLE" "engine: \`skopeo\` is missing; run: apt-get install skopeo"
  skopeo --insecure-policy --override-os linux --override-arch "$1" copy --quiet \
    --dest-daemon-host "$DOCKER_HOST" "$2" "docker-daemon:$3"
}

engine_stop() {
  local end containers
  [[ $ENGINE_DIR ]] || return 0
  if [[ $ENGINE_PID ]] && kill -0 "$ENGINE_PID" 2>/dev/null; then
    if [[ -S $ENGINE_DIR/docker.sock ]] && containers=$(engine_docker ps --all --quiet 2>/dev/null); then
      # shellcheck disable=SC2086 # one word per container
      [[ -z $containers ]] || engine_docker rm --force --volumes $containers >/dev/null 2>&1 || true
    fi
    # A dockerd that ends by itself leaves cached data whole.
    kill -TERM "$(engine_leader)" 2>/dev/null || true
    end=$((SECONDS + ENGINE_STOP_SECONDS))
    while kill -0 "$ENGINE_PID" 2>/dev/null && ((SECONDS < end)); do sleep 0.05; done
    kill -KILL "$ENGINE_PID" 2>/dev/null || true
  fi
  [[ -z $ENGINE_PID ]] || wait "$ENGINE_PID" 2>/dev/null || true
  engine_forget "$ENGINE_DIR"
  exec {ENGINE_LOCK}>&-
  [[ -z $ENGINE_CACHE_LOCK ]] || exec {ENGINE_CACHE_LOCK}>&-
  ENGINE_DIR='' ENGINE_PID='' ENGINE_CACHE_LOCK=''
  unset DOCKER_HOST DOCKER_CONFIG
}

# engine_sweep: removes what engines that were killed left behind. An engine holds the lock in its directory while it lives.
engine_sweep() {
  local dir
  for dir in "${TMPDIR:-/tmp}"/ddc-engine.*; do
    if [[ -e $dir/lock ]] && flock --nonblock "$dir/lock" true; then engine_forget "$dir"; fi
  done
}

# engine_forget DIRECTORY: removes it, and what bears its name in the kernel outside the engine's namespaces: control
# groups, and the binary format.
engine_forget() {
  local name=${1##*/}
  find /sys/fs/cgroup -depth -type d -path "*/$name*" -exec rmdir {} + 2>/dev/null || true
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --mount --propagation private "$BASH" -c '
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc &&
    [[ -e /proc/sys/fs/binfmt_misc/$1 ]] && echo -1 >"/proc/sys/fs/binfmt_misc/$1"' _ "$name" 2>/dev/null || true
  rm -rf --one-file-system "${1:?}"
}

# Process 1 of the namespaces: mounts, dockerd, and the reaping of orphans. engine_start calls it.
engine_inside() {
  local dir=$1 data=$2 foreign=$3 code=0
  ip link set lo up
  mount -t tmpfs -o mode=755 tmpfs /run
  [[ -z $foreign ]] || engine_register "${dir##*/}"
  dockerd --host "unix://$dir/docker.sock" --data-root "$data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
    --cgroup-parent "/${dir##*/}" --exec-opt native.cgroupdriver=cgroupfs --oom-score-adjust 0 \
    --bip "$ENGINE_BRIDGE" --default-address-pool "$ENGINE_POOL" --shutdown-timeout 5 &
  # shellcheck disable=SC2064 # this process id
  trap "kill -TERM $!" TERM
  # A trapped signal ends the first wait; the second one waits for the end.
  wait "$!" || code=$?
  wait "$!" 2>/dev/null || true
  exit "$code"
}

# engine_register NAME: the kernel runs programs of the other architecture through qemu. The format is the host's (the
# kernel has one table for all mount namespaces), therefore it gets a name of its own and goes when the engine goes.
engine_register() {
  local machine file mounted=/proc/sys/fs/binfmt_misc
  case $(uname -m) in
    x86_64) machine=aarch64 ;;
    aarch64) machine=x86_64 ;;
    *) die "$EX_UNAVAILABLE" "engine: no other architecture is known for $(uname -m)" ;;
  esac
  file=/usr/lib/binfmt.d/qemu-$machine.conf
  [[ -r $file ]] || die "$EX_UNAVAILABLE" "engine: $file is missing; run: apt-get install qemu-user-static"
  mountpoint -q "$mounted" || mount -t binfmt_misc binfmt_misc "$mounted" ||
    die "$EX_UNAVAILABLE" "engine: this kernel has no binfmt_misc; run: modprobe binfmt_misc"
  sed "s/^:[^:]*:/:$1:/" "$file" >"$mounted/register"
}

engine_run() {
  local options=() code=0
  while (($#)); do
    case $1 in
      --cache)
        options+=("$1" "${2:?--cache needs a name}")
        shift
        ;;
      --foreign) options+=("$1") ;;
      --)
        shift
        break
        ;;
      *) break ;;
    esac
    shift
  done
  (($#)) || die "$EX_USAGE" "usage: engine.sh run [--cache NAME] [--foreign] [--] COMMAND…"
  trap engine_stop EXIT
  trap 'exit 143' TERM
  trap 'exit 130' INT
  engine_start "${options[@]}"
  engine_net "$@" || code=$?
  return "$code"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  command=${1:-}
  shift || true
  case $command in
    run) engine_run "$@" ;;
    __inside) engine_inside "$@" ;;
    *) die "$EX_USAGE" "usage: engine.sh run [--cache NAME] [--foreign] [--] COMMAND…" ;;
  esac
fi
