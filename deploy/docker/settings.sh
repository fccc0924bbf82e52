#!/usr/bin/env bash
# Prints what the image's build is told, as NAME=VALUE lines for `env`. Same commit, same lines.
#
#   deploy/docker/settings.sh [--arguments]        --arguments: as --build-arg NAME=VALUE, for docker and buildah
#
# A variable that is set already stays as it is: BASE=… deploy/docker/settings.sh
# With DDC_REQUIRE_DIGESTS=1 (releases, sites without a way out) a base without a digest is refused: exit code 69.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

main() {
  local prefix='' git=(git -C "$ROOT_DIR") name
  case ${1:-} in
    '') ;;
    --arguments) prefix='--build-arg ' ;;
    *) die "$EX_USAGE" "unknown argument \`$1\`; usage: settings.sh [--arguments]" ;;
  esac
  # The workspace's version is the only line of that form (scripts/lib.sh reads the compiler's version in the same way).
  VERSION=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$ROOT_DIR/Cargo.toml")}
  # A tree without git (a release's archive) names no revision and takes this day.
  REVISION=${REVISION:-$("${git[@]}" rev-parse HEAD 2>/dev/null || echo unknown)}
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("${git[@]}" log -1 --format=%ct 2>/dev/null || date -u -d 'today 00:00' +%s)}
  CREATED=${CREATED:-$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)}
  SOURCE=${SOURCE:-$(source_address)}
  BASE=${BASE:-$(base_reference)} || exit "$EX_UNAVAILABLE"
  for name in VERSION REVISION CREATED SOURCE SOURCE_DATE_EPOCH BASE; do
    printf '%s%s=%s\n' "$prefix" "$name" "${!name}"
  done
}

# Where this clone came from, if that is an address for everyone, without a name or a password that may stand in the address.
source_address() {
  local address
  address=$(git -C "$ROOT_DIR" remote get-url origin 2>/dev/null) || return 0
  if [[ $address == https://* ]]; then sed -E 's#^(https://)[^/]*@#\1#' <<<"$address"; fi
}

# By digest after `make mirror`; before that by tag, with a word about it.
base_reference() {
  python3 - "$ROOT_DIR/deploy/versions.toml" "$ROOT_DIR/deploy/versions.lock" <<'PYTHON'
import json, os, sys, tomllib

versions, lock = sys.argv[1:]
with open(versions, "rb") as file:
    base = next(a for a in tomllib.load(file)["artefact"] if a["name"] == "base-image")
reference, digest = base["reference"].format(version=base["version"]), base["digest"]
if os.path.exists(lock):
    with open(lock) as file:
        locked = json.load(file)["artefacts"].get("base-image", {})
    reference, digest = locked.get("reference", reference), locked.get("digest", digest)
if digest:
    # A reference with a digest needs no tag: NAME[:TAG], where the registry may have a port.
    head, slash, tail = reference.rpartition("/")
    reference = f"{head}{slash}{tail.partition(':')[0]}@{digest}"
elif os.environ.get("DDC_REQUIRE_DIGESTS") == "1":
    sys.exit("settings.sh: base-image has no digest, and DDC_REQUIRE_DIGESTS=1; run: make mirror (docs/mirror.md)")
else:
    print("settings.sh: base-image has no digest, so its tag decides what is built on; `make mirror` computes it", file=sys.stderr)
print(reference)
PYTHON
}

main "$@"
