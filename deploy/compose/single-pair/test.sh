#!/usr/bin/env bash
# Starts the pair with a real Docker engine and compose v2, sends records, kills, looks, removes. `make test-compose`.
#
#   deploy/compose/single-pair/test.sh [--keep]     --keep: leaves the engine's images in the cache for the next run
#
# Real: the engine, compose, our image, Kafka's and Prometheus' own programs. Stand-ins (deploy/compose/stand-ins): the
# images around Kafka, Prometheus and Alertmanager, since none can be pulled here; in Vector's place the double of this
# repository. Grafana does not run: its service is checked by check.sh only.
#
# Works on a copy of the files. Needs root, `make dist`, and the packages that scripts/setup.sh --for images installs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/lib.sh"
# shellcheck source=scripts/roots.sh
source "$ROOT_DIR/scripts/roots.sh"
# shellcheck source=scripts/engine.sh
source "$ROOT_DIR/scripts/engine.sh"
cd "$ROOT_DIR"

STAND_INS=deploy/compose/stand-ins
DOUBLE=vector/double/target/debug/ddc-vector-double
VERSION=$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE=ddc:$VERSION
case $(uname -m) in
  x86_64) ARCH=amd64 ;;
  aarch64) ARCH=arm64 ;;
  *) die "$EX_UNAVAILABLE" "no image for $(uname -m)" ;;
esac
# The goal of the issue, and how long anything else may take on a loaded machine.
FIRST_RECORD_SECONDS=60
PATIENCE_SECONDS=90

passed=0 failed=0

main() {
  local keep=()
  [[ ${1:-} != --keep ]] || keep=(--cache compose)
  need
  trap finish EXIT
  trap 'exit 130' INT TERM
  engine_start "${keep[@]}"
  say "engine $(engine_docker version --format '{{.Server.Version}}'), compose $(engine_docker compose version --short)"
  # A run that was killed may have left something in a cache.
  docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker volume ls --quiet | xargs --no-run-if-empty docker volume rm --force >/dev/null
  images
  copy_files

  step "without digests nothing starts when they are required" refused_without_digests
  step "up, and the first record is across within $FIRST_RECORD_SECONDS s" first_record
  step "every service is healthy" all_healthy
  step "records cross whole: partition, key, headers, time, value" records_whole
  step "Prometheus has the figures of both sides, the rules, the Alertmanager" figures
  step "the sides reach each other over the link only; nothing but ARP comes back" separated
  step "no container has more rights than it needs" rights
  step "a killed egress comes back and goes on" killed_egress
  step "down -v leaves nothing" nothing_left
  step "from a bundle, by digest, with images that only the bundle has" from_bundle
}

finish() {
  local code=$?
  trap - EXIT
  engine_stop
  ((passed + failed > 0)) || exit "$code"
  printf '%s passed, %s failed\n' "$passed" "$failed"
  ((failed == 0 && code == 0)) || exit 1
}

# step NAME COMMAND…: its output is shown when it fails; its last line beginning with `=` always.
step() {
  local name=$1 since=$SECONDS code=0
  shift
  # In a subshell of its own with errexit, which `if` would take away.
  set +e
  (
    set -e
    "$@"
  ) >"$ENGINE_DIR/step.log" 2>&1
  code=$?
  set -e
  if ((code == 0)); then
    passed=$((passed + 1))
    printf 'ok    %s: %s s%s\n' "$name" $((SECONDS - since)) "$(sed -n 's/^= /; /p' "$ENGINE_DIR/step.log" | tail -n 1)"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s (exit code %s, %s s)\n' "$name" "$code" $((SECONDS - since))
    sed 's/^/      /' "$ENGINE_DIR/step.log"
    (cd "$PAIR" && docker compose ps --all --format 'table {{.Service}}\t{{.Status}}' 2>/dev/null | sed 's/^/      /') || true
  fi
}

need() {
  require_root "a Docker engine of its own"
  [[ -x dist/bin/ddc-$ARCH ]] || die "$EX_UNAVAILABLE" "there is no dist/bin/ddc-$ARCH; run make dist first"
  [[ -x $DOUBLE ]] || die "$EX_UNAVAILABLE" "there is no $DOUBLE; run vector/check.sh first"
  have skopeo || die "$EX_UNAVAILABLE" "skopeo is missing; run: apt-get install skopeo"
}

# --- what runs -------------------------------------------------------------------------------------------------------

