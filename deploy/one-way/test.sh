#!/usr/bin/env bash
# Proves the one-way guard on booted hosts joined by a plain cable, with no filtering bridge between them: counts every
# frame that leaves the receiving host's diode interface while an egress runs, is stopped, is killed, and over reboots,
# and while the host is provoked to speak in twenty ways. The same ways are tried without the guard first, where frames
# must be seen: a count that cannot rise proves nothing. Then the sending host: what is injected towards it must not
# reach its stack.
#
#   deploy/one-way/test.sh        (make test-one-way) needs root and `make dist`; about three minutes
#
# DDC_BINARY=PATH uses another ddc than dist/bin's.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
# shellcheck source=scripts/hosts.sh
source "$ROOT_DIR/scripts/hosts.sh"
HERE=$ROOT_DIR/deploy/one-way

case $(uname -m) in
  x86_64) BINARY=${DDC_BINARY:-$ROOT_DIR/dist/bin/ddc-amd64} ;;
  aarch64) BINARY=${DDC_BINARY:-$ROOT_DIR/dist/bin/ddc-arm64} ;;
  *) die "$EX_UNAVAILABLE" "no ddc is built for $(uname -m)" ;;
esac

GUARD=/usr/lib/ddc/one-way
PASSED=0
FAILED=0

