#!/usr/bin/env bash
# Checks the files of the pair without an engine. Part of `make test`.
#
#   check.sh            DDC_BIN: the ddc to check the proxies' files with (default: target/debug/ddc)
#                       VECTOR_BIN: a Vector for its files (default: the double of this repository)
#
# What is missing fails: the tools come from scripts/tools.sh, promtool from Debian's prometheus.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/lib.sh"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$HERE"

DDC_BIN=${DDC_BIN:-$(target_dir)/debug/ddc}
VECTOR_BIN=${VECTOR_BIN:-$ROOT_DIR/vector/double/target/debug/ddc-vector-double}
TOOLS=$ROOT_DIR/scripts/tools.sh
FULL_DIGEST=sha256:$(printf '0%.0s' {1..64})

passed=0 failed=0
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT

main() {
  [[ -x $DDC_BIN ]] || die "$EX_UNAVAILABLE" "there is no ddc at $DDC_BIN; build it, or set DDC_BIN"
  [[ -x $VECTOR_BIN ]] || die "$EX_UNAVAILABLE" "there is no Vector or double at $VECTOR_BIN; run vector/check.sh, or set VECTOR_BIN"
  have promtool || die "$EX_UNAVAILABLE" "promtool is missing; run: apt-get install prometheus"
  COMPOSE=$("$TOOLS" path docker-compose)
  settings "$SCRATCH/env"

  step "compose.yaml: the schema of the compose specification" \
    "$TOOLS" run check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
  step "compose.yaml: as compose reads it" compose config --quiet
  step "compose.yaml: without brokers, with the source side let out" own_brokers
  step "compose.yaml: networks, rights, images, secrets" python3 model.py <(compose config --format json)
  step "compose.yaml: a rule that is broken is noticed" broken_model
  step "yaml: yamllint" "$TOOLS" run yamllint --strict -d '{extends: default, rules: {line-length: disable, document-start: disable, braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}}}' .
  step "unset and empty settings are named, with what to do" unset_settings
  step "env.example: names every setting of compose.yaml, and the version of Cargo.toml" documented
  step "what generate.sh writes is as committed" generated
  step "ddc check: the four proxies' files" proxies
  step "ddc check: a wrong file is noticed" broken_proxy
  step "addresses of compose.yaml are those of the proxies' files" python3 addresses.py compose.yaml .
  step "promtool: Prometheus' file, targets and rules, as mounted" prometheus_files
  step "Vector's files with this environment" vector_files
  step "up.sh: wrong use, no engine, no image of ours" refusals

  printf '%s passed, %s failed\n' "$passed" "$failed"
  ((failed == 0))
}

# step NAME COMMAND…: its output is shown when it fails.
step() {
  local name=$1 code=0
  shift
  set +e
  (
    set -e
    "$@"
  ) >"$SCRATCH/log" 2>&1
  code=$?
  set -e
  if ((code == 0)); then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$name"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$name"
    sed 's/^/      /' "$SCRATCH/log"
  fi
}

# fails COMMAND…: `!` alone would not end a step.
fails() { if "$@"; then return 1; fi; }

# settings FILE: a .env as up.sh writes it.
settings() {
  cat env.example images.env >"$1"
  echo DDC_KEY_GROUP=65532 >>"$1"
}

compose() { env -i PATH="$PATH" HOME="$SCRATCH" "$COMPOSE" --env-file "${ENV_FILE:-$SCRATCH/env}" "$@"; }

