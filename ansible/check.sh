#!/usr/bin/env bash
# Checks the collection without any host: lint (ansible-lint's production profile, yamllint), every playbook on every inventory,
# what the built collection holds, what the argument specs refuse, and that the configurations the roles would write pass
# `ddc check` and Vector's double. The real convergence is test.sh.
#
#   ansible/check.sh        DDC_BIN: the ddc binary, default target/release/ddc or target/debug/ddc
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
HERE=$ROOT_DIR/ansible
cd "$HERE"

PLAYBOOKS=(playbooks/{site,verify,uninstall})
INVENTORIES=(source destination lab)
PASSED=0 FAILED=0

main() {
  ANSIBLE=$("$ROOT_DIR/scripts/tools.sh" path ansible)
  ANSIBLE=${ANSIBLE%/*}
  export PATH=$ANSIBLE:$PATH ANSIBLE_NOCOLOR=1 LC_ALL=C.UTF-8
  find_ddc
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/ddc-ansible.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  # Ansible's own files go there, too.
  export ANSIBLE_HOME=$WORK/home

  expect "ansible-lint, production profile, offline" ansible-lint --offline --profile production
  expect "yamllint" yamllint --strict galaxy.yml meta playbooks roles inventories tests
  syntax
  one_sided
  expect "every variable is described, every description has a default that is true" python3 tests/specs.py
  expect "README's table is as the argument specs say" python3 tests/readme.py --check
  collection
  refusals
  configurations
  package_names
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

find_ddc() {
  local candidate
  if [[ -z ${DDC_BIN:-} ]]; then
    for candidate in "$(target_dir)"/{release,debug}/ddc; do
      if [[ -x $candidate ]]; then DDC_BIN=$candidate && break; fi
    done
  fi
  [[ -x ${DDC_BIN:-} ]] || die "$EX_UNAVAILABLE" "no ddc binary; run: cargo build --release --workspace, or set DDC_BIN"
}

# expect WHAT COMMAND…
expect() {
  local what=$1
  shift
  if "$@" >"$WORK/output" 2>&1 </dev/null; then
    printf 'ok      %s\n' "$what"
    PASSED=$((PASSED + 1))
  else
    printf 'FAILED  %s\n' "$what"
    tail -n 40 "$WORK/output" | sed 's/^/        /'
    FAILED=$((FAILED + 1))
  fi
}

# One run of Ansible for each playbook: it takes several inventories only merged, so each inventory is asked on its own.
syntax() {
  local inventory
  for inventory in "${INVENTORIES[@]}"; do
    expect "syntax of ${PLAYBOOKS[*]##*/} on inventory $inventory" \
      ansible-playbook -i "inventories/$inventory" --syntax-check "${PLAYBOOKS[@]/%/.yml}"
  done
}

# What the two controllers share is the same, and nothing else of the other side is in an inventory.
one_sided() {
  expect "both sides' links.yml are the same" cmp inventories/{source,destination}/group_vars/all/links.yml
  expect "the source's inventory has no egress" empty_group source ddc_egress
  expect "the destination's inventory has no ingress" empty_group destination ddc_ingress
  expect "the lab's first words say what it is" grep -q 'A LAB: one controller that reaches both sides' <(sed -n '1,2p' inventories/lab/hosts.yml)
}

empty_group() { [[ $(ansible-inventory -i "inventories/$1" --list | python3 -c 'import json, sys; print(len(json.load(sys.stdin).get(sys.argv[1], {}).get("hosts", [])))' "$2") == 0 ]]; }

# Everything that belongs to the product is in the tarball, as files and with the content of the repository.
collection() {
  local tree=$WORK/collection/ansible_collections/ddc/ddc side
  expect "the collection's version is the workspace's" \
    test "$(sed -n 's/^version: \([0-9.]*\).*/\1/p' galaxy.yml)" = "$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT_DIR/Cargo.toml" | head -n 1)"
  expect "the collection builds" ansible-galaxy collection build --output-path "$WORK/built" .
  expect "and installs" ansible-galaxy collection install --offline -p "$WORK/collection" "$WORK"/built/ddc-ddc-*.tar.gz
  expect "it holds all of Vector's files, rules and dashboards, as the repository has them" same_content "$tree"
  expect "and no link that leads out of it, no key, no test" self_contained "$tree"
  # Without the checkout's roles, which ansible.cfg names.
  : >"$WORK/empty.cfg"
  for side in source destination; do
    expect "its playbooks work by name on the inventory $side" \
      env ANSIBLE_COLLECTIONS_PATH="$WORK/collection" ANSIBLE_ROLES_PATH=/nonexistent ANSIBLE_CONFIG="$WORK/empty.cfg" \
      ansible-playbook -i "inventories/$side" --syntax-check ddc.ddc.site ddc.ddc.verify ddc.ddc.uninstall
  done
}

same_content() {
  local tree=$1 part file
  compare "$ROOT_DIR/vector" "$tree/roles/vector/files/vector" vector.yaml exporter.yaml exporter-auth.yaml destination.yaml
  compare "$ROOT_DIR/vector/vrl" "$tree/roles/vector/files/vector/vrl"
  compare "$ROOT_DIR/vector/snippets" "$tree/roles/vector/files/vector/snippets"
  compare "$ROOT_DIR/grafana/dashboards" "$tree/roles/observability/files/grafana/dashboards"
  for part in source destination both; do
    compare "$ROOT_DIR/deploy/prometheus/rules/$part" "$tree/roles/observability/files/prometheus/rules/$part"
  done
  for file in "$ROOT_DIR"/vector/*.yaml; do [[ -e $tree/roles/vector/files/vector/${file##*/} ]]; done
}

