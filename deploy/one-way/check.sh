#!/usr/bin/env bash
# Quick check of the one-way guard, without booted hosts: the unit, the configuration's mistakes, and the script's whole
# life (up, status, restore, down, both roles, IPv6) on a virtual cable in a network namespace. Run by `make test`; a few
# seconds. deploy/one-way/test.sh is the proof on booted hosts.
#
#   deploy/one-way/check.sh
#
# Without root it runs in a user namespace of its own.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
HERE=$ROOT_DIR/deploy/one-way
PATH=$PATH:/usr/sbin:/sbin

for tool in nft:nftables ip:iproute2 tc:iproute2 unshare:util-linux systemd-analyze:systemd; do
  have "${tool%%:*}" || die "$EX_UNAVAILABLE" "${tool%%:*} is missing; run: apt-get install ${tool#*:}"
done
if [[ ${ONE_WAY_CHECK_INSIDE:-} != 1 ]]; then
  options=(--net --mount --propagation private)
  ((EUID == 0)) || options+=(--user --map-root-user)
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/ddc-one-way.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  export WORK
  ONE_WAY_CHECK_INSIDE=1 unshare "${options[@]}" "${BASH_SOURCE[0]}"
  exit
fi

export ONE_WAY_CONFIGURATION=$WORK/conf ONE_WAY_STATE=$WORK/state ONE_WAY_WAIT=0
PASSED=0
FAILED=0