main() {
  [[ -x $BINARY ]] || die "$EX_UNAVAILABLE" "$BINARY is missing; run \`make dist\` first"
  hosts_init "$@"
  lay_out
  say "ddc: $(host_run destination ddc version | head -n 1); kernel $(uname -r); $(host_run destination nft --version)"

  control_without_guard
  receiver_boots_guarded
  receiver_is_provoked
  receiver_carries_a_link
  receiver_rules_are_flushed
  receiver_link_goes_down_first
  receiver_wrong_configuration
  receiver_without_netdev_egress
  receiver_known_limits
  sender_control
  sender_is_deaf

  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

# --- the laboratory -----------------------------------------------------------------------------------------------------

# A source host and a destination host, a cable between their diode0; a second cable joins the source to a stranger, who
# injects frames towards the sender.
lay_out() {
  local host root
  host_add source
  host_add destination
  host_add stranger
  host_link source diode0 destination diode0
  host_link source diode1 stranger wire0
  set_address source diode0 02:00:00:00:00:01
  set_address destination diode0 02:00:00:00:00:02
  set_address source diode1 02:00:00:00:01:01
  for host in source destination; do
    root=$(host_root "$host")
    install -D -m 755 "$HERE/one-way" "$root$GUARD"
    install -D -m 644 "$HERE/ddc-one-way@.service" "$root/usr/lib/systemd/system/ddc-one-way@.service"
    install -m 755 "$HERE/provoke.py" "$root/usr/local/bin/provoke.py"
    install -m 755 "$BINARY" "$root/usr/bin/ddc"
    mkdir -p "$root/etc/ddc/one-way"
  done
  write_link_files
  host_boot source destination stranger
}

is_down() { [[ -z $(host_run destination ip link show dev diode0 up) ]]; }
is_up() { [[ -n $(host_run destination ip link show dev diode0 up) ]]; }

set_address() { ip -n "$(host_netns_name "$1")" link set dev "$2" address "$3"; }

# conf HOST INTERFACE LINE…
conf() { printf '%s\n' "${@:3}" >"$(host_root "$1")/etc/ddc/one-way/$2.conf"; }

# A sealed link that carries a stream of UDP datagrams: it needs no broker.
write_link_files() {
  local source destination
  source=$(host_root source)
  destination=$(host_root destination)
  od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$HOSTS_DIR/link.key"
  echo >>"$HOSTS_DIR/link.key"
  install -m 600 "$HOSTS_DIR/link.key" "$source/etc/ddc/link.key"
  install -m 600 "$HOSTS_DIR/link.key" "$destination/etc/ddc/link.key"
  cat >"$source/etc/ddc/ingress.toml" <<'END'
[link]
name = "plant-a"
id = 1
interface = "diode0"
target = "198.18.0.2:7401"
rate = "20Mbit/s"
state_dir = "/var/lib/ddc"
socket_buffer = "128KiB"
[[link.keys]]
id = 1
file = "/etc/ddc/link.key"
[source.udp.streams]
readings = "127.0.0.1:5000"
END
  cat >"$destination/etc/ddc/egress.toml" <<'END'
[link]
name = "plant-a"
id = 1
interface = "diode0"
listen = "198.18.0.2:7401"
state_dir = "/var/lib/ddc"
socket_buffer = "128KiB"
[[link.keys]]
id = 1
file = "/etc/ddc/link.key"
[sink.udp.streams]
readings = "127.0.0.1:5001"
END
  # The two lines of README.md tie the egress to the guard.
  cat >"$destination/etc/systemd/system/egress.service" <<'END'
[Unit]
Requires=ddc-one-way@diode0.service
After=ddc-one-way@diode0.service
[Service]
Type=notify
StateDirectory=ddc
ExecStart=/usr/bin/ddc egress -c /etc/ddc/egress.toml
END
  cat >"$source/etc/systemd/system/ingress.service" <<'END'
[Service]
Type=notify
StateDirectory=ddc
ExecStart=/usr/bin/ddc ingress -c /etc/ddc/ingress.toml
END
}

expect() {
  local what=$1
  shift
  if "$@" >"$HOSTS_DIR/output" 2>&1 </dev/null; then
    printf 'ok      %s\n' "$what"
    PASSED=$((PASSED + 1))
  else
    printf 'FAILED  %s\n' "$what"
    sed 's/^/        /' "$HOSTS_DIR/output"
    FAILED=$((FAILED + 1))
  fi
}

not() { ! "$@"; }

# What has left the destination's diode0 since `frames_from_destination`.
frames_from_destination() {
  host_run source ip link set diode0 up
  host_frames_start left source diode0
}
frames() { host_frames_count left; }
show_frames() { host_frames_show left | tail -n 5; }

# no_frames [LABEL]: nothing has left since the listener began. A moment first, for what is slow to answer.
no_frames() {
  local count
  sleep 0.5
  count=$(host_frames_count "${1:-left}")
  ((count == 0)) && return 0
  printf '%d frames left:\n' "$count"
  host_frames_show "${1:-left}" | tail -n 5
  return 1
}

# provoke WHAT FROM-HOST: prints how many frames left the destination on it.
provoke() {
  local before
  before=$(frames)
  host_run "$2" provoke.py "$1" diode0 >"$HOSTS_DIR/provoke" 2>&1 </dev/null || true
  sleep 0.2
  printf '%d\n' $(($(frames) - before))
}

# --- the receiver -------------------------------------------------------------------------------------------------------

# Each provocation makes an unguarded host speak: only then does silence mean something.
control_without_guard() {
  local attempt
  frames_from_destination
  host_run destination ip address add 198.18.0.2/30 dev diode0
  host_run destination ip link set diode0 up
  host_run source ip address add 198.18.0.1/30 dev diode0
  sleep 2
  expect "control: an unguarded host speaks by itself when its interface comes up" some_frames
  for attempt in $(python3 "$HERE/provoke.py" list from-inside); do
    expect "control: without the guard frames leave on $attempt" provoked_some "$attempt" destination
  done
  for attempt in $(python3 "$HERE/provoke.py" list from-outside); do
    expect "control: without the guard frames leave on $attempt (from outside)" provoked_some "$attempt" source
  done
  host_frames_stop left >/dev/null
}

some_frames() { (($(frames) > 0)); }

provoked_some() {
  local count
  count=$(provoke "$@")
  ((count > 0)) || {
    printf 'no frame was seen\n'
    cat "$HOSTS_DIR/provoke"
    return 1
  }
}

receiver_boots_guarded() {
  conf destination diode0 ROLE=receive ADDRESS=198.18.0.2/30
  conf source diode0 ROLE=send ADDRESS=198.18.0.1/30 PEER_ADDRESS=198.18.0.2 PEER_MAC=02:00:00:00:00:02
  host_run destination systemctl enable --quiet ddc-one-way@diode0
  host_run source systemctl enable --quiet ddc-one-way@diode0
  host_reboot source
  host_wait 60 source systemctl is-active --quiet ddc-one-way@diode0
  # Silenced before the count begins: up to here it was the unguarded host of the control.
  host_run destination ip link set diode0 down
  frames_from_destination
  host_reboot destination
  host_wait 60 destination systemctl is-active --quiet ddc-one-way@diode0
  sleep 2
  expect "a guarded host boots, brings its interface up, and nothing leaves" no_frames
  expect "the interface is up and has its address" host_run destination bash -c \
    'ip -4 address show dev diode0 up | grep -q 198.18.0.2/30'
  expect "the guard came before network-pre.target" guard_was_early
  expect "status says so, and nothing had to be stopped: nobody wanted to speak" host_run destination bash -c \
    "$GUARD status diode0 | tee /dev/stderr | grep -q 'stopped  *0 frames, 0 bytes by nft, 0 frames by tc'"
}

guard_was_early() {
  # shellcheck disable=SC2016 # for the shell in the host
  host_run destination bash -c '
    guard=$(systemctl show -p ActiveEnterTimestampMonotonic --value ddc-one-way@diode0)
    network=$(systemctl show -p ActiveEnterTimestampMonotonic --value network-pre.target)
    echo "guard $guard network-pre $network"; ((guard > 0 && network > 0 && guard <= network))'
}

receiver_is_provoked() {
  local attempt
  for attempt in $(python3 "$HERE/provoke.py" list from-inside); do
    expect "nothing leaves on $attempt" provoked_and_stopped "$attempt" destination
  done
  for attempt in $(python3 "$HERE/provoke.py" list from-outside); do
    expect "nothing leaves on $attempt (from outside)" provoked_and_stopped "$attempt" source
  done
  host_frames_stop left >/dev/null
}

# Nothing left, and the guard's counter says that something wanted to: the attempt was a real one. Three never come as far
# as the fence, since IPv6 or ARP is off on the interface.
provoked_and_stopped() {
  local before after
  before=$(stopped)
  provoked_none "$@"
  after=$(stopped)
  case $1 in neighbour_solicitation | mld_join | who_has) return 0 ;; esac
  printf 'the counter of what was stopped: %d, then %d\n' "$before" "$after"
  cat "$HOSTS_DIR/provoke"
  ((after > before))
}