# compare FROM TO [FILE…]: all files of FROM are in TO with the same content, and no others.
compare() {
  local from=$1 to=$2
  shift 2
  local name names=("$@")
  (($#)) || mapfile -t names < <(cd "$from" && find . -maxdepth 1 ! -type d -printf '%f\n' | sort)
  for name in "${names[@]}"; do
    cmp "$from/$name" "$to/$name" || return 1
  done
  [[ $(find "$to" -maxdepth 1 ! -type d | wc -l) == "${#names[@]}" ]] || {
    printf 'files of %s and %s differ: %s\n' "$from" "$to" "$(diff <(cd "$from" && printf '%s\n' "${names[@]}" | sort) <(ls "$to"))"
    return 1
  }
}

self_contained() {
  local link
  while read -r link; do
    [[ $(realpath "$link") == "$1"/* ]] || {
      printf '%s leads out of the collection\n' "$link"
      return 1
    }
  done < <(find "$1" -type l)
  find "$1" \( -name '*.key' -o -name '*.sh' ! -path '*/files/*' -o -path '*/tests/*' \) | tee "$WORK/unwanted"
  [[ ! -s $WORK/unwanted ]]
}

# What the argument specs and the preflight refuse, on this machine as host: nothing of it gets as far as a change.
refusals() {
  refused "a wrong type" "vector_environment" -e '{"vector_environment": 5}'
  refused "a choice that there is not" "value of ddc_common_package_source must be one of: file, url, repository, preinstalled" \
    -e ddc_common_package_source=floppy
  refused "a field of a link that there is not" "lingr" -e '{"ddc_ingress_links": [{"name": "a", "lingr": 5}]}'
  refused "a link without a name" "missing required arguments: name" -e '{"ddc_ingress_links": [{"interface": "lo"}]}'
  refused "a snippet that there is not" "vector_snippets must be one or more of" -e '{"vector_snippets": ["carrier-pigeon"]}'
  refused "no package" "is not there; run \`make dist\`" -e ddc_common_package_source=file -e ddc_common_package_directory=/nonexistent
  refused "a url without an address" "ddc_common_package_urls.$(architecture) is not set" -e ddc_common_package_source=url
  printf '{"schema": 1, "artefacts": {"vector-deb": {"architectures": {"%s": {"url": "u", "file": "f", "sha256": ""}}}}}\n' \
    "$(architecture)" >"$WORK/empty.lock"
  refused "air-gapped with an empty digest of Vector" "run \`make mirror\`, which fetches Vector and writes its digest" \
    -e vector_source=url -e ddc_versions_lock="$WORK/empty.lock" -e ddc_airgapped=true
  refused "air-gapped with an unknown digest of ddc" "ddc_airgapped is set and no digest is known of ddc.deb" \
    -e ddc_common_package_source=url -e "{\"ddc_common_package_urls\": {\"$(architecture)\": \"http://x.invalid/ddc.deb\"}}" -e ddc_airgapped=true
}

architecture() { case $(uname -m) in x86_64) printf amd64 ;; aarch64) printf arm64 ;; *) uname -m ;; esac; }

# refused WHAT WORDS ARGUMENT…
refused() {
  local what=$1 words=$2 code=0
  shift 2
  ansible-playbook -i tests/localhost.yml tests/preflight.yml "$@" >"$WORK/output" 2>&1 </dev/null || code=$?
  if ((code != 0)) && tr -s ' \n' '  ' <"$WORK/output" | grep -F -- "$words" >/dev/null; then
    printf 'ok      refused: %s\n' "$what"
    PASSED=$((PASSED + 1))
  else
    printf 'FAILED  refused: %s (exit code %s; wanted: %s)\n' "$what" "$code" "$words"
    tail -n 30 "$WORK/output" | sed 's/^/        /'
    FAILED=$((FAILED + 1))
  fi
}

# What the roles would write for the shipped inventories and for one that uses every field.
configurations() {
  local file
  mkdir -p "$WORK/rendered/one-way" "$WORK/one-way" "$WORK/credentials"
  for file in link.key link-next.key kafka.password kafka-client.key kafka-client.key-password; do
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' | sed 's/$/\n/' >"$WORK/credentials/$file"
  done
  chmod 600 "$WORK"/credentials/*
  expect "the configurations of inventories/lab render" \
    ansible-playbook -i inventories/lab -e render_to="$WORK/rendered" tests/render.yml
  expect "and one with every field" ansible-playbook -i tests/everything.yml -e render_to="$WORK/rendered" tests/render.yml
  # What the roles put beside a configuration on the host.
  mkdir "$WORK/tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout "$WORK/credentials/kafka-client.key" \
    -out "$WORK/tls/certificate.pem" 2>/dev/null
  sed -i "s|\"/etc/ddc/tls/[^\"]*\"|\"$WORK/tls/certificate.pem\"|" "$WORK"/rendered/*.toml
  for file in "$WORK"/rendered/*.toml; do
    expect "ddc check ${file##*/}" env CREDENTIALS_DIRECTORY="$WORK/credentials" "$DDC_BIN" check -c "$file"
  done
  for file in "$WORK"/rendered/one-way/*.conf; do
    # The file is named after the interface, which may be as long as Linux lets it.
    cp "$file" "$WORK/one-way/diode0.conf"
    expect "one-way check ${file##*/}" env ONE_WAY_CONFIGURATION="$WORK/one-way" "$ROOT_DIR/deploy/one-way/one-way" check diode0
  done
}

# Which package a host gets, with the architecture as a fact that is made up: only the choice, no host of that kind.
package_names() {
  expect "the package by architecture and family (made-up facts)" ansible-playbook -i tests/localhost.yml tests/package_names.yml
}

main "$@"
