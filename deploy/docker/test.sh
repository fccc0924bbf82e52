#!/usr/bin/env bash
# Builds the image for both architectures with two builders (buildah, and Docker's own), looks into it, and runs it by a
# real engine, the other architecture under qemu; `make test-images`, after `make dist`. About four minutes.
#
# What it proves: docker.io of Debian 12 runs the image hardened (read-only, no capability, no new privilege, few
# processes); there is no shell; a pair of containers carries datagrams over a network and becomes healthy; a stop drains,
# a death is followed by a restart, a wrong configuration ends with 78. Records through Kafka are
# deploy/compose/single-pair/test.sh's business; other page sizes are scripts/test-arm64.sh's.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
# shellcheck source=scripts/engine.sh
source "$ROOT_DIR/scripts/engine.sh"

DOCKER_DIR=$ROOT_DIR/deploy/docker
ARCHS=(amd64 arm64)
# What everything runs with: the flags that README.md names.
HARDENED=(--read-only --cap-drop ALL --security-opt no-new-privileges --user 65532:65532 --pids-limit 64
  --tmpfs /tmp:mode=1777)
LIMIT_BYTES=30000000
# The pair's network: .1 is this side of it, .2 the ingress, .3 the egress.
NET=198.18.7
PASSED=0
FAILED=0