stopped() { host_run destination "$GUARD" status diode0 | sed -n 's/^stopped *\([0-9]*\) frames.*/\1/p'; }

provoked_none() {
  local count
  count=$(provoke "$@")
  ((count == 0)) && return 0
  printf '%d frames left:\n' "$count"
  show_frames
  return 1
}

# Records cross a sealed link while nothing comes back: running, stopped, killed, over a reboot, the source sending on.
receiver_carries_a_link() {
  host_run destination systemctl enable --quiet --now egress 2>/dev/null || host_run destination systemctl start egress
  host_run source systemctl start ingress
  frames_from_destination
  expect "50 datagrams cross the link through a running egress" records_cross
  expect "nothing leaves while the egress runs" no_frames
  host_run destination systemctl stop egress
  sleep 2
  expect "nothing leaves while it is stopped and the source sends on" no_frames
  host_run destination systemctl start egress
  host_run destination systemctl kill --signal KILL egress
  sleep 1
  expect "nothing leaves when it is killed" no_frames
  host_reboot destination
  sleep 2
  expect "nothing leaves while the host reboots and the source sends on" no_frames
  host_run destination systemctl start egress
  expect "after the reboot records cross again" records_cross
  expect "and still nothing has left" no_frames
  host_kill destination
  host_reboot destination
  sleep 1
  expect "nothing leaves after a power cut" no_frames
  host_run source systemctl stop ingress
  host_frames_stop left >/dev/null
}

# 50 numbered datagrams go in at the source's loopback and must come out at the destination's.
records_cross() {
  local receiver code=0
  host_run destination timeout 30 python3 -c '
import socket
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sink.bind(("127.0.0.1", 5001)); sink.settimeout(20)
seen = set()
while len(seen) < 50: seen.add(sink.recv(2000))
assert seen == {b"reading %d" % n for n in range(50)}, seen' &
  receiver=$!
  sleep 0.5
  host_run source python3 -c '
import socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(50): sender.sendto(b"reading %d" % n, ("127.0.0.1", 5000)); time.sleep(0.01)'
  wait "$receiver" || code=$?
  ((code == 0)) || host_journal destination -u egress -n 15
  return "$code"
}

receiver_rules_are_flushed() {
  frames_from_destination
  # Everything within the seconds in which the watcher has not looked yet.
  host_run destination systemctl kill --signal STOP --kill-whom main ddc-one-way@diode0
  host_run destination nft flush ruleset
  expect "after \`nft flush ruleset\` the tc filter still holds: a ping" provoked_none ping destination
  expect "and LLDP by a packet socket" provoked_none lldp destination
  expect "and answers to closed ports" provoked_none closed_port_flood source
  expect "status says that the fences are not as they were" not host_run destination "$GUARD" status diode0
  host_run destination systemctl kill --signal CONT --kill-whom main ddc-one-way@diode0
  expect "the watcher brings the rules back" host_wait 60 destination nft list table netdev ddc_one_way_diode0
  expect "and says in the journal that they were missing" journal_says 'missing: the fences'

  host_run destination systemctl start nftables
  host_wait 60 destination "$GUARD" status diode0
  host_run destination systemctl kill --signal STOP --kill-whom main ddc-one-way@diode0
  host_run destination systemctl reload nftables
  expect "a reload of nftables.service brings them back, with no help of the watcher" host_wait 30 destination "$GUARD" status diode0
  host_run destination systemctl kill --signal CONT --kill-whom main ddc-one-way@diode0
  host_run destination systemctl stop nftables
  expect "they come back after a stop of nftables.service too" host_wait 60 destination "$GUARD" status diode0
  host_run destination tc qdisc delete dev diode0 clsact
  host_run destination ip link set diode0 arp on multicast on
  host_run destination sysctl -qw net.ipv6.conf.diode0.disable_ipv6=0
  expect "a removed tc filter, arp on, multicast on and IPv6 on are mended" host_wait 60 destination "$GUARD" status diode0
  expect "nothing has left in all this" no_frames
  host_frames_stop left >/dev/null
}