images() {
  local root context=$ENGINE_DIR/context name variable reference
  root=$(scripts/hosts.sh root java)
  JAVA=stand-in-java:${root##*-}
  import_root "$root" "$JAVA"
  root=$(cached_root compose prometheus,prometheus-alertmanager,busybox-static)
  TOOLS=stand-in-tools:${root##*-}
  import_root "$root" "$TOOLS"
  mkdir -p "$context/kafka"
  cp "$STAND_INS"/{Dockerfile,kafka-run,kafka-tool} "$context/"
  cp -r "$(deploy/kafka-dev/kafka.sh fetch "$KAFKA_4_VERSION")/lib" "$context/kafka/"
  cp "$DOUBLE" "$context/vector"
  while IFS='=' read -r variable reference; do
    name=${variable%_IMAGE}
    docker build --quiet --target "${name,,}" --build-arg "JAVA=$JAVA" --build-arg "TOOLS=$TOOLS" \
      --tag "$reference" "$context" >/dev/null
  done < <(grep -v '^#' deploy/compose/single-pair/images.env)
  # Our own, as deploy/docker makes it; the static binary needs no base.
  docker build --quiet --file deploy/docker/Dockerfile --build-arg VERSION="$VERSION" --tag "$IMAGE" . >/dev/null
  say "images: $IMAGE is ours ($(docker image inspect --format '{{.Size}}' "$IMAGE" | numfmt --to=iec)B); all others are stand-ins made here"
}

# A root directory as an image, without what no program reads; once, when images are kept.
import_root() {
  ! docker image inspect "$2" >/dev/null 2>&1 || return 0
  tar -C "$1" --exclude=./var/lib/apt --exclude=./var/cache --exclude=./usr/share/doc --exclude=./usr/share/man \
    --exclude=./usr/share/locale --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . | docker import - "$2" >/dev/null
}

# What an installation needs of the repository, and nothing else.
copy_files() {
  local tree=$ENGINE_DIR/tree
  mkdir -p "$tree/scripts" "$tree/deploy"
  cp -r deploy/compose deploy/prometheus deploy/versions.toml "$tree/deploy/"
  cp -r scripts/mirror.py scripts/artefacts "$tree/scripts/"
  cp -r grafana "$tree/"
  mkdir "$tree/vector"
  cp -r vector/*.yaml vector/vrl "$tree/vector/"
  PAIR=$tree/deploy/compose/single-pair
  rm -rf "$PAIR/.env" "$PAIR/secrets"
  sed -i "s/^DDC_IMAGE=.*/DDC_IMAGE=$IMAGE/" "$PAIR/env.example"
}

compose() { (cd "$PAIR" && docker compose "$@"); }

# up ARGS…: nothing is pulled, and Grafana is not to be had.
up() { "$PAIR/up.sh" "$@" --pull never --scale grafana=0; }

# fails COMMAND…: `!` alone would not end a step.
fails() {
  if "$@"; then
    echo "this should have failed: $*"
    return 1
  fi
}

# --- steps -----------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2329 # called by name, through `step`
{
  refused_without_digests() {
    local said code=0
    said=$(DDC_REQUIRE_DIGESTS=1 up 2>&1) || code=$?
    [[ $code == 78 && $said == *"make mirror"* && $said == *"$IMAGE"* && $said == *grafana* ]] || {
      printf '%s\n' "exit code $code: $said"
      return 1
    }
    [[ -z $(docker ps --all --quiet) ]]
  }

  first_record() {
    local since=$SECONDS took
    up
    "$PAIR/try.sh" 1
    took=$((SECONDS - since))
    echo "= first record across after $took s"
    ((took < FIRST_RECORD_SECONDS))
  }

  all_healthy() {
    local states
    states=$(compose ps --format '{{.Service}} {{.Health}}' | sort)
    printf '%s\n' "$states"
    [[ $(wc -l <<<"$states") == 10 ]]
    fails grep -v ' healthy$' <<<"$states"
    [[ $(compose ps --all --format '{{.Service}} {{.ExitCode}}' topics) == 'topics 0' ]]
    echo "= $(wc -l <<<"$states") services"
  }

  # What the destination has, less the three headers of provenance, is what the source has.
  records_whole() {
    "$PAIR/try.sh" 200 >/dev/null
    # Null key, null value, repeated header: what a line of text can say.
    printf 'same:1,same:2\tNULL\tNULL\n' | compose exec -T kafka-source /opt/kafka/bin/kafka-console-producer.sh \
      --bootstrap-server kafka-source:9092 --topic orders --reader-property parse.key=true \
      --reader-property parse.headers=true --reader-property null.marker=NULL
    dump source >"$ENGINE_DIR/source.txt"
    eventually all_dumped
    grep -q 'sourceTopic:orders,sourcePartition:[0-2],sourceOffset:[0-9]*' "$ENGINE_DIR/destination.txt"
    sed -i -E 's/,?sourceTopic:orders,sourcePartition:[0-9]+,sourceOffset:[0-9]+//' "$ENGINE_DIR/destination.txt"
    diff <(sort "$ENGINE_DIR/source.txt") <(sort "$ENGINE_DIR/destination.txt")
    # In order within each partition.
    local partition
    for partition in 0 1 2; do
      diff <(grep "Partition:$partition" "$ENGINE_DIR/source.txt") <(grep "Partition:$partition" "$ENGINE_DIR/destination.txt")
    done
    echo "= $(wc -l <"$ENGINE_DIR/source.txt") records the same on both sides"
    (($(wc -l <"$ENGINE_DIR/source.txt") > 200))
  }

  all_dumped() {
    dump destination >"$ENGINE_DIR/destination.txt"
    (($(wc -l <"$ENGINE_DIR/destination.txt") >= $(wc -l <"$ENGINE_DIR/source.txt")))
  }

  dump() {
    compose exec -T "kafka-$1" /opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server "kafka-$1:9092" --topic orders \
      --from-beginning --timeout-ms 4000 --formatter-property print.key=true --formatter-property print.headers=true \
      --formatter-property print.partition=true --formatter-property print.timestamp=true 2>/dev/null || true
  }

  # query EXPRESSION: the number of series that it gives.
  query() {
    engine_net curl --silent --fail --max-time 5 --get --data-urlencode "query=$1" http://127.0.0.1:9090/api/v1/query |
      python3 -c 'import json, sys; print(len(json.load(sys.stdin)["data"]["result"]))'
  }

  figures() {
    local expression alerts
    for expression in 'ddc_egress_records_received_total{site="lab",link="plant-a",via=""} > 200' \
      'ddc_ingress_packets_sent_total{site="lab",link="plant-a",via="diode"} > 0' \
      'ddc_ingress_packets_sent_total{link="telemetry",via="diode"} > 0' 'up{job="ddc-vector"} == 1' \
      'up{job="alertmanager"} == 1' 'ddc:link_moved:timestamp{link="plant-a"}' 'ALERTS{alertname="Watchdog",alertstate="firing"}'; do
      eventually series "$expression"
    done
    engine_net curl --silent --fail http://127.0.0.1:9090/api/v1/rules |
      python3 -c 'import json, sys
groups = json.load(sys.stdin)["data"]["groups"]
bad = [r["name"] for g in groups for r in g["rules"] if r["health"] == "err"]
rules = sum(len(g["rules"]) for g in groups)
print(f"{len(groups)} groups, {rules} rules; bad: {bad}")
sys.exit(bool(bad) or len(groups) < 5)'
    eventually watchdog_at_alertmanager
    # A healthy pair wakes nobody.
    alerts=$(engine_net curl --silent --fail http://127.0.0.1:9090/api/v1/alerts |
      python3 -c 'import json, sys
print(" ".join(sorted({a["labels"]["alertname"] for a in json.load(sys.stdin)["data"]["alerts"]
                       if a["state"] == "firing" and a["labels"].get("severity") == "critical"})))')
    [[ -z $alerts ]] || {
      echo "critical alerts of a healthy pair: $alerts"
      return 1
    }
    echo "= $(query '{__name__=~"ddc_.*"}') ddc_ series, $(query '{__name__=~"ddc_.*",via="diode"}') of them through the diode"
  }

  series() { (($(query "$1") > 0)); }

  watchdog_at_alertmanager() { [[ $(engine_net curl --silent --fail http://127.0.0.1:9093/api/v2/alerts) == *Watchdog* ]]; }

  # eventually COMMAND…
  eventually() {
    local end=$((SECONDS + PATIENCE_SECONDS))
    until "$@"; do
      ((SECONDS < end)) || {
        echo "not within $PATIENCE_SECONDS s: $*"
        return 1
      }
      sleep 1
    done
  }

  # inside SERVICE HOST PORT: a TCP connection from that service's network.
  inside() {
    docker run --rm --pull never --network "container:$(compose ps --quiet "$1")" --entrypoint bash "$TOOLS" \
      -c "timeout 3 bash -c 'exec 3<>/dev/tcp/$2/$3'" 2>/dev/null
  }

  separated() {
    # What works, so that what does not work says something.
    inside egress 198.18.3.3 9598
    inside ingress 198.18.1.3 9598
    fails inside ingress 198.18.3.3 9598
    fails inside kafka-source 198.18.3.3 9598
    fails inside kafka-source 198.18.2.3 9598
    fails inside kafka-destination 198.18.1.3 9598
    fails inside vector-destination 198.18.2.2 7401
    fails inside egress 198.18.1.3 9598
    local bridge
    bridge=br-$(docker network inspect --format '{{.Id}}' ddc_one-way | cut -c 1-12)
    "$PAIR/try.sh" 20 >/dev/null &
    engine_net timeout 60 python3 "$ROOT_DIR/deploy/compose/single-pair/watch-link.py" "$bridge" 10
    wait $!
  }

  rights() {
    local id service
    for service in ingress egress telemetry-ingress telemetry-egress vector-source vector-destination prometheus alertmanager; do
      id=$(compose ps --quiet "$service")
      docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.Config.User}}' "$id" |
        grep -Ex 'true \[ALL\] \[no-new-privileges:true\] [1-9][0-9]*:[0-9]+' || {
        echo "$service: $(docker inspect --format '{{json .HostConfig}}' "$id")"
        return 1
      }
    done
    # The key is where a secret belongs: not in the image, not in the environment.
    docker inspect "$(compose ps --quiet ingress)" >"$ENGINE_DIR/inspect.json"
    fails grep -qF "$(cat "$PAIR/secrets/plant-a.key")" "$ENGINE_DIR/inspect.json"
  }

  killed_egress() {
    local id
    id=$(compose ps --quiet egress)
    # `docker kill` would count as a wish; a crash is a signal from elsewhere. The container's own control group tells
    # its process by the number that counts here.
    find /sys/fs/cgroup -path "*/${ENGINE_DIR##*/}/*$id/cgroup.procs" -exec cat {} + |
      sort -u >"$ENGINE_DIR/processes"
    xargs kill -KILL <"$ENGINE_DIR/processes"
    eventually restarted "$id"
    eventually healthy egress
    "$PAIR/try.sh" 10
    echo "= $(docker inspect --format '{{.RestartCount}}' "$id") restart"
  }

  restarted() { (($(docker inspect --format '{{.RestartCount}}' "$1") > 0)); }
  healthy() { [[ $(compose ps --format '{{.Health}}' "$1") == healthy ]]; }

  nothing_left() {
    compose down --volumes --timeout 30
    [[ -z $(docker ps --all --quiet)$(docker volume ls --quiet)$(docker network ls --quiet --filter label=com.docker.compose.project) ]]
  }

  # The stand-ins as a person would carry them: a folder of OCI layouts, make mirror's checks, the bundle, an engine without them.
  from_bundle() {
    local tree=$ENGINE_DIR/tree folder=$ENGINE_DIR/folder variable reference name only=()
    mkdir "$folder"
    while IFS='=' read -r variable reference; do
      name=${variable%_IMAGE}
      name=${name,,}-image
      skopeo --insecure-policy copy --quiet --dest-oci-accept-uncompressed-layers --src-daemon-host "$DOCKER_HOST" "docker-daemon:$reference" "oci:$folder/$name:stand-in"
      only+=(--only "$name")
      docker image rm "$reference" >/dev/null
    done < <(grep -v '^#' "$PAIR/images.env")
    "$tree/scripts/mirror.py" fetch --from "$folder" --architectures "$ARCH" "${only[@]}" --bundle "$tree/bundle" --no-tar
    rm -rf "$folder"
    sed -E "s/^DDC_IMAGE=.*/DDC_IMAGE=$(docker image inspect --format '{{.Id}}' "$IMAGE")/; s/^DDC_REQUIRE_DIGESTS=.*/DDC_REQUIRE_DIGESTS=1/" \
      "$PAIR/env.example" >"$PAIR/.env"
    up --bundle "$tree/bundle" --load
    "$PAIR/try.sh" 5
    docker compose --project-directory "$PAIR" config --images | sort -u
    compose down --volumes --timeout 30
  }
}

main "$@"