main() {
  (($# == 0)) || die "$EX_USAGE" "usage: test.sh"
  local arch program file
  for program in buildah skopeo python3; do
    have "$program" || die "$EX_UNAVAILABLE" "\`$program\` is missing; run: apt-get install buildah skopeo python3"
  done
  for file in dist/bin/ddc-amd64 dist/bin/ddc-arm64 dist/THIRD-PARTY.txt; do
    [[ -s $ROOT_DIR/$file ]] || die "$EX_UNAVAILABLE" "$file is missing; run make dist first"
  done
  cd "$ROOT_DIR"
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/ddc-images.XXXXXX")
  trap 'engine_stop; rm -rf --one-file-system "$WORK"' EXIT
  trap 'exit 143' TERM
  trap 'exit 130' INT
  engine_start --foreign
  mapfile -t arguments < <("$DOCKER_DIR/settings.sh" --arguments 2>/dev/null)
  settings=()
  for program in "${arguments[@]}"; do [[ $program == *' BASE='* ]] || settings+=(--build-arg "${program#* }"); done

  bases
  index
  for arch in "${ARCHS[@]}"; do
    image "$arch"
    inside "$arch"
    alone "$arch"
    pair "$arch"
  done
  wrong_configuration
  sizes
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

# check NAME COMMAND…: counts; what the command said is shown when it failed.
check() {
  local name=$1 since=$SECONDS
  shift
  if "$@" >"$WORK/output" 2>&1; then
    PASSED=$((PASSED + 1))
    printf 'ok    %s (%d s)\n' "$name" $((SECONDS - since))
  else
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$name"
    tail -n 30 "$WORK/output" | sed 's/^/      /'
  fi
}

# is WANTED FOUND
is() { [[ $1 == "$2" ]] || { echo "wanted: $1"; echo "found:  $2"; return 1; }; }

# within SECONDS COMMAND…: until it succeeds; shows what it said last.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >"$WORK/attempt" 2>&1; do
    if ((SECONDS >= end)); then
      cat "$WORK/attempt"
      return 1
    fi
    sleep 0.2
  done
}

# Its mounts end with each call; its images lie in the work directory.
private_buildah() {
  unshare --mount --propagation private buildah --root "$WORK/buildah" --runroot "$WORK/buildah-run" "$@"
}

# ---- building ----

bases() {
  local arch
  mkdir "$WORK/base"
  for arch in "${ARCHS[@]}"; do
    check "base.sh makes a base for $arch" "$DOCKER_DIR/base.sh" "$arch" "$WORK/base/base-$arch.tar"
    check "docker build: base for $arch" engine_docker build --quiet --platform "linux/$arch" --tag "ddc-base:$arch" \
      --file "$DOCKER_DIR/base.Dockerfile" "$WORK/base"
    check "docker build: image for $arch" engine_docker build --quiet --platform "linux/$arch" --tag "ddc:$arch" \
      "${settings[@]}" --build-arg "BASE=ddc-base:$arch" --file "$DOCKER_DIR/Dockerfile" .
    check "docker buildx bake: image for $arch" bake "$arch"
  done
}

# bake ARCH: docker-bake.hcl in earnest, as far as the engine's own builder goes: one architecture, into the engine.
bake() {
  local variables
  mapfile -t variables < <(BASE=ddc-base:$1 "$DOCKER_DIR/settings.sh")
  env "${variables[@]}" IMAGE=baked docker buildx bake --file "$DOCKER_DIR/docker-bake.hcl" \
    --set "*.platform=linux/$1" --set '*.output=type=docker' archive
  is "$1" "$(engine_docker image inspect --format '{{.Architecture}}' "baked:$(version)")"
}

version() { "$DOCKER_DIR/settings.sh" 2>/dev/null | sed -n 's/^VERSION=//p'; }

# One index for both architectures, as README.md shows it for who has no buildx.
index() {
  local platforms=linux/amd64,linux/arm64
  check "buildah: bases" private_buildah bud --quiet --isolation chroot --platform "$platforms" --manifest ddc-base \
    --identity-label=false --file "$DOCKER_DIR/base.Dockerfile" "$WORK/base"
  check "buildah: images" private_buildah bud --quiet --isolation chroot --format docker --platform "$platforms" \
    --manifest ddc --identity-label=false "${settings[@]}" --build-arg BASE=localhost/ddc-base \
    --file "$DOCKER_DIR/Dockerfile" .
  check "buildah: index to an OCI layout" private_buildah manifest push --quiet --all ddc "oci:$WORK/layout:ddc"
  check "buildah: index as a registry with HEALTHCHECK takes it" \
    private_buildah manifest push --quiet --all --format v2s2 ddc "dir:$WORK/index"
  check "skopeo: the OCI index names both platforms" index_names "oci:$WORK/layout:ddc"
  check "skopeo: the Docker index names both platforms" index_names "dir:$WORK/index"
  for arch in "${ARCHS[@]}"; do
    check "the index's image for $arch into the engine" engine_copy "$arch" "dir:$WORK/index" "ddc:index-$arch"
    check "both builders agree on the image for $arch" builders_agree "$arch"
  done
}

index_names() {
  is 'amd64/linux arm64/linux' "$(skopeo inspect --raw "$1" | python3 -c '
import json, sys
print(*sorted("{architecture}/{os}".format(**m["platform"]) for m in json.load(sys.stdin)["manifests"]))')"
}

# What is run, and the files.
builders_agree() {
  local name format='{{json .Config.User}} {{json .Config.Entrypoint}} {{json .Config.Healthcheck}} {{json .Config.Labels}} {{json .Config.Volumes}} {{.Config.StopSignal}} {{.Config.WorkingDir}} {{.Architecture}}'
  is "$(engine_docker image inspect --format "$format" "ddc:$1")" \
    "$(engine_docker image inspect --format "$format" "ddc:index-$1")" || return 1
  for name in "$1" "index-$1"; do files "$1" "ddc:$name" >"$WORK/files-$name"; done
  diff "$WORK/files-$1" "$WORK/files-index-$1"
}

# files ARCH IMAGE: mode, owner and path of each, without what the engine itself lays over.
files() {
  local container
  container=$(engine_docker create --platform "linux/$1" "$2")
  engine_docker export "$container" | tar --list --verbose --numeric-owner |
    awk '{ print $1, $2, $6, $7, $8 }' | grep -vE ' (\.dockerenv|dev/|proc/|sys/|etc/(hosts|hostname|resolv.conf|mtab))' | sort -k 3
  engine_docker rm "$container" >/dev/null
}

# ---- looking ----

image() {
  local arch=$1 field wanted
  while IFS='|' read -r field wanted; do
    check "$arch: $field is $wanted" is "$wanted" "$(engine_docker image inspect --format "{{$field}}" "ddc:$arch")"
  done <<LIST
.Architecture|$arch
.Config.User|65532:65532
.Config.StopSignal|SIGTERM
json .Config.Entrypoint|["/usr/bin/ddc"]
json .Config.Healthcheck.Test|["CMD","/usr/bin/ddc","ready","-c","/etc/ddc/ddc.toml"]
json .Config.Volumes|{"/var/lib/ddc":{}}
index .Config.Labels "org.opencontainers.image.version"|$(version)
index .Config.Labels "org.opencontainers.image.licenses"|Apache-2.0
index .Config.Labels "org.opencontainers.image.revision"|$(git rev-parse HEAD)
index .Config.Labels "org.opencontainers.image.created"|$(date -u -d "@$(git log -1 --format=%ct)" +%Y-%m-%dT%H:%M:%SZ)
LIST
}

inside() {
  local arch=$1
  files "$arch" "ddc:$arch" >"$WORK/inside"
  check "$arch: the only program is /usr/bin/ddc" is '-rwxr-xr-x 0/0 usr/bin/ddc' "$(programs)"
  check "$arch: nothing bears the name of a shell or a package manager" no_tools
  check "$arch: the state belongs to 65532, the configuration to root" owners
  check "$arch: its licence is in it" grep -q ' usr/share/doc/ddc/LICENSE' "$WORK/inside"
  check "$arch: those of everything that is linked in, too" grep -q ' usr/share/doc/ddc/THIRD-PARTY.txt' "$WORK/inside"
  local program
  for program in sh /bin/sh bash busybox apt dpkg; do
    check "$arch: exec $program fails: there is none" exec_fails "$arch" "$program"
  done
}

# Regular files that anyone may execute.
programs() { awk '$1 ~ /^-/ && $1 ~ /x|s|t/ { print $1, $2, $3 }' "$WORK/inside"; }

no_tools() { ! grep -E '(^|/| )(sh|bash|dash|busybox|apt|apt-get|dpkg|rpm|apk|dnf|perl|python[0-9.]*)$' <(awk '{ print $3 }' "$WORK/inside"); }

owners() {
  is 65532/65532 "$(awk '$3 == "var/lib/ddc/" { print $2 }' "$WORK/inside")" || return 1
  is 0/0 "$(awk '$3 == "etc/ddc/" { print $2 }' "$WORK/inside")"
}

exec_fails() {
  local code=0
  engine_docker run --rm --platform "linux/$1" --entrypoint "$2" "ddc:$1" -c true || code=$?
  is 127 "$code"
}

# ---- running ----

alone() {
  local arch=$1
  check "$arch: ddc version, hardened" version_names "$arch"
  check "$arch: ddc demo, hardened, without a network" engine_docker run --rm --platform "linux/$arch" "${HARDENED[@]}" \
    --network none "ddc:$arch" demo --records 2000
}

version_names() {
  local said
  said=$(engine_docker run --rm --platform "linux/$1" "${HARDENED[@]}" --network none "ddc:$1" version)
  case $1 in
    amd64) grep -q 'x86_64-linux' <<<"$said" ;;
    arm64) grep -q 'aarch64-linux' <<<"$said" ;;
  esac
}