main() {
  # /sys of this network namespace.
  mount -t sysfs sysfs /sys
  mkdir "$ONE_WAY_CONFIGURATION"
  unit
  mistakes
  rules_are_nft
  receiver
  receiver_ipv6
  sender
  refusals
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

expect() {
  local what=$1
  shift
  if "$@" >"$WORK/output" 2>&1 </dev/null; then
    PASSED=$((PASSED + 1))
  else
    printf 'FAILED  %s\n' "$what"
    sed 's/^/        /' "$WORK/output"
    FAILED=$((FAILED + 1))
  fi
}

# says CODE TEXT COMMAND…: the exit code, and a text in what it prints.
says() {
  local wanted=$1 text=$2 code=0 output
  shift 2
  output=$("$@" 2>&1) || code=$?
  printf 'exit code %d, wanted %d and "%s":\n%s\n' "$code" "$wanted" "$text" "$output"
  ((code == wanted)) && [[ $output == *"$text"* ]]
}

conf() { printf '%s\n' "${@:2}" >"$ONE_WAY_CONFIGURATION/$1.conf"; }

unit() {
  # The script where it lies here, since it is not installed.
  sed "s|/usr/lib/ddc/one-way|$HERE/one-way|" "$HERE/ddc-one-way@.service" >"$WORK/ddc-one-way@diode0.service"
  expect "systemd-analyze verify has nothing to say" says_nothing systemd-analyze verify "$WORK/ddc-one-way@diode0.service"
  expect "the unit's sandbox scores 2.0 or better" systemd-analyze security --offline=true --threshold=20 --no-pager \
    "$WORK/ddc-one-way@diode0.service"
}

says_nothing() {
  local output
  output=$("$@" 2>&1)
  printf '%s\n' "$output"
  [[ -z $output ]]
}

# --- configuration --------------------------------------------------------------------------------------------------------

RECEIVE=(ROLE=receive ADDRESS=198.18.0.2/30)
SEND=(ROLE=send ADDRESS=198.18.0.1/30 PEER_ADDRESS=198.18.0.2 PEER_MAC=02:00:00:00:00:02)

# right LINE… / wrong TEXT LINE…
right() {
  conf diode0 "$@"
  expect "right: $*" says 0 'is right' "$HERE/one-way" check diode0
}
wrong() {
  conf diode0 "${@:2}"
  expect "wrong: ${*:2}" says 78 "$1" "$HERE/one-way" check diode0
}

# shellcheck disable=SC2016 # backquotes and $ are meant as they stand
mistakes() {
  right "${RECEIVE[@]}"
  right '# a comment' '' "${RECEIVE[@]}" MTU=9000 IPV6=no PEER_ADDRESS= PEER_MAC=
  right "${SEND[@]}"
  right ROLE=receive ADDRESS=fd00:1::2/64 IPV6=yes
  right ROLE=receive ADDRESS=2001:db8:0:0:0:0:0:2/126 IPV6=yes
  right ROLE=send ADDRESS=fd00:1::1/64 IPV6=yes PEER_ADDRESS=fd00:1::2 PEER_MAC=02:00:00:00:00:02

  wrong 'ROLE is missing' ADDRESS=198.18.0.2/30
  wrong 'ROLE=recieve: write receive' ROLE=recieve ADDRESS=198.18.0.2/30
  wrong 'diode0.conf:3: unknown key `ADRESS`' "${RECEIVE[@]}" ADRESS=198.18.0.2/30
  wrong 'diode0.conf:3: ROLE stands twice (first in line 1)' "${RECEIVE[@]}" ROLE=send
  wrong 'diode0.conf:2: `ADDRESS = 198.18.0.2/30` is not KEY=value' ROLE=receive 'ADDRESS = 198.18.0.2/30'
  wrong 'is not KEY=value (no quotes' ROLE=receive 'ADDRESS="198.18.0.2/30"'
  wrong 'is not KEY=value' ROLE=receive 'ADDRESS=198.18.0.2/30 # the diode'
  wrong 'ADDRESS is missing' ROLE=receive
  wrong 'the prefix length behind / is missing' ROLE=receive ADDRESS=198.18.0.2
  wrong 'missing or not 1 to 32' ROLE=receive ADDRESS=198.18.0.2/33
  wrong 'missing or not 1 to 32' ROLE=receive ADDRESS=198.18.0.2/0
  wrong 'not an IPv4 address' ROLE=receive ADDRESS=198.18.0.256/30
  wrong 'not an IPv4 address' ROLE=receive ADDRESS=198.18.00.2/30
  wrong 'not an IPv4 address' 'ROLE=receive' 'ADDRESS=$(reboot)/30'
  wrong 'for IPv6 set IPV6=yes' ROLE=receive ADDRESS=fd00::2/64
  wrong 'for IPv4 set IPV6=no' "${RECEIVE[@]}" IPV6=yes
  wrong 'not an IPv6 address' ROLE=receive ADDRESS=fd00::1::2/64 IPV6=yes
  wrong 'not an IPv6 address' ROLE=receive ADDRESS=fd00:1:2:3:4:5:6/64 IPV6=yes
  wrong 'not an IPv6 address' ROLE=receive ADDRESS=fd00::12345/64 IPV6=yes
  wrong 'not an IPv6 address' ROLE=receive ADDRESS=fd00:/64 IPV6=yes
  wrong 'not 1 to 128' ROLE=receive ADDRESS=fd00::2/129 IPV6=yes
  wrong 'IPV6=true: write yes or no' "${RECEIVE[@]}" IPV6=true
  wrong 'MTU=99999: write 576 to 9216' "${RECEIVE[@]}" MTU=99999
  wrong 'MTU=1.5k: write' "${RECEIVE[@]}" MTU=1.5k
  wrong 'a receiver never answers' "${RECEIVE[@]}" PEER_ADDRESS=198.18.0.1
  wrong 'ROLE=send needs PEER_ADDRESS and PEER_MAC' ROLE=send ADDRESS=198.18.0.1/30
  wrong 'not an IPv4 address (without a prefix)' ROLE=send ADDRESS=198.18.0.1/30 PEER_ADDRESS=198.18.0.2/30 PEER_MAC=02:00:00:00:00:02
  wrong 'own ADDRESS' ROLE=send ADDRESS=198.18.0.1/30 PEER_ADDRESS=198.18.0.1 PEER_MAC=02:00:00:00:00:02
  wrong 'not a MAC address' ROLE=send ADDRESS=198.18.0.1/30 PEER_ADDRESS=198.18.0.2 PEER_MAC=0200.0000.0002
  wrong 'a group or null address' ROLE=send ADDRESS=198.18.0.1/30 PEER_ADDRESS=198.18.0.2 PEER_MAC=ff:ff:ff:ff:ff:ff

  rm "$ONE_WAY_CONFIGURATION/diode0.conf"
  expect "no file" says 78 'diode0.conf: cannot be read' "$HERE/one-way" check diode0
  expect "an interface that is a path" says 64 'is not an interface name' "$HERE/one-way" check ../../etc/passwd
  expect "no interface" says 64 'one-way up INTERFACE' "$HERE/one-way" up
  expect "an unknown command" says 64 'one-way up INTERFACE' "$HERE/one-way" open diode0
}

# --- the script's life on a cable -----------------------------------------------------------------------------------------

# A cable: diode0 here, far0 at its other end, which counts what leaves diode0. far0 is silent itself.
cable() {
  ip link delete diode0 2>/dev/null || true
  ip link add name diode0 type veth peer name far0
  printf '1\n' >/proc/sys/net/ipv6/conf/far0/disable_ipv6
  ip link set dev far0 arp off multicast off up
}

seen_at_far_end() { cat /sys/class/net/far0/statistics/rx_packets; }
nothing_left() { (($(seen_at_far_end) == 0)); }
link_is() { [[ $(ip -o link show dev diode0 up) ]] && [[ $1 == up ]] || { [[ -z $(ip -o link show dev diode0 up) ]] && [[ $1 == down ]]; }; }

rules_are_nft() {
  local role
  cable
  for role in RECEIVE SEND; do
    local -n lines=$role
    conf diode0 "${lines[@]}"
    "$HERE/one-way" rules diode0 >"$WORK/rules"
    expect "nft -c takes the rules of $role" nft -c -f "$WORK/rules"
    # Once, twice: loading again neither fails nor doubles a rule.
    expect "and loads them twice" nft -f "$WORK/rules"
    expect "and again" nft -f "$WORK/rules"
    expect "with one rule" rule_count_is 1
    nft delete table netdev ddc_one_way_diode0
  done
}

rule_count_is() { (($(nft list table netdev ddc_one_way_diode0 | grep -c 'counter name "stopped" drop') == $1)); }

# A packet socket is below everything but the guard.
send_frame() {
  python3 - <<'END'
import socket
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind(("diode0", 0))
try:
    sender.send(bytes.fromhex("0180c200000e020000000002" "88cc").ljust(60, b"\0"))
except OSError:
    pass
END
}

receiver() {
  cable
  conf diode0 "${RECEIVE[@]}" MTU=1400
  expect "status before: not in place" says 1 'MISSING    the fences (never loaded' "$HERE/one-way" status diode0
  expect "receive: up" says 0 'nothing leaves (fences: nft tc)' "$HERE/one-way" up diode0
  expect "it is up" link_is up
  expect "with address and MTU" says 0 'mtu 1400' ip address show dev diode0 to 198.18.0.2/30
  expect "status: in place" says 0 'in place' "$HERE/one-way" status diode0
  sleep 1.5
  expect "calm: nothing left, nothing had to be stopped" says 0 '0 frames, 0 bytes by nft, 0 frames by tc' "$HERE/one-way" status diode0
  send_frame
  expect "a raw frame does not leave" nothing_left
  expect "and is counted" says 0 '1 frames, 60 bytes by nft' "$HERE/one-way" status diode0
  expect "up again keeps the count" "$HERE/one-way" up diode0
  expect "as it was" says 0 '1 frames, 60 bytes by nft' "$HERE/one-way" status diode0
  nft flush ruleset
  send_frame
  expect "after nft flush ruleset the tc filter stops it" nothing_left
  expect "status: not in place" says 1 'MISSING    the fences as they were loaded' "$HERE/one-way" status diode0
  expect "restore" says 0 'restored' "$HERE/one-way" restore diode0
  expect "status: in place again" says 0 'in place' "$HERE/one-way" status diode0
  nft insert rule netdev ddc_one_way_diode0 egress accept
  expect "a rule somebody added is noticed" says 1 'MISSING' "$HERE/one-way" status diode0
  expect "and goes with restore" "$HERE/one-way" restore diode0
  expect "back to one rule" rule_count_is 1
  expect "down" says 0 'down; the fences are removed' "$HERE/one-way" down diode0
  expect "the link is down" link_is down
  expect "restore puts the fences up and leaves the link down" "$HERE/one-way" restore diode0
  expect "down still" link_is down
  "$HERE/one-way" down diode0 2>/dev/null
  expect "no rule is left" not nft list table netdev ddc_one_way_diode0
  expect "nothing has left in all this" nothing_left
  # Nothing above proves anything if this does not count.
  ip link set dev diode0 up
  send_frame
  expect "control: without the guard the frame leaves" not nothing_left
}

not() { ! "$@"; }

receiver_ipv6() {
  cable
  conf diode0 ROLE=receive ADDRESS=fd00:1::2/64 IPV6=yes
  expect "receive over IPv6: up" "$HERE/one-way" up diode0
  expect "with its address, usable at once" says 0 'inet6 fd00:1::2/64' ip -6 address show dev diode0 -tentative
  sleep 2.5
  expect "nothing leaves: no ND, no MLD, no router solicitation" nothing_left
  expect "and nothing had to be stopped" says 0 '0 frames, 0 bytes by nft, 0 frames by tc' "$HERE/one-way" status diode0
  expect "status: in place" says 0 'IPv6 on (quiet)' "$HERE/one-way" status diode0
  "$HERE/one-way" down diode0 2>/dev/null
}

sender() {
  cable
  conf diode0 "${RECEIVE[@]}"
  "$HERE/one-way" up diode0 2>/dev/null
  conf diode0 "${SEND[@]}"
  expect "from receive to send: up" says 0 'nothing comes in (fences: nft tc)' "$HERE/one-way" up diode0
  expect "the address of before is gone" says_nothing ip address show dev diode0 to 198.18.0.2
  expect "the egress chain is gone" not nft list chain netdev ddc_one_way_diode0 egress
  expect "status names the neighbour" says 0 'neighbour 198.18.0.2 at 02:00:00:00:00:02' "$HERE/one-way" status diode0
  expect "datagrams leave" sends_one
  ip neighbour delete 198.18.0.2 dev diode0
  expect "a lost neighbour is noticed" says 1 'MISSING    the neighbour' "$HERE/one-way" status diode0
  expect "and restored" "$HERE/one-way" restore diode0
  expect "in place" "$HERE/one-way" status diode0
  "$HERE/one-way" down diode0 2>/dev/null
}

sends_one() {
  local before
  before=$(seen_at_far_end)
  python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("198.18.0.2", 7401))'
  sleep 0.1
  (($(seen_at_far_end) == before + 1))
}

refusals() {
  cable
  conf diode0 ROLE=receive
  ip link set dev diode0 up
  expect "up with a wrong file" says 78 'the interface is set down' "$HERE/one-way" up diode0
  expect "sets the link down" link_is down
  conf diode0 "${RECEIVE[@]}"
  "$HERE/one-way" up diode0 2>/dev/null
  conf diode0 ROLE=receive
  expect "a wrong file behind fences that stand" says 78 'still in place' "$HERE/one-way" up diode0
  expect "leaves the link up" link_is up
  conf diode7 "${RECEIVE[@]}"
  expect "an interface that is not there" says 69 'there is no such interface' "$HERE/one-way" up diode7
  expect "down of it is no error" "$HERE/one-way" down diode7
}

main