# shellcheck disable=SC2329 # called by name, through `step`
{
  own_brokers() {
    sed 's/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=/' "$SCRATCH/env" >"$SCRATCH/own"
    echo DDC_SOURCE_INTERNAL=false >>"$SCRATCH/own"
    ENV_FILE=$SCRATCH/own compose config --format json >"$SCRATCH/own.json"
    python3 - "$SCRATCH/own.json" <<'PYTHON'
import json, sys
model = json.load(open(sys.argv[1]))
assert not any("kafka" in name or name == "topics" for name in model["services"]), sorted(model["services"])
assert not model["networks"]["source"].get("internal"), "the source side is not let out"
assert model["networks"]["one-way"]["internal"], "the link is let out"
PYTHON
  }

  # Each breaks one thing that model.py must name.
  broken_model() {
    local change
    compose config --format json >"$SCRATCH/model.json"
    for change in 'services["ingress"]["networks"]["destination"] = None' 'services["egress"]["read_only"] = False' \
      'services["prometheus"]["cap_drop"] = []' 'networks["one-way"]["internal"] = False' \
      'services["grafana"]["ports"][0]["host_ip"] = "0.0.0.0"' 'services["vector-source"]["networks"]["one-way"] = None' \
      'del services["kafka-source"]["healthcheck"]' 'services["egress"]["volumes"][0]["read_only"] = False'; do
      python3 -c "
import json
model = json.load(open('$SCRATCH/model.json'))
services, networks = model['services'], model['networks']
$change
json.dump(model, open('$SCRATCH/broken.json', 'w'))"
      fails python3 model.py "$SCRATCH/broken.json" || {
        echo "not noticed: $change"
        return 1
      }
    done
  }

  unset_settings() {
    local name said
    for name in DDC_IMAGE DDC_KEY_GROUP VECTOR_IMAGE PROMETHEUS_IMAGE ALERTMANAGER_IMAGE GRAFANA_IMAGE KAFKA_IMAGE; do
      for value in '' "$name="; do
        grep -v "^$name=" "$SCRATCH/env" >"$SCRATCH/unset"
        [[ -z $value ]] || printf '%s\n' "$value" >>"$SCRATCH/unset"
        if said=$(ENV_FILE=$SCRATCH/unset compose config --quiet 2>&1); then
          echo "$name may be missing"
          return 1
        fi
        [[ $said == *"$name"*"run ./up.sh"* ]] || {
          echo "$name: $said"
          return 1
        }
      done
    done
    # A digest in place of a tag is taken as it is.
    sed "s|^VECTOR_IMAGE=.*|VECTOR_IMAGE=registry.example.org/vector@$FULL_DIGEST|" "$SCRATCH/env" >"$SCRATCH/digest"
    said=$(ENV_FILE=$SCRATCH/digest compose config --images)
    grep -qxF "registry.example.org/vector@$FULL_DIGEST" <<<"$said"
  }

  documented() {
    local name version
    while read -r name; do
      [[ $name != DDC_KEY_GROUP ]] || continue
      grep -qE "^#?$name=" env.example images.env || {
        echo "$name of compose.yaml is not in env.example"
        return 1
      }
    done < <(grep -oE '[$][{][A-Z_]+' compose.yaml | cut -c 3- | sort -u)
    version=$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT_DIR/Cargo.toml")
    grep -qx "DDC_IMAGE=ddc:$version" env.example || {
      echo "DDC_IMAGE in env.example is not ddc:$version, the version of Cargo.toml"
      return 1
    }
  }

  generated() {
    local file
    ./generate.sh "$SCRATCH/generated"
    for file in images.env destination/prometheus.yml destination/grafana/datasources/ddc.yaml; do
      diff -u "$file" "$SCRATCH/generated/$file" || {
        echo "run: deploy/compose/single-pair/generate.sh"
        return 1
      }
    done
    # The replacements must have found what they replace.
    grep -q 'alertmanager:9093' destination/prometheus.yml
    grep -q 'prometheus:9090' destination/grafana/datasources/ddc.yaml
  }

  # Where compose mounts keys, there are none here: the files are looked at with a key elsewhere.
  proxies() {
    local file
    "$DDC_BIN" keygen >"$SCRATCH/key"
    chmod 600 "$SCRATCH/key"
    for file in source/*.toml destination/*.toml; do
      sed "s|/run/secrets/[a-z-]*\.key|$SCRATCH/key|" "$file" >"$SCRATCH/${file//\//-}"
      "$DDC_BIN" check -c "$SCRATCH/${file//\//-}"
    done
  }

  broken_proxy() {
    sed 's/^listen = .*/lisden = "198.18.2.3:7401"/' "$SCRATCH/destination-egress-plant-a.toml" >"$SCRATCH/broken.toml"
    fails "$DDC_BIN" check -c "$SCRATCH/broken.toml"
  }

  prometheus_files() {
    mkdir -p "$SCRATCH/prometheus"
    cp -rL destination/prometheus.yml destination/targets "$ROOT_DIR/deploy/prometheus/rules" "$SCRATCH/prometheus/"
    promtool check config --lint=all --lint-fatal "$SCRATCH/prometheus/prometheus.yml"
  }

  # The variables are those of the two services; listeners are given addresses that this machine has.
  vector_files() {
    local service variables
    for service in vector-source vector-destination; do
      compose config --format json >"$SCRATCH/model.json"
      mapfile -t variables < <(python3 - "$SCRATCH/model.json" "$service" <<'PYTHON'
import json, re, sys
service = json.load(open(sys.argv[1]))["services"][sys.argv[2]]
for key, value in service["environment"].items():
    print(f"{key}={re.sub(r'^198[.]18[.][0-9.]+:', '127.0.0.1:', value)}")
print(f"arguments={' '.join(service['command'])}")
PYTHON
      )
      local arguments=${variables[-1]#arguments=}
      unset 'variables[-1]'
      # The command's files, as they lie here.
      arguments=${arguments//--config /}
      read -r -a words <<<"${arguments//\/etc\/ddc\/vector/$ROOT_DIR/vector}"
      env "${variables[@]}" DDC_VECTOR_DIR="$ROOT_DIR/vector" "$VECTOR_BIN" validate --no-environment "${words[@]}" || return 1
    done
  }

  refusals() {
    local copy=$SCRATCH/tree/deploy/compose/single-pair said code=0
    mkdir -p "$copy"
    cp up.sh env.example images.env compose.yaml "$copy/"
    said=$("$copy/up.sh" --load 2>&1) || code=$?
    [[ $code == 64 && $said == *"--bundle"* ]]
    # A docker that has compose, and no engine.
    mkdir "$SCRATCH/bin"
    # shellcheck disable=SC2016 # expanded by the fake
    printf '#!/bin/sh\n[ "$1 $2" = "compose version" ] && { echo %s; exit 0; }\nexit 1\n' 2.40.3 >"$SCRATCH/bin/docker"
    chmod 755 "$SCRATCH/bin/docker"
    code=0
    said=$(PATH=$SCRATCH/bin:$PATH "$copy/up.sh" 2>&1) || code=$?
    [[ $code == 69 && $said == *"no Docker engine answers"* ]]
    sed -i 's/2\.40\.3/2.17.0/' "$SCRATCH/bin/docker"
    code=0
    said=$(PATH=$SCRATCH/bin:$PATH "$copy/up.sh" 2>&1) || code=$?
    [[ $code == 69 && $said == *"2.17.0"*"2.20.0"* ]]
    [[ ! -e $copy/secrets ]]
  }
}

main "$@"