journal_says() { host_journal destination -u 'ddc-one-way@*' | grep -F "$1"; }

receiver_link_goes_down_first() {
  frames_from_destination
  host_run destination systemctl kill --signal KILL ddc-one-way@diode0
  expect "a killed watcher leaves the rules in place" host_run destination nft list table netdev ddc_one_way_diode0
  expect "and comes back" host_wait 60 destination systemctl is-active --quiet ddc-one-way@diode0
  expect "with its link" is_up
  host_run destination systemctl start egress
  host_run destination systemctl stop ddc-one-way@diode0
  expect "stopping the guard leaves the link down" is_down
  expect "and the rules removed" not host_run destination nft list table netdev ddc_one_way_diode0
  expect "and stops the egress that requires it" not host_run destination systemctl is-active --quiet egress
  expect "nothing has left" no_frames
  host_run destination systemctl start ddc-one-way@diode0
  expect "nothing leaves when the guard starts again" no_frames
  host_frames_stop left >/dev/null
}

receiver_wrong_configuration() {
  frames_from_destination
  host_run destination systemctl stop ddc-one-way@diode0
  conf destination diode0 ROLE=recieve ADDRESS=198.18.0.2/30
  host_run destination ip link set diode0 up 2>/dev/null || true
  expect "a wrong file fails the unit" not host_run destination systemctl start ddc-one-way@diode0
  expect "with file, value and remedy in the journal" journal_says 'diode0.conf: ROLE=recieve: write receive'
  expect "and the link down" is_down
  expect "and an egress that requires the guard does not start" not host_run destination systemctl start egress
  conf destination diode0 ROLE=receive ADDRESS=198.18.0.2/30
  host_frames_stop left >/dev/null
  frames_from_destination
  expect "a mended file is taken within seconds, without a hand" host_wait 30 destination systemctl is-active --quiet ddc-one-way@diode0
  # The watcher reads the file once, when it starts.
  sleep 1
  conf destination diode0 ROLE=receive
  expect "a reload with a wrong file fails" not host_run destination systemctl reload ddc-one-way@diode0
  expect "and leaves the link up" is_up
  expect "and the fences in place" host_run destination nft list table netdev ddc_one_way_diode0
  conf destination diode0 ROLE=receive ADDRESS=198.18.0.2/30
  expect "nothing has left" no_frames
  host_frames_stop left >/dev/null
}

# A kernel before 5.16, as the script sees one: nft refuses a chain at this hook.
receiver_without_netdev_egress() {
  local root
  root=$(host_root destination)
  frames_from_destination
  host_run destination systemctl stop ddc-one-way@diode0
  host_run destination "$GUARD" down diode0 2>/dev/null
  mkdir -p "$root/opt/old-kernel"
  # shellcheck disable=SC2016 # for the shell in the host
  printf '%s\n' '#!/bin/sh' 'case "$*" in *"-f -"*) echo "Error: Could not process rule: Operation not supported" >&2; exit 1;; esac' \
    'exec /usr/sbin/nft "$@"' >"$root/opt/old-kernel/nft"
  chmod 755 "$root/opt/old-kernel/nft"
  expect "without a netdev egress hook the tc filter alone is loaded, and it says what that does not stop" \
    host_run destination bash -c "PATH=/opt/old-kernel:\$PATH $GUARD up diode0 2>&1 | tee /dev/stderr | grep PACKET_QDISC_BYPASS"
  expect "it stops a ping" provoked_none ping destination
  expect "and LLDP" provoked_none lldp destination
  expect "and answers to closed ports" provoked_none closed_port_flood source
  expect "nothing has left" no_frames
  expect "but packet sockets with PACKET_QDISC_BYPASS, as it said" provoked_some packet_socket_bypass destination
  printf '%s\n' '#!/bin/sh' 'echo "RTNETLINK answers: No such file or directory" >&2; exit 2' >"$root/opt/old-kernel/tc"
  chmod 755 "$root/opt/old-kernel/tc"
  host_run destination "$GUARD" down diode0 2>/dev/null
  host_frames_stop left >/dev/null
  frames_from_destination
  expect "without either fence it fails" not host_run destination bash -c "PATH=/opt/old-kernel:\$PATH $GUARD up diode0"
  expect "and the link is down" is_down
  expect "nothing has left" no_frames
  host_run destination systemctl start ddc-one-way@diode0
  host_frames_stop left >/dev/null
}