# pair ARCH: two containers and a network between them: a datagram goes in at one end and comes out at the other.
pair() {
  local arch=$1 site=$WORK/pair-$1 network=one-way-$1
  mkdir -p "$site"
  engine_docker network create --subnet "$NET.0/24" "$network" >/dev/null
  engine_docker run --rm --platform "linux/$arch" "${HARDENED[@]}" --network none "ddc:$arch" keygen >"$site/link.key" 2>/dev/null
  secrets "$site"
  configure "$site"
  mounts egress
  check "$arch: ddc check takes the egress's configuration" engine_docker run --rm --platform "linux/$arch" \
    "${HARDENED[@]}" "${MOUNTS[@]}" "ddc:$arch" check -c /etc/ddc/ddc.toml
  start egress "$NET.3" && start ingress "$NET.2"
  check "$arch: the egress becomes healthy by the image's own check" within 120 healthy egress
  check "$arch: the ingress becomes healthy" within 120 healthy ingress
  check "$arch: a datagram crosses" within 120 crosses "first-$arch"
  check "$arch: without an answer ready says 69" not_ready "$arch"
  check "$arch: killed, it is started again" killed ingress
  check "$arch: healthy after it" within 120 healthy ingress
  check "$arch: a datagram crosses after it" within 120 crosses "second-$arch"
  check "$arch: a stop drains the ingress and ends with 0" stops ingress
  check "$arch: a stop drains the egress and ends with 0" stops egress
  engine_docker rm --force --volumes "ingress-$arch" "egress-$arch" >/dev/null
  engine_docker network rm "$network" >/dev/null
}

# secrets SITE: the key as compose hands it out, a file; and as Kubernetes does, links in a directory. Both of the user's
# group, and closed to others.
secrets() {
  mkdir -p "$1/secrets/..2026"
  cp "$1/link.key" "$1/secrets/..2026/"
  ln -sfn ..2026 "$1/secrets/..data"
  ln -sf ..data/link.key "$1/secrets/link.key"
  chown -R 0:65532 "$1/link.key" "$1/secrets/..2026"
  chmod 0440 "$1/link.key" "$1/secrets/..2026/link.key"
}

