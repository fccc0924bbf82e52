#!/usr/bin/env bash
# Converges a pair of hosts for real: two booted Debian hosts (source, destination), a one-way cable between them without any
# filtering bridge, two controllers that never meet, each with the inventory of its own side; real Kafka brokers on both sides;
# the ddc package from dist/packages; Prometheus of Debian.
#
#   ansible/test.sh [--packages DIR]        default: dist/packages (make dist)
#
# Vector cannot be had where this is developed: a package with the test double of this repository stands in for it, and the
# stand-in lock carries that package's digest. Needs root, mmdebstrap, systemd-nspawn, ssh; about 8 minutes on two cores.
# shellcheck disable=SC2016 # what is quoted runs in the hosts
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
# shellcheck source=scripts/hosts.sh
source "$ROOT_DIR/scripts/hosts.sh"
HERE=$ROOT_DIR/ansible

RECORDS=2000
# A Debian as its cloud images are (python3-apt), with Java for the brokers and Debian's Prometheus at hand.
hosts_root() { cached_root ansible "$HOSTS_JAVA,python3-apt,prometheus"; }

main() {
  local packages=$ROOT_DIR/dist/packages
  while (($#)); do
    case "$1 ${2:-}" in
      '--packages '?*) packages=$(realpath "$2") ;;
      *) die "$EX_USAGE" "unknown argument \`$1\`; usage: test.sh [--packages DIR]" ;;
    esac
    shift 2
  done
  PASSED=0 FAILED=0
  PACKAGES=$packages
  need_parts
  WORK=$HOSTS_DIR/work
  mkdir "$WORK"

  part "Stand-ins and hosts" prepare
  part "Preflight: wrong hosts and variables, nothing changes" preflights
  part "Check mode on fresh hosts" fresh_check_mode
  part "One command a side" converge
  part "Records and telemetry" crossing
  part "A second run, check mode, verify" steady
  part "Verify names what is wrong" red
  part "Uninstall and purge" uninstall
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

need_parts() {
  local files
  shopt -s nullglob
  files=("$PACKAGES"/ddc_*_amd64.deb)
  shopt -u nullglob
  ((${#files[@]} == 1)) || die "$EX_UNAVAILABLE" "no ddc package in $PACKAGES; run: make dist"
  DOUBLE=$ROOT_DIR/vector/double/target/debug/ddc-vector-double
  [[ -x $DOUBLE ]] || die "$EX_UNAVAILABLE" "the double of Vector is not built; run: cd vector/double && cargo build"
  KAFKA=$("$ROOT_DIR/deploy/kafka-dev/kafka.sh" fetch 4)
  have ssh || die "$EX_UNAVAILABLE" "ssh is missing; run: apt-get install openssh-client"
  ANSIBLE=$("$ROOT_DIR/scripts/tools.sh" path ansible)
  ANSIBLE=${ANSIBLE%/*}
}

# --- telling ------------------------------------------------------------------------------------------------------------

part() {
  local since=$SECONDS
  printf '%s\n' "== $1"
  "$2"
  printf '   %s s\n' $((SECONDS - since))
}

pass() {
  printf 'ok      %s\n' "$1"
  PASSED=$((PASSED + 1))
}

# miss WHAT [FILE]: with the end of what was said.
miss() {
  printf 'FAILED  %s\n' "$1"
  [[ -z ${2:-} ]] || tail -n 40 "$2" | sed 's/^/        /'
  FAILED=$((FAILED + 1))
}

# expect WHAT COMMAND…
expect() {
  local what=$1
  shift
  if "$@" >"$WORK/output" 2>&1 </dev/null; then pass "$what"; else miss "$what" "$WORK/output"; fi
}

# --- stand-ins, hosts, controllers -------------------------------------------------------------------------------------

prepare() {
  local side
  host_add source --bind "$KAFKA:/opt/kafka" --bind "$ROOT_DIR:/opt/ddc"
  host_add destination --bind "$KAFKA:/opt/kafka" --bind "$ROOT_DIR:/opt/ddc"
  host_netns c-source
  host_netns c-destination
  host_link c-source to-host source mgmt0
  host_link c-destination to-host destination mgmt0
  host_link source diode0 destination diode0
  vector_stand_in
  ssh-keygen -q -t ed25519 -N '' -f "$WORK/id"
  for side in source destination; do
    # An operator with sudo, as hosts are run; Ansible's `become` is needed.
    chroot "$(host_root $side)" useradd --create-home --shell /bin/bash deploy
    printf 'deploy ALL=(ALL) NOPASSWD: ALL\n' >"$(host_root $side)/etc/sudoers.d/deploy"
    install -d -m 700 -o 1000 -g 1000 "$(host_root $side)/home/deploy/.ssh"
    install -m 600 -o 1000 -g 1000 "$WORK/id.pub" "$(host_root $side)/home/deploy/.ssh/authorized_keys"
    # Debian starts a Prometheus that it installs: here it waits for the role.
    rm -f "$(host_root $side)/etc/systemd/system/multi-user.target.wants/prometheus.service"
    rm -f "$(host_root $side)"/etc/systemd/system/multi-user.target.wants/prometheus-node-exporter*.service
  done
  host_boot source destination
  MAC=$(host_run destination cat /sys/class/net/diode0/address)
  controller source 198.18.10
  controller destination 198.18.20
  # The two keys are made on one side and carried by hand, with links.yml.
  for side in plant-a telemetry; do
    dd if=/dev/urandom bs=32 count=1 status=none | od -An -v -tx1 | tr -d ' \n' | sed 's/$/\n/' >"$WORK/$side.key"
    chmod 600 "$WORK/$side.key"
    cp -p "$WORK/$side.key" "$WORK/c-source/keys/"
    cp -p "$WORK/$side.key" "$WORK/c-destination/keys/"
  done
  expect "both controllers have the same links.yml" cmp "$WORK"/c-{source,destination}/inventory/group_vars/all/links.yml
  expect "neither controller reaches the other side" never_meet
  brokers
}

never_meet() {
  ! host_run c-source ip route get 198.18.20.2 && ! host_run c-destination ip route get 198.18.10.2
}

# controller SIDE NETWORK: the shipped inventory of that side, with the addresses of these hosts.
controller() {
  local side=$1 network=$2 place=$WORK/c-$1 buffer
  buffer=$(($(cat /proc/sys/net/core/rmem_max) / 1024))KiB
  host_run "c-$side" ip address add "$network.1/30" dev to-host
  host_run "c-$side" ip link set to-host up
  host_run "$side" ip address add "$network.2/30" dev mgmt0
  host_run "$side" ip link set mgmt0 up
  mkdir -p "$place/home"
  cp -rL "$HERE/inventories/$side" "$place/inventory"
  mkdir -m 700 "$place/keys"
  sed -i '/^vector_host_metrics_across/d' "$place/inventory/group_vars/"*.yml
  find "$place/inventory" -name '*.yml' -exec sed -i "s/192\.0\.2\.[12]0/$network.2/; s/02:00:00:00:00:02/$MAC/; s/eth1/diode0/
    s/kafka-1\.$side\.example/127.0.0.1/; s/socket_buffer: .*/socket_buffer: $buffer/; s/rate: 400Mbit/socket_buffer: $buffer\n      rate: 400Mbit/" {} +
  sed -i "s/brokers: \[127.*/&\n    link: {socket_buffer: $buffer}/" "$place/inventory/group_vars/ddc_egress.yml" 2>/dev/null || true
  cat >"$place/inventory/group_vars/all/test.yml" <<YAML
---
ansible_user: deploy
ansible_ssh_private_key_file: $WORK/id
ansible_ssh_common_args: -o UserKnownHostsFile=$place/known_hosts
ddc_airgapped: true
ddc_common_package_directory: $PACKAGES
ddc_common_package_sha256: {amd64: $(sha256sum "$PACKAGES"/ddc_*_amd64.deb | cut -d ' ' -f 1)}
ddc_versions_lock: $WORK/versions.lock
vector_bundle_directory: $WORK/bundle
# The double does not run Vector's statsd sink, which carries the host's figures across.
vector_host_metrics_across: false
# A container has the clock and the socket buffers of the machine that runs it.
ddc_common_clock_check: warn
ddc_common_socket_buffer_max: $(cat /proc/sys/net/core/rmem_max)
YAML
  host_wait 20 "c-$side" bash -c "ssh-keyscan -T 2 $network.2 2>/dev/null | grep -q ." || die 1 "$side has no ssh"
  host_run "c-$side" ssh-keyscan "$network.2" >"$place/known_hosts" 2>/dev/null
}

# A package as the publisher's is made: binary, user, unit. Its digest stands in a lock as `make mirror` writes it.
vector_stand_in() {
  local tree=$WORK/vector file=packages/vector_0.57.0-1_amd64.deb
  mkdir -p "$tree/DEBIAN" "$tree/usr/bin" "$tree/lib/systemd/system" "$WORK/bundle/packages"
  cp "$DOUBLE" "$tree/usr/bin/vector"
  strip "$tree/usr/bin/vector" 2>/dev/null || true
  cat >"$tree/lib/systemd/system/vector.service" <<'UNIT'
[Unit]
Description=Vector (test double in its place)
After=network-online.target
[Service]
User=vector
Group=vector
ExecStartPre=/usr/bin/vector validate
ExecStart=/usr/bin/vector
ExecReload=/usr/bin/vector validate --no-environment
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
EnvironmentFile=-/etc/default/vector
[Install]
WantedBy=multi-user.target
UNIT
  cat >"$tree/DEBIAN/control" <<'CONTROL'
Package: vector
Version: 0.57.0-1
Architecture: amd64
Maintainer: tests <tests@invalid>
Description: NOT Vector: the test double of the Data Diode Connector under its name
CONTROL
  cat >"$tree/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
id vector >/dev/null 2>&1 || useradd --system --home-dir /var/lib/vector --shell /usr/sbin/nologin vector
POSTINST
  chmod 755 "$tree/DEBIAN/postinst"
  dpkg-deb --root-owner-group -Zgzip -z1 --build "$tree" "$WORK/bundle/$file" >/dev/null
  printf '{"schema": 1, "source": "stand-in", "artefacts": {"vector-deb": {"kind": "package", "version": "0.57.0", "architectures":
    {"amd64": {"url": "https://stand-in.invalid/vector.deb", "file": "%s", "sha256": "%s"}}}}}\n' \
    "$file" "$(sha256sum "$WORK/bundle/$file" | cut -d ' ' -f 1)" >"$WORK/versions.lock"
  say "   Vector is the test double here, in a package of its name (not the real Vector)"
}

brokers() {
  local side
  for side in source destination; do
    host_run $side mkdir -p /root/.cache/ddc
    host_run $side ln -sfn /opt/kafka "/root/.cache/ddc/kafka-$KAFKA_4_VERSION"
    host_run $side systemd-run --quiet --unit=kafka --setenv=HOME=/root --setenv=DDC_KAFKA_JVM_OPTS=-Xmx400m \
      /opt/ddc/deploy/kafka-dev/kafka.sh run broker 4 9092 --dir /var/lib/kafka
  done
  for side in source destination; do
    host_run $side env HOME=/root /opt/ddc/deploy/kafka-dev/kafka.sh wait 9092 --timeout 300 >/dev/null </dev/null
  done
  tool source org.apache.kafka.tools.TopicCommand --create --topic orders --partitions 3
  pass "a Kafka $KAFKA_4_VERSION broker runs on each side"
}

# tool SIDE CLASS ARGUMENT…: standard input goes along.
tool() {
  local side=$1 class=$2
  shift 2
  host_run "$side" env HOME=/root /opt/ddc/deploy/kafka-dev/kafka.sh tool 4 "$class" --bootstrap-server 127.0.0.1:9092 "$@"
}

# play SIDE PLAYBOOK ARGUMENT…: ansible-playbook on that side's controller; what it says goes to $WORK/SIDE.log.
play() {
  local side=$1 playbook=$2
  shift 2
  (cd "$HERE" && host_run "c-$side" env HOME="$WORK/c-$side/home" ANSIBLE_HOME="$WORK/c-$side/home" PATH="$ANSIBLE:$PATH" \
    ANSIBLE_NOCOLOR=1 LC_ALL=C.UTF-8 ansible-playbook -i "$WORK/c-$side/inventory" "playbooks/$playbook.yml" "$@") \
    >"$WORK/$side.log" 2>&1 </dev/null
}

changed_nothing() { ! grep -E '^[a-z-]+-1 +:' "$1" | grep -qvE ' changed=0 .* failed=0 '; }

# --- preflight ----------------------------------------------------------------------------------------------------------

# All that differs from the host's root but for what logging in, and asking apt, leave behind.
disk() {
  (cd "$HOSTS_DIR/hosts/$1/upper" && find . \( -path ./var/log -o -path ./home/deploy -o -path ./var/lib/kafka -o -path ./var/lib/prometheus -o -path ./var/lib/ddc -o -path ./run -o -path ./tmp \
    -o -path ./var/tmp -o -path ./var/lib/systemd -o -path ./root/.cache -o -path ./var/cache/apt -o -path ./var/lib/chrony -o -path ./var/lib/sudo \
    -o -path ./tmp/hsperfdata_root \) -prune -o ! -type d -printf '%p %s %T@\n' | sort)
}

# refused SIDE WHAT WORDS… -- ARGUMENT…: site.yml stops and says each of these words, and the host is as it was.
refused() {
  local side=$1 what=$2 code=0 words=() word
  shift 2
  while [[ $1 != -- ]]; do
    words+=("$1")
    shift
  done
  disk "$side" >"$WORK/before"
  play "$side" site "${@:2}" || code=$?
  disk "$side" >"$WORK/after"
  tr -s ' \n' '  ' <"$WORK/$side.log" >"$WORK/said"
  if ((code == 0)); then miss "$what: it did not stop" "$WORK/$side.log"; fi
  for word in "${words[@]}"; do
    if grep -qF -- "$word" "$WORK/said"; then pass "$what: $word"; else miss "$what: it does not say \`$word\`" "$WORK/$side.log"; fi
  done
  if cmp -s "$WORK/before" "$WORK/after"; then
    pass "$what: nothing on the host was changed"
  else
    diff "$WORK/before" "$WORK/after" >"$WORK/output" || true
    miss "$what: the host was changed" "$WORK/output"
  fi
}

# Links with one fault each: a copy of the first link of the inventory under another name and id, with one field changed.
faulty_links() {
  host_run "c-$1" "$ANSIBLE/python3" - "$WORK/c-$1/inventory" "$1" "${@:2}" >"$WORK/links.json" <<'PYTHON'
import json, sys, yaml
inventory, side, *faults = sys.argv[1:]
name = {"source": "ingress", "destination": "egress"}[side]
shared = yaml.safe_load(open(f"{inventory}/group_vars/all/links.yml"))["ddc_links"][0]
link = shared | yaml.safe_load(open(f"{inventory}/group_vars/ddc_{name}.yml"))[f"ddc_{name}_links"][0]
links = []
for number, fault in enumerate(faults):
    new, _, value = fault.partition("=")
    links.append(link | {"name": new.replace("_", "-"), "id": number + 1} | json.loads(value))
print(json.dumps({f"ddc_{name}_links": links}).replace("{{ inventory_dir }}", inventory))
PYTHON
}

preflights() {
  local keys=$WORK/c-source/keys zeros
  printf -v zeros '%064d' 0
  chmod 600 "$keys/plant-a.key"
  cp "$keys/plant-a.key" "$keys/open.key"
  chmod 644 "$keys/open.key"
  printf 'not a key\n' >"$keys/broken.key"
  chmod 600 "$keys/broken.key"
  faulty_links source 'nowhere={"interface": "diode9"}' 'management={"interface": "mgmt0"}' 'no-mac={"destination_mac": "nonsense"}' \
    'jumbo={"mtu": 70000}' 'no-brokers={"kafka": {"topics": ["orders"]}}' 'no-key={"key_file": "/nonexistent.key"}' \
    "open-key={\"key_file\": \"$keys/open.key\"}" "broken-key={\"key_file\": \"$keys/broken.key\"}" \
    "inside={\"key_file\": \"$WORK/c-source/inventory/hosts.yml\"}"
  refused source "links" \
    "interface diode9 (ddc_ingress_links[nowhere].interface) does not exist" \
    "interface mgmt0 (ddc_ingress_links[management].interface) carries TCP connections (198.18.10.2)" \
    "ddc_ingress_links[no-mac].destination_mac (or ddc_links) is not a hardware address: nonsense" \
    "can carry packets of 65535 bytes at most, ddc_ingress_links[jumbo].mtu" \
    "ddc_ingress_links[no-brokers].kafka.brokers is not set" \
    "/nonexistent.key (ddc_ingress_links[no-key].key_file) is not on the controller" \
    "(ddc_ingress_links[open-key].key_file) can be read by others on the controller (mode 0644); run: chmod 600" \
    "(ddc_ingress_links[broken-key].key_file) is not a link key: it must hold 64 hex digits" \
    "(ddc_ingress_links[inside].key_file) lies in the inventory directory" \
    -- -e @"$WORK/links.json"
  rm "$keys/open.key" "$keys/broken.key"

  mkdir -p "$WORK/other/DEBIAN"
  sed 's/Architecture: amd64/Architecture: arm64/' "$WORK/vector/DEBIAN/control" >"$WORK/other/DEBIAN/control"
  dpkg-deb --root-owner-group --build "$WORK/other" "$WORK/other.deb" >/dev/null
  printf 'ddc_ingres_links: []\n' >"$WORK/c-source/inventory/group_vars/all/typo.yml"
  refused source "package and host" \
    "ddc_common_package_sha256.amd64 says $zeros" \
    "is for arm64, this host is amd64" \
    "the clock is not synchronised" \
    "are free on the file system of /var/lib" \
    "variable ddc_ingres_links is not known to any role" \
    -- -e ddc_common_clock_check=fail -e ddc_common_minimum_free=9000000000000 \
    -e "{\"ddc_common_package_files\": {\"amd64\": \"$WORK/other.deb\"}, \"ddc_common_package_sha256\": {\"amd64\": \"$zeros\"}}"
  rm "$WORK/c-source/inventory/group_vars/all/typo.yml"

  sed 's/"sha256": "[0-9a-f]*"/"sha256": ""/' "$WORK/versions.lock" >"$WORK/empty.lock"
  refused source "Vector" "is empty: run \`make mirror\`" -- -e ddc_versions_lock="$WORK/empty.lock"
  sed "s/\"sha256\": \"[0-9a-f]*\"/\"sha256\": \"$zeros\"/" "$WORK/versions.lock" >"$WORK/wrong.lock"
  refused source "Vector" "says $zeros" -- -e ddc_versions_lock="$WORK/wrong.lock"

  refused source "a wrong type" "ddc_ingress_links" -- -e '{"ddc_ingress_links": 5}'

  host_run destination systemd-run --quiet --unit=squatter python3 -c \
    'import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("0.0.0.0", 7401)); time.sleep(600)'
  refused destination "a port" "port 7401/udp (ddc_egress_links[plant-a].port) is taken by users:((python3" --
  host_run destination systemctl stop squatter
}

# --- converging -----------------------------------------------------------------------------------------------------------

fresh_check_mode() {
  local side
  for side in source destination; do
    disk $side >"$WORK/before"
    if ! play $side site --check --diff; then
      miss "$side: check mode on a fresh host" "$WORK/$side.log"
      continue
    fi
    disk $side >"$WORK/after"
    if cmp -s "$WORK/before" "$WORK/after"; then
      pass "$side: check mode with --diff ends well on a fresh host and changes nothing"
    else
      diff "$WORK/before" "$WORK/after" >"$WORK/output" || true
      miss "$side: check mode changed the host" "$WORK/output"
    fi
    expect "$side: no key in what --diff shows" no_key_in "$WORK/$side.log"
  done
}

no_key_in() { ! grep -qF -f <(tr -d '\n' <"$WORK/plant-a.key"; echo; tr -d '\n' <"$WORK/telemetry.key"; echo) "$1"; }

converge() {
  local side since=$SECONDS
  STARTED=$SECONDS
  host_frames_start back source diode0
  for side in destination source; do
    since=$SECONDS
    if play $side site --diff; then
      pass "$side: site.yml, $((SECONDS - since)) s"
    else
      miss "$side: site.yml" "$WORK/$side.log"
    fi
    expect "$side: no key in what it said" no_key_in "$WORK/$side.log"
  done
}

crossing() {
  local figure
  # Keys, headers, tombstones are the business of other tests; here: each record whole, in its partition, in order.
  seq 1 "$RECORDS" | awk '{ printf "source:test,n:%d\tkey-%d\tvalue %d of a record\n", $1, $1 % 97, $1 }' |
    tool source org.apache.kafka.tools.ConsoleProducer --topic orders --property parse.key=true --property parse.headers=true >/dev/null
  # The first thing that a person would look at: both at once, since the two commands ended.
  expect "the destination's Prometheus has the egress's series" await_series destination 'ddc_egress_packets_received_total{link="plant-a"}'
  expect "the records are in the destination's Kafka" await_records
  printf '   from fresh hosts to a record across and a scraped metric, both sides one after the other: %d s (goal 180)\n' $((SECONDS - STARTED))
  if ((SECONDS - STARTED < 180)); then pass "less than 3 minutes"; else miss "less than 3 minutes"; fi
  consume source | sort >"$WORK/sent"
  consume destination | sed -E 's/,sourceTopic:orders,sourcePartition:[0-9]+,sourceOffset:[0-9]+//' | sort >"$WORK/arrived"
  expect "all $RECORDS records, each once: partition, offset, timestamp, headers, key, value" cmp "$WORK/sent" "$WORK/arrived"
  expect "the source's Prometheus has the ingress's series" await_series source 'ddc_ingress_packets_sent_total{link="plant-a"}'
  expect "the destination's Prometheus has the ingress's series, carried by the telemetry link" \
    await_series destination 'ddc_ingress_packets_sent_total{link="plant-a",via="diode"}'
  expect "rules are loaded on both sides" rules_loaded
  figure=$(host_frames_count back)
  host_frames_show back >"$WORK/output"
  if ((figure == 0)); then pass "not one frame has left the destination's diode interface"; else miss "$figure frames left the destination's diode interface" "$WORK/output"; fi
}

# Prometheus' answer to an instant query, when it has a sample.
series() {
  host_run "$1" python3 -c '
import json, sys, urllib.parse, urllib.request
url = "http://127.0.0.1:9090/api/v1/query?query=" + urllib.parse.quote(sys.argv[1])
result = json.load(urllib.request.urlopen(url, timeout=5))["data"]["result"]
print(result)
sys.exit(not result)' "$2"
}

await_series() {
  local until=$((SECONDS + 60))
  until series "$1" "$2"; do
    ((SECONDS < until)) || return 1
    sleep 0.5
  done
}

rules_loaded() {
  local side
  for side in source destination; do
    host_run $side python3 -c '
import json, urllib.request
groups = json.load(urllib.request.urlopen("http://127.0.0.1:9090/api/v1/rules", timeout=5))["data"]["groups"]
rules = [rule for group in groups for rule in group["rules"]]
print(len(rules), "rules")
assert len(rules) > 20 and all(rule["health"] in ("ok", "unknown") for rule in rules)'
  done
}

await_records() {
  local until=$((SECONDS + 90)) sum=0
  while ((SECONDS < until)); do
    sum=$(tool destination org.apache.kafka.tools.GetOffsetShell --topic orders 2>/dev/null | awk -F : '{ sum += $3 } END { print sum + 0 }')
    if ((sum >= RECORDS)); then return 0; fi
    sleep 0.5
  done
  printf '%s of %s records\n' "$sum" "$RECORDS"
  return 1
}

consume() {
  tool "$1" org.apache.kafka.tools.consumer.ConsoleConsumer --topic orders --from-beginning --max-messages "$RECORDS" --timeout-ms 20000 \
    --property print.partition=true --property print.offset=true --property print.timestamp=true --property print.headers=true \
    --property print.key=true 2>/dev/null
}

# --- steady, red ----------------------------------------------------------------------------------------------------------

steady() {
  local side
  for side in destination source; do
    if play $side site && changed_nothing "$WORK/$side.log"; then pass "$side: the second run changes nothing"; else miss "$side: the second run" "$WORK/$side.log"; fi
    if play $side site --check --diff && changed_nothing "$WORK/$side.log"; then pass "$side: check mode is clean"; else miss "$side: check mode" "$WORK/$side.log"; fi
    if play $side verify && changed_nothing "$WORK/$side.log"; then pass "$side: verify.yml is green"; else miss "$side: verify.yml" "$WORK/$side.log"; fi
  done
}

# verify_says SIDE WHAT WORDS
verify_says() {
  if play "$1" verify; then
    miss "$2: verify.yml is green"
  elif ! tr -s ' \n' '  ' <"$WORK/$1.log" | grep -F -- "$3" >/dev/null; then
    miss "$2: verify.yml does not say \`$3\`" "$WORK/$1.log"
  else
    pass "$2"
  fi
}

red() {
  host_run destination systemctl kill --signal=KILL ddc-egress@plant-a
  host_run destination systemctl stop ddc-egress@plant-a
  verify_says destination "a dead egress" "ddc-egress@plant-a is"
  if play destination site; then pass "site.yml starts it again"; else miss "site.yml starts it again" "$WORK/destination.log"; fi
  host_run source sed -i 's/^rate = .*/rate = "1Mbit\/s"/' /etc/ddc/ingress-plant-a.toml
  verify_says source "a configuration changed by hand" 'rate = "400Mbit/s"'
  host_run source systemctl stop vector
  verify_says source "a stopped Vector" "vector is inactive"
  if play source site && play source verify; then pass "site.yml puts both right"; else miss "site.yml puts both right" "$WORK/source.log"; fi
  # An egress without its guard is a hole: it is named, and it does not run on.
  host_run destination nft flush ruleset
  host_wait 20 destination nft list table netdev ddc_one_way_diode0 || true
  expect "rules that somebody flushed come back" host_run destination /usr/lib/ddc/one-way status diode0
}

# --- the end --------------------------------------------------------------------------------------------------------------

uninstall() {
  if play destination uninstall; then pass "uninstall.yml"; else miss "uninstall.yml" "$WORK/destination.log"; fi
  expect "nothing of DDC runs, and neither binary nor units are left" host_run destination bash -c \
    '! pgrep -x ddc && ! [[ -e /usr/bin/ddc ]] && [[ -z $(systemctl list-units --plain --no-legend --state=active "ddc-*") ]]'
  expect "its diode interface is down" host_run destination bash -c '[[ $(< /sys/class/net/diode0/operstate) == down ]]'
  expect "configuration, key and state are kept" host_run destination bash -c \
    '[[ -s /etc/ddc/egress-plant-a.toml && -s /etc/ddc/credentials/egress-plant-a/link.key && -n $(ls /var/lib/ddc/egress-plant-a) ]]'
  expect "Prometheus runs on with its own configuration" host_run destination bash -c \
    'systemctl is-active prometheus && ! [[ -e /etc/prometheus/ddc ]]'
  if play destination site && play destination verify; then pass "site.yml brings it back"; else miss "site.yml brings it back" "$WORK/destination.log"; fi
  if play destination uninstall -e ddc_uninstall_purge=true; then pass "uninstall.yml with purge"; else miss "uninstall.yml with purge" "$WORK/destination.log"; fi
  expect "nothing is left of configuration, keys and state" host_run destination bash -c '! [[ -e /etc/ddc || -e /var/lib/ddc ]]'
  if play destination uninstall -e ddc_uninstall_purge=true && changed_nothing "$WORK/destination.log"; then
    pass "once more changes nothing"
  else
    miss "once more" "$WORK/destination.log"
  fi
  host_frames_show back >"$WORK/output"
  if (($(host_frames_count back) == 0)); then
    pass "from first to last not one frame left the destination's diode interface"
  else
    miss "frames left the destination's diode interface" "$WORK/output"
  fi
}

hosts_init "$@"
main "$@"
