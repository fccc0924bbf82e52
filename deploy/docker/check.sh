#!/usr/bin/env bash
# Checks the image's sources without an engine, in seconds; part of `make test`. Last line: N passed, M failed.
#
#   deploy/docker/check.sh
#
# hadolint; docker-bake.hcl as buildx understands it; that Dockerfile, bake file, settings.sh, .dockerignore and
# versions.toml agree with each other; that nothing floats.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cd "$ROOT_DIR"

DOCKERFILE=deploy/docker/Dockerfile
PASSED=0
FAILED=0

main() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/ddc-images-check.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  local file
  for file in "$DOCKERFILE" deploy/docker/base.Dockerfile; do
    check "hadolint: $file" scripts/tools.sh run hadolint "$file"
  done
  deploy/docker/settings.sh >"$WORK/settings" 2>/dev/null
  check "settings.sh knows the version" grep -qxE 'VERSION=[0-9]+\.[0-9]+\.[0-9]+.*' "$WORK/settings"
  check "buildx bake --print" bake
  check "bake: both platforms, a version as tag, every ARG and no other" bake_agrees
  check "the labels that OCI names" labels
  check "every COPY's source passes .dockerignore, and nothing else does" ignored
  check "nothing is called latest" nothing_latest
  check "no address of a registry in the sources" no_registry
  check "the base is versions.toml's; by digest with a lock" locked
  check "the decision is written down" test -s docs/decisions/0012-image.md
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

check() {
  local name=$1
  shift
  if "$@" >"$WORK/output" 2>&1; then
    PASSED=$((PASSED + 1))
    printf 'ok    %s\n' "$name"
  else
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$name"
    tail -n 20 "$WORK/output" | sed 's/^/      /'
  fi
}

bake() {
  local variables
  mapfile -t variables <"$WORK/settings"
  # DOCKER_CONFIG: what the caller's own builders are does not matter, and nothing is asked of them.
  env "${variables[@]}" DOCKER_CONFIG="$WORK" scripts/tools.sh run buildx bake \
    --file deploy/docker/docker-bake.hcl --print archive push >"$WORK/bake.json"
}

bake_agrees() {
  python3 - "$WORK/bake.json" "$DOCKERFILE" "$WORK/settings" <<'PYTHON'
import json, re, sys

bake, dockerfile, settings = (open(name).read() for name in sys.argv[1:])
# BuildKit itself fills TARGETARCH and reads SOURCE_DATE_EPOCH.
declared = set(re.findall(r"^ARG (\w+)", dockerfile, re.M)) - {"TARGETARCH"} | {"SOURCE_DATE_EPOCH"}
assert declared == {line.partition("=")[0] for line in settings.splitlines()}, "settings.sh prints other names"
targets = json.loads(bake)["target"]
assert set(targets) == {"archive", "push"}, targets
for name, target in targets.items():
    assert set(target["args"]) == declared, f"{name}: args {sorted(target['args'])}, Dockerfile {sorted(declared)}"
    assert all(value for key, value in target["args"].items() if key != "SOURCE"), target["args"]
    assert target["platforms"] == ["linux/amd64", "linux/arm64"], target["platforms"]
    assert target["tags"] == ["ddc:" + target["args"]["VERSION"]], target["tags"]
    assert target["dockerfile"] == "deploy/docker/Dockerfile", target["dockerfile"]
PYTHON
}

labels() {
  local label
  for label in title description licenses version revision created source; do
    grep -q "org\.opencontainers\.image\.$label=" "$DOCKERFILE" || { echo "missing: $label"; return 1; }
  done
  for label in VERSION REVISION CREATED SOURCE; do
    grep -q "=\"\${$label}\"" "$DOCKERFILE" || { echo "unused: $label"; return 1; }
  done
}

# The allow list and the Dockerfile name the same files.
# shellcheck disable=SC2016 # a name in the Dockerfile
ignored() {
  diff <(sed -n 's/^COPY --chmod=[0-9]* \([^ ]*\) .*/\1/p' "$DOCKERFILE" |
    sed 'h; s/${TARGETARCH}/amd64/; p; g; s/${TARGETARCH}/arm64/' | sort -u) <(sed -n 's/^!//p' .dockerignore | sort)
  grep -qx '\*' .dockerignore
}

nothing_latest() { ! grep -nE ':latest|latest"' "$DOCKERFILE" deploy/docker/*.hcl deploy/docker/base.Dockerfile deploy/docker/README.md; }

# They stand in deploy/versions.toml only.
no_registry() { ! grep -nE '(gcr|ghcr|quay|docker)\.io/' "$DOCKERFILE" deploy/docker/*.{hcl,sh,md} | grep -v 'check\.sh'; }

# locked: in a copy of what settings.sh reads.
locked() {
  local tree=$WORK/tree digest
  digest=sha256:$(printf '%064d' 7)
  mkdir -p "$tree/scripts" "$tree/deploy/docker"
  cp scripts/lib.sh "$tree/scripts/"
  cp deploy/versions.toml "$tree/deploy/"
  cp deploy/docker/settings.sh "$tree/deploy/docker/"
  cp Cargo.toml "$tree/"
  grep -qxF "reference = \"$("$tree/deploy/docker/settings.sh" | sed -n 's/^BASE=//p')\"" deploy/versions.toml || return 1
  ! DDC_REQUIRE_DIGESTS=1 "$tree/deploy/docker/settings.sh" || { echo "without a digest it was not refused"; return 1; }
  cat >"$tree/deploy/versions.lock" <<JSON
{"schema": 1, "artefacts": {"base-image": {"kind": "image", "reference": "registry.example:5000/base:tag", "digest": "$digest"}}}
JSON
  DDC_REQUIRE_DIGESTS=1 "$tree/deploy/docker/settings.sh" | grep -qx "BASE=registry.example:5000/base@$digest"
}

main "$@"
