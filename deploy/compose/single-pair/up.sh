#!/usr/bin/env bash
# Starts the pair of compose.yaml and waits until all of it is healthy. What is missing is made, what is there stays:
#
#   .env        settings, from env.example; its last part, the images, is written anew each time
#   secrets/    the links' keys (ddc keygen) and Grafana's password
#
#   ./up.sh [--bundle DIR [--load]] [--prepare] [ARGUMENT OF docker compose up…]
#
#   --bundle DIR   images by digest, as the bundle of `make mirror` names them; without it by the tags of images.env
#   --load         takes the bundle's images into this Docker; for machines without a registry. Needs skopeo and Python 3.11
#   --prepare      makes files and keys, checks, and starts nothing
#
# Afterwards plain `docker compose` commands work in this directory. Exit codes: 64 usage, 69 something is missing,
# 78 a setting is wrong, else Docker's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly MARK='# --- Written by up.sh at each start; not to be edited. ---'
readonly COMPOSE_WANTED=2.20.0
readonly WAIT_SECONDS=300

main() {
  local bundle='' load='' prepare='' images=images.env
  while (($#)); do
    case $1 in
      --bundle)
        bundle=${2:?--bundle needs a directory}
        shift
        ;;
      --load) load=1 ;;
      --prepare) prepare=1 ;;
      *) break ;;
    esac
    shift
  done
  [[ -z $load || $bundle ]] || die 64 "--load needs --bundle DIR"
  need_docker
  [[ -e .env ]] || cp env.example .env
  if [[ $bundle ]]; then
    images=$bundle/compose.env
    [[ -r $images ]] || die 69 "there is no compose.env in $bundle; run make mirror on a connected machine and bring bundle/"
  fi
  if [[ $load ]]; then
    images=$(mktemp)
    # shellcheck disable=SC2064 # this file
    trap "rm -f '$images'" EXIT
    ../../../scripts/mirror.py load --bundle "$bundle" --out "$images"
  fi
  mkdir -p secrets
  chmod 700 secrets
  write_settings "$images"
  require_digests
  make_secrets
  write_settings "$images"
  docker compose config --quiet
  [[ -z $prepare ]] || return 0
  docker compose up --detach --wait --wait-timeout "$WAIT_SECONDS" "$@"
  say "The pair is up. ./try.sh sends records across; Grafana: http://127.0.0.1:$(setting GRAFANA_PORT 3000), user admin, password in secrets/grafana-password"
}

need_docker() {
  local version
  command -v docker >/dev/null || die 69 "docker is missing; install Docker Engine with the compose plugin"
  version=$(docker compose version --short 2>/dev/null) || die 69 "\`docker compose\` does not work; install the compose plugin, version $COMPOSE_WANTED or later"
  version=${version#v}
  # A plug-in that was built from source calls itself `dev`.
  [[ $version != [0-9]* || $(printf '%s\n%s\n' "$COMPOSE_WANTED" "$version" | sort -V | head -n 1) == "$COMPOSE_WANTED" ]] ||
    die 69 "docker compose is $version; this needs $COMPOSE_WANTED or later"
  docker version >/dev/null || die 69 "no Docker engine answers (see above); start it, or set DOCKER_HOST"
}

# setting NAME [DEFAULT]: as compose will see it: the environment counts before .env.
setting() {
  local value
  value=${!1:-$(sed -n "s/^$1=//p" .env | tail -n 1)}
  printf '%s\n' "${value:-${2:-}}"
}

# The last part of .env: images, and who may read the keys. Written under another name first: a half .env starts nothing.
write_settings() {
  local group
  group=$(key_group)
  {
    sed "/^$MARK\$/,\$d" .env
    printf '%s\n' "$MARK"
    grep -v '^#' "$1"
    printf 'DDC_KEY_GROUP=%s\n' "$group"
  } >.env.new
  mv .env.new .env
}

# Who owns the key files lets a group read them; the proxies run in that group. Not root's: then the image's own group.
key_group() { if ((EUID == 0)); then echo 65532; else id -g; fi; }

# Each image by a digest, or nothing starts.
require_digests() {
  local image bad=''
  [[ $(setting DDC_REQUIRE_DIGESTS 0) == 1 ]] || return 0
  while read -r image; do
    [[ $image =~ (^|@)sha256:[0-9a-f]{64}$ ]] || bad+=" $image"
  done < <(docker compose config --images)
  [[ -z $bad ]] || die 78 "DDC_REQUIRE_DIGESTS=1, and these images have no digest:$bad. Run \`make mirror\` on a connected machine, bring bundle/, and start with --bundle DIR; name our own image by its digest or id in .env (DDC_IMAGE)"
}

make_secrets() {
  local link image
  image=$(setting DDC_IMAGE)
  docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" >/dev/null 2>&1 ||
    die 69 "there is no image $image; run \`make image\` in the checkout, or name yours in .env (DDC_IMAGE)"
  for link in plant-a telemetry; do
    [[ -e secrets/$link.key ]] || secret "$link.key" docker run --rm --network none "$image" keygen
  done
  [[ -e secrets/grafana-password ]] || secret grafana-password random_password
}

# secret NAME COMMAND…: what COMMAND prints, for this user and the group of the proxies. An existing one is never touched.
secret() {
  local name=$1
  shift
  (umask 027 && "$@" >"secrets/.$name") || die 69 "secrets/$name could not be made: \`$*\` failed"
  chgrp "$(key_group)" "secrets/.$name"
  mv -n "secrets/.$name" "secrets/$name"
}

random_password() { od -An -N18 -tx1 /dev/urandom | tr -d ' \n'; }

say() { printf '%s\n' "$*" >&2; }

die() {
  local code=$1
  shift
  say "up.sh: $*"
  exit "$code"
}

main "$@"