# What README.md says the guard does not stop. Should this ever fail, the page has to be changed.
receiver_known_limits() {
  frames_from_destination
  expect "known limit: a program with CAP_NET_RAW sends past both fences by an AF_XDP socket" provoked_some xdp_socket destination
  host_frames_stop left >/dev/null
}

# --- the sender ---------------------------------------------------------------------------------------------------------

sender_control() {
  host_run stranger ip address add 198.18.1.2/30 dev wire0
  host_run stranger ip link set wire0 up
  host_run source ip address add 198.18.1.1/30 dev diode1
  host_run source ip link set diode1 up
  host_frames_start answers stranger wire0
  sleep 1
  expect "control: an unguarded sender answers ARP and ping" host_run stranger ping -c 1 -W 2 198.18.1.1
  expect "control: its sockets receive" datagram_arrives
  host_frames_stop answers >/dev/null
}

sender_is_deaf() {
  conf source diode1 ROLE=send ADDRESS=198.18.1.1/30 PEER_ADDRESS=198.18.1.2 PEER_MAC="$(host_run stranger cat /sys/class/net/wire0/address)"
  host_run source systemctl start ddc-one-way@diode1
  host_run stranger ip neighbour replace 198.18.1.1 lladdr 02:00:00:00:01:01 dev wire0 nud permanent
  host_frames_start answers stranger wire0
  expect "a guarded sender answers no ping" not host_run stranger ping -c 2 -W 1 198.18.1.1
  host_run stranger ip neighbour flush dev wire0
  host_run stranger ip neighbour delete 198.18.1.1 dev wire0 2>/dev/null || true
  expect "and no ARP" not host_run stranger ping -c 1 -W 1 198.18.1.1
  host_run stranger ip neighbour replace 198.18.1.1 lladdr 02:00:00:00:01:01 dev wire0 nud permanent
  expect "a datagram to an open port of it is not received" not datagram_arrives
  expect "a connection to its ssh is not answered" not host_run stranger python3 -c \
    'import socket; socket.create_connection(("198.18.1.1", 22), 1)'
  expect "nothing has come from it at all" no_frames answers
  expect "what came in is counted" host_run source bash -c "$GUARD status diode1 | tee /dev/stderr | grep -q '^stopped .*[1-9] frames by tc'"
  expect "its datagrams leave without asking for an address" sends_silently
  host_run source systemctl kill --signal STOP --kill-whom main ddc-one-way@diode1
  host_run source nft flush ruleset
  expect "after \`nft flush ruleset\` the tc filter still holds" not datagram_arrives
  host_run source systemctl kill --signal CONT --kill-whom main ddc-one-way@diode1
  host_run source ip neighbour delete 198.18.1.2 dev diode1
  expect "a removed neighbour entry and the rules are brought back" host_wait 60 source "$GUARD" status diode1
  host_frames_stop answers >/dev/null
}

datagram_arrives() {
  local receiver code=0
  host_run source timeout 5 python3 -c '
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); receiver.bind(("198.18.1.1", 6000)); receiver.settimeout(2)
receiver.recv(100)' 2>/dev/null &
  receiver=$!
  sleep 0.5
  host_run stranger python3 -c '
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3): sender.sendto(b"x", ("198.18.1.1", 6000))'
  wait "$receiver" || code=$?
  return "$code"
}

# Three datagrams, three frames on the wire, none of them a question.
sends_silently() {
  local before after
  before=$(host_frames_count answers)
  host_run source python3 -c '
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3): sender.sendto(b"x", ("198.18.1.2", 6000))'
  sleep 0.5
  after=$(host_frames_count answers)
  host_frames_show answers
  ((after - before == 3)) && (($(host_frames_show answers | grep -c 'UDP 198.18.1.1 > 198.18.1.2') == 3))
}

main "$@"