# configure SITE: files for both sides.
configure() {
  local site=$1
  cat >"$site/common" <<TOML
[link]
name = "plant-a"
id = 1
state_dir = "/var/lib/ddc"
TOML
  cat >"$site/ingress.toml" <<TOML
$(cat "$site/common")
target = "$NET.3:7401"
rate = "100Mbit/s"
[[link.keys]]
id = 1
file = "/run/secrets/link.key"
[source.udp.streams]
events = "0.0.0.0:9000"
TOML
  cat >"$site/egress.toml" <<TOML
$(cat "$site/common")
listen = "0.0.0.0:7401"
[[link.keys]]
id = 1
file = "/run/secrets/link.key"
[sink.udp.streams]
events = "$NET.1:9001"
TOML
  chmod 644 "$site"/*.toml
}

# mounts SIDE: its configuration and the link's key, the ingress's as in Kubernetes, the egress's as in compose; in MOUNTS.
mounts() {
  MOUNTS=(--mount "type=bind,source=$site/$1.toml,target=/etc/ddc/ddc.toml,readonly")
  case $1 in
    ingress) MOUNTS+=(--mount "type=bind,source=$site/secrets,target=/run/secrets,readonly") ;;
    egress) MOUNTS+=(--mount "type=bind,source=$site/link.key,target=/run/secrets/link.key,readonly") ;;
  esac
}

# start SIDE ADDRESS: of the pair's architecture, with the image's own health check, only more often.
start() {
  mounts "$1"
  engine_docker run --detach --name "$1-$arch" --platform "linux/$arch" "${HARDENED[@]}" --network "$network" --ip "$2" \
    --restart on-failure "${MOUNTS[@]}" --health-interval 2s "ddc:$arch" "$1" -c /etc/ddc/ddc.toml >/dev/null
}

healthy() { is healthy "$(engine_docker inspect --format '{{.State.Health.Status}}' "$1-$arch")" || logs "$1"; }

logs() {
  engine_docker logs --tail 8 "$1-$arch"
  return 1
}

# crosses WORD: sent to the ingress, it arrives where the egress sends to.
crosses() {
  engine_net python3 - "$1" "$NET.2" "$NET.1" <<'PYTHON'
import socket, sys

word, ingress, here = sys.argv[1].encode(), *sys.argv[2:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
    back.bind((here, 9001))
    back.settimeout(3)
    out.sendto(word, (ingress, 9000))
    try:
        while back.recv(9000) != word:
            pass
    except TimeoutError:
        sys.exit("nothing came")
PYTHON
}

not_ready() {
  local code=0
  engine_docker exec "egress-$1" /usr/bin/ddc ready --admin 127.0.0.1:1 || code=$?
  is 69 "$code"
}

# Its process dies as in a crash: `docker kill` would count as a wish, which no restart follows.
killed() {
  local pid
  pid=$(engine_docker inspect --format '{{.State.Pid}}' "$1-$arch")
  engine_enter kill -KILL "$pid"
  within 120 restarted "$1" "$pid"
}

restarted() {
  is 1 "$(engine_docker inspect --format '{{.RestartCount}}' "$1-$arch")" &&
    is true "$(engine_docker inspect --format '{{.State.Running}}' "$1-$arch")" &&
    [[ $(engine_docker inspect --format '{{.State.Pid}}' "$1-$arch") != "$2" ]]
}

stops() {
  engine_docker stop --time 30 "$1-$arch"
  is 0 "$(engine_docker inspect --format '{{.State.ExitCode}}' "$1-$arch")" || logs "$1"
}

wrong_configuration() {
  local name wanted
  while IFS='|' read -r name wanted; do
    check "wrong configuration, $name: ends with 78 and says $wanted" ends_78 "$name" "$wanted"
  done <<'LIST'
unknown key|did you mean `rate`
no file|/etc/ddc/ddc.toml
key for all|0444
LIST
}

ends_78() {
  local code=0 said site=$WORK/wrong
  mkdir -p "$site"
  cp "$WORK"/pair-amd64/{ingress.toml,link.key} "$site/"
  secrets "$site"
  mounts ingress
  case $1 in
    'unknown key') sed -i 's/^rate = /rade = /' "$site/ingress.toml" ;;
    'no file') MOUNTS=() ;;
    'key for all') chmod 0444 "$site/secrets/..2026/link.key" ;;
  esac
  said=$(engine_docker run --rm "${HARDENED[@]}" "${MOUNTS[@]}" ddc:amd64 ingress -c /etc/ddc/ddc.toml 2>&1) || code=$?
  echo "$said"
  is 78 "$code" && grep -qF "$2" <<<"$said"
}

# ---- sizes ----

# What the registry stores (gzip) and what lies on disk, without the base.
sizes() {
  local arch pull base whole
  printf '\n%-8s %14s %16s %16s\n' image 'base on disk' 'ours on disk' 'ours to pull'
  for arch in "${ARCHS[@]}"; do
    skopeo --override-arch "$arch" copy --quiet --dest-compress "dir:$WORK/index" "dir:$WORK/pull-$arch"
    pull=$(python3 -c '
import json, sys
print(sum(layer["size"] for layer in json.load(sys.stdin)["layers"][1:]))' <"$WORK/pull-$arch/manifest.json")
    base=$(engine_docker image inspect --format '{{.Size}}' "ddc-base:$arch")
    whole=$(engine_docker image inspect --format '{{.Size}}' "ddc:$arch")
    printf '%-8s %14s %16s %16s\n' "$arch" "$base" "$((whole - base))" "$pull"
    check "$arch: less than $LIMIT_BYTES bytes without the base" test "$((whole - base))" -lt "$LIMIT_BYTES"
  done
}

main "$@"
