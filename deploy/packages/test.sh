#!/usr/bin/env bash
# Proves the packages in booted hosts: a source and a destination, each with its own systemd and a real Kafka broker, and
# a cable between them. Installed, configured by hand as docs/install-packages.md says, fed, reloaded, killed, hung,
# misconfigured, cut off, restricted, upgraded, exchanged, rebooted, removed, purged. Then foreign.sh: arm64 and rpm.
#
#   deploy/packages/test.sh [--packages DIR] [--only-hosts]       default: dist/packages; make test-packages
#
# Needs root, the tools of scripts/hosts.sh, and the packages (deploy/packages/build.sh). About four minutes.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
# shellcheck source=scripts/hosts.sh
source "$ROOT_DIR/scripts/hosts.sh"

PACKAGES=$ROOT_DIR/dist/packages
LINK=plant-a
INGRESS=ddc-ingress@$LINK
EGRESS=ddc-egress@$LINK
EGRESS_ADMIN=9661
passed=0 failed=0 sent=0

main() {
  local arguments=("$@") only_hosts=''
  while (($#)); do
    case "$1 ${2:-}" in
      '--packages '?*)
        PACKAGES=$(realpath "$2")
        shift
        ;;
      '--only-hosts '*) only_hosts=1 ;;
      *) die "$EX_USAGE" "usage: test.sh [--packages DIR] [--only-hosts]" ;;
    esac
    shift
  done
  find_packages
  hosts_init "${arguments[@]}"
  make_older
  make_hosts
  section "a fresh host" fresh_host
  section "by hand, ten lines a side" by_hand
  section "records cross" first_records
  section "secrets" secrets
  section "reload" reload
  section "a new key without a stop" new_key
  section "killed and hung" killed_and_hung
  section "bad configuration" bad_configuration
  section "the broker is away" broker_away
  section "a narrower network" narrower_network
  section "upgrade" upgrade
  section "ddc and ddc-gssapi" exchange
  section "reboot" reboot
  section "remove and purge" remove_and_purge
  if [[ ! $only_hosts ]]; then
    # shellcheck source=deploy/packages/foreign.sh
    source "$ROOT_DIR/deploy/packages/foreign.sh"
    section "arm64, under qemu" foreign_arm64
    section "rpm" foreign_rpm
  fi
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

section() {
  local since=$SECONDS
  printf '== %s\n' "$1"
  "$2"
  printf '   %d s\n' $((SECONDS - since))
}

# expect WHAT COMMAND…: what it printed is shown when it fails, and stays in $HOSTS_DIR/said for the next one.
expect() {
  local what=$1
  shift
  if [[ -e $HOSTS_DIR/output ]]; then cp "$HOSTS_DIR/output" "$HOSTS_DIR/said"; fi
  if "$@" >"$HOSTS_DIR/output" 2>&1 </dev/null; then
    printf 'ok      %s\n' "$what"
    passed=$((passed + 1))
  else
    printf 'FAILED  %s\n' "$what"
    tail -n 30 "$HOSTS_DIR/output" | sed 's/^/        /'
    failed=$((failed + 1))
  fi
}

refused() { ! "$@"; }

exits() {
  local wanted=$1 code=0
  shift
  "$@" || code=$?
  echo "exit code $code, wanted $wanted"
  ((code == wanted))
}

# --- packages and hosts ----------------------------------------------------------------------------------------------

find_packages() {
  local name
  ARCH=$(dpkg --print-architecture)
  VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$ROOT_DIR/Cargo.toml")
  for name in ddc ddc-gssapi; do
    [[ -f $PACKAGES/${name}_$VERSION-1_$ARCH.deb ]] ||
      die "$EX_UNAVAILABLE" "there is no $PACKAGES/${name}_$VERSION-1_$ARCH.deb; run make dist first"
  done
}

# The same program, packed as an older version: what an upgrade starts from.
make_older() {
  local work=$HOSTS_DIR/older
  mkdir -p "$work/tree"
  dpkg-deb -R "$PACKAGES/ddc_$VERSION-1_$ARCH.deb" "$work/tree"
  sed -i 's/^Version: .*/Version: 0.0.9-1/' "$work/tree/DEBIAN/control"
  dpkg-deb --root-owner-group -Zgzip -z1 -b "$work/tree" "$work/ddc_0.0.9-1_$ARCH.deb" >/dev/null
  rm -rf "$work/tree"
}

make_hosts() {
  local host kafka
  kafka=$("$ROOT_DIR/deploy/kafka-dev/kafka.sh" fetch 4)
  for host in source destination; do
    host_add "$host" --root java --bind "$ROOT_DIR:/srv/ddc" --bind "$kafka:/root/.cache/ddc/${kafka##*/}"
    host_copy "$host" "$HOSTS_DIR/older/ddc_0.0.9-1_$ARCH.deb" /root/
    mkdir "$(host_root "$host")/root/newer"
    host_copy "$host" "$PACKAGES/ddc_$VERSION-1_$ARCH.deb" "$PACKAGES/ddc-gssapi_$VERSION-1_$ARCH.deb" /root/newer/
  done
  host_link source diode0 destination diode0
  host_boot source destination
  addresses
}

addresses() {
  host_run source ip address add 198.18.0.1/30 dev diode0
  host_run destination ip address add 198.18.0.2/30 dev diode0
  host_run source ip link set diode0 up
  host_run destination ip link set diode0 up
}

# In the background of a host, with everything ended by the host.
start_unit() { host_run "$1" systemd-run --quiet --collect --unit="$2" --setenv=HOME=/root "${@:3}"; }

start_broker() {
  start_unit "$1" kafka /srv/ddc/deploy/kafka-dev/kafka.sh run broker 4 9092
  host_run "$1" /srv/ddc/deploy/kafka-dev/kafka.sh wait 9092 --timeout 200
}

kafka_tool() { host_run "$1" /srv/ddc/deploy/kafka-dev/kafka.sh tool 4 "${@:2}"; }

start_feed() {
  host_run source mkfifo /root/feed
  start_unit source producer bash -c 'exec 3<>/root/feed; /srv/ddc/deploy/kafka-dev/kafka.sh tool 4 \
    org.apache.kafka.tools.ConsoleProducer --bootstrap-server 127.0.0.1:9092 --topic orders --timeout 20 <&3'
}

start_reader() {
  start_unit destination reader bash -c 'exec /srv/ddc/deploy/kafka-dev/kafka.sh tool 4 \
    org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server 127.0.0.1:9092 --topic orders --from-beginning \
    >>/root/records 2>/root/reader.errors'
}

# Records with numbers never used before are written at the source and must all be readable at the destination.
cross() {
  local count=$1 seconds=${2:-120} first=$((sent + 1))
  sent=$((sent + count))
  host_run source bash -c "seq -f 'record %.0f' $first $sent >/root/feed"
  host_wait "$seconds" destination bash -c \
    "((\$(comm -12 <(seq -f 'record %.0f' $first $sent | sort) <(sort -u /root/records) | wc -l) == $count))" ||
    { host_run destination bash -c 'wc -l /root/records; tail -n 3 /root/records /root/reader.errors'; return 1; }
}

# metric HOST PORT NAME: the sum of its series.
metric() {
  host_run "$1" python3 -c 'import sys, urllib.request
page = urllib.request.urlopen("http://127.0.0.1:%s/metrics" % sys.argv[1], timeout=5).read().decode()
values = [line.rsplit(" ", 1)[1] for line in page.splitlines() if line.split("{")[0].split(" ")[0] == sys.argv[2]]
print(int(sum(map(float, values))) if values else "none")' "$2" "$3"
}

show() { host_run "$1" systemctl show --property "$3" --value "$2"; }

active() { host_run "$1" systemctl is-active --quiet "$2"; }

# journal HOST UNIT PATTERN: the unit's own messages and systemd's about it.
journal() {
  host_run "$1" journalctl --no-pager --quiet -o cat --unit "$2" | grep -E "$3" ||
    { host_run "$1" journalctl --no-pager --quiet -o cat -n 15 --unit "$2"; return 1; }
}

# --- the sections ----------------------------------------------------------------------------------------------------

fresh_host() {
  local host
  for host in source destination; do
    manual_lines "$host" >"$HOSTS_DIR/$host.sh"
    expect "$host: the manual has $(grep -c . "$HOSTS_DIR/$host.sh") lines, ten at most" test "$(grep -c . "$HOSTS_DIR/$host.sh")" -ge 5 -a \
      "$(grep -c . "$HOSTS_DIR/$host.sh")" -le 10
    head -n 1 "$HOSTS_DIR/$host.sh" >"$HOSTS_DIR/$host-install.sh"
    expect "$host: its first line installs" run_lines "$host" "$host-install.sh"
    sed -n 's/^ddc: /        says: /p' "$HOSTS_DIR/output"
  done
  expect "the user ddc cannot log in" host_run source grep -E '^ddc:x:[0-9]+:[0-9]+:.*:/usr/sbin/nologin$' /etc/passwd
  expect "keys are for root alone" test "$(host_run source stat -c '%U:%G %a' /etc/ddc/credentials)" = 'root:root 700'
  expect "state is for ddc" test "$(host_run source stat -c '%U:%G %a' /var/lib/ddc)" = 'root:ddc 750'
  expect "nothing is enabled" test -z "$(host_run source bash -c 'find /etc/systemd/system -name "ddc-*"')"
  expect "nothing runs" test -z "$(host_run source systemctl list-units --all --plain --no-legend 'ddc-*')"
  expect "a user without rights can ask for the version" host_run source setpriv --reuid nobody --clear-groups ddc version
  expect "the manual, completions and examples are there" host_run source test -s /usr/share/man/man1/ddc.1.gz -a \
    -s /usr/share/bash-completion/completions/ddc -a -s /usr/share/doc/ddc/examples/ingress.toml
  expect "systemd finds no fault in the units" host_run source systemd-analyze verify --man=no "$INGRESS.service" "$EGRESS.service"
  for host in ingress egress; do
    expect "exposure of $host: $(exposure "$host")" host_run source systemd-analyze security --offline=true --threshold=15 \
      "/usr/lib/systemd/system/ddc-$host@.service"
  done
}

exposure() { host_run source systemd-analyze security --offline=true "/usr/lib/systemd/system/ddc-$1@.service" 2>/dev/null | sed -n 's/.*: \([0-9.]*\) .*/\1/p'; }

# The lines of docs/install-packages.md are the test: what a reader copies is what runs.
manual_lines() {
  awk -v side="$1" '$0 == "<!-- run on the " side " -->" { wanted = 1; next } wanted && /^```/ { if (inside) exit; inside = 1; next } inside' \
    "$ROOT_DIR/docs/install-packages.md"
}

by_hand() {
  local side
  for side in source destination; do
    expect "$side: a broker" start_broker "$side"
  done
  ((failed == 0)) || die "$EX_UNAVAILABLE" "without brokers there is nothing to see; the log: /root/.local/state/ddc/kafka/broker/broker.log in the host"
  expect "a topic at the source" kafka_tool source org.apache.kafka.tools.TopicCommand --bootstrap-server 127.0.0.1:9092 \
    --create --topic orders --partitions 1
  INSTALLED=$SECONDS
  # The key is made at the source and carried by hand.
  expect "source: the lines run" run_lines source source.sh
  expect "the key is carried to the destination" carry_key
  expect "destination: the lines run" run_lines destination destination.sh
  manual_lines "source, last" >"$HOSTS_DIR/last.sh"
  expect "source: the last line runs" run_lines source last.sh
}

run_lines() { [[ -s $HOSTS_DIR/$2 ]] && { printf 'cd /root\nset -x\n' && cat "$HOSTS_DIR/$2"; } | host_run "$1" bash -eo pipefail; }

carry_key() { host_run source cat /etc/ddc/credentials/ingress-$LINK/link.key | host_run destination bash -c 'umask 077; cat >/root/link.key'; }

first_records() {
  expect "the egress runs" host_wait 60 destination systemctl is-active --quiet "$EGRESS"
  expect "the ingress runs" host_wait 60 source systemctl is-active --quiet "$INGRESS"
  start_feed
  start_reader
  expect "1000 records cross" cross 1000
  expect "each once" test "$(host_run destination bash -c 'sort /root/records | uniq -d | wc -l')" = 0
  printf '        %d s from the first line of the manual to the last of 1000 records\n' $((SECONDS - INSTALLED))
  expect "ddc ready, by the admin socket, as a member of the group ddc" host_wait 60 destination setpriv --reuid nobody \
    --regid ddc --clear-groups ddc ready --socket /run/ddc/egress-$LINK/admin.sock
  expect "not as anybody" refused host_run destination setpriv --reuid nobody --regid nogroup --clear-groups ddc ready \
    --socket /run/ddc/egress-$LINK/admin.sock
  expect "ddc top shows the process" host_run source ddc top --once
  expect "systemctl status says ready" host_wait 60 destination bash -c "systemctl status $EGRESS | grep -q 'Status: \"ready\"'"
  expect "no process of ddc is root's" test "$(host_run source ps -o user= -C ddc)" = ddc
}

secrets() {
  expect "the service's user cannot read the keys' directory" refused host_run source setpriv --reuid ddc --regid ddc --clear-groups \
    cat /etc/ddc/credentials/ingress-$LINK/link.key
  expect "nobody cannot read what systemd handed over" refused host_run source setpriv --reuid nobody --clear-groups \
    cat "/run/credentials/$INGRESS.service/link.key"
  expect "the key does not stand in the process's environment" refused host_run source bash -c \
    "grep -qa \"\$(cat /etc/ddc/credentials/ingress-$LINK/link.key)\" /proc/$(show source "$INGRESS" MainPID)/environ"
  expect "nor in the journal" refused host_run source bash -c \
    "journalctl --no-pager | grep -q \"\$(cat /etc/ddc/credentials/ingress-$LINK/link.key)\""
}

reload() {
  local before
  before=$(show source "$INGRESS" MainPID)
  host_run source sed -i 's/^#\?rate = .*/rate = "123Mbit\/s"/' /etc/ddc/ingress-$LINK.toml
  expect "reload" host_run source systemctl reload "$INGRESS"
  expect "the new rate holds" host_wait 60 source python3 -c 'import urllib.request
page = urllib.request.urlopen("http://127.0.0.1:9641/metrics").read().decode()
assert [line for line in page.splitlines() if line.startswith("ddc_ingress_rate_limit") and float(line.split()[-1]) == 123e6]'
  host_run source sed -i 's/^rate = .*/rate = "123 parrots"/' /etc/ddc/ingress-$LINK.toml
  expect "a reload of a wrong file fails" refused host_run source systemctl reload "$INGRESS"
  expect "and the journal says what is wrong" journal source "$INGRESS" 'ingress-plant-a.toml:[0-9]+:.*parrots'
  host_run source sed -i 's/^rate = .*/rate = "800Mbit\/s"/' /etc/ddc/ingress-$LINK.toml
  expect "it is the same process all along" test "$(show source "$INGRESS" MainPID)" = "$before"
  expect "records cross" cross 10
}

# A key in a file of its own, which a reload reads, takes over from the credential, which only a start reads.
new_key() {
  local pids host side new=/etc/ddc/keys/$LINK-2.key
  pids="$(show source "$INGRESS" MainPID) $(show destination "$EGRESS" MainPID)"
  for host in source destination; do host_run "$host" install -d -m 750 -g ddc /etc/ddc/keys; done
  host_run source bash -c "ddc keygen --out $new && chmod 640 $new && chgrp ddc $new" >/dev/null
  host_run source cat "$new" | host_run destination bash -c "umask 027; cat >$new; chgrp ddc $new"
  for side in destination:egress source:ingress; do
    printf '[[link.keys]]\nid = 2\nfile = "%s"\n' "$new" | host_run "${side%:*}" bash -c "cat >>/etc/ddc/${side#*:}-$LINK.toml"
    if [[ $side == source:* ]]; then host_run source sed -i 's/^#active_key = .*/active_key = 2/' /etc/ddc/ingress-$LINK.toml; fi
    expect "${side%:*}: reload with the second key" host_run "${side%:*}" systemctl reload "ddc-${side#*:}@$LINK"
  done
  expect "records cross" cross 10
  # The first block is the old key: without it only the new one can open anything.
  host_run destination bash -c "awk '!done && /^\[\[link.keys\]\]/ { skip = 1 } !skip; skip && /^file = / { skip = 0; done = 1 }' \
    /etc/ddc/egress-$LINK.toml >/root/egress.toml && cat /root/egress.toml >/etc/ddc/egress-$LINK.toml"
  expect "the egress without the old key: reload" host_run destination systemctl reload "$EGRESS"
  expect "its file has one key" test "$(host_run destination grep -c '^\[\[link.keys' /etc/ddc/egress-$LINK.toml)" = 1
  expect "records cross" cross 10
  expect "they are the same processes all along" test "$(show source "$INGRESS" MainPID) $(show destination "$EGRESS" MainPID)" = "$pids"
}

killed_and_hung() {
  local before since
  before=$(show source "$INGRESS" MainPID)
  host_run source systemctl kill --signal=KILL "$INGRESS"
  expect "kill -9: started again" host_wait 60 source bash -c \
    "[[ \$(systemctl show -P MainPID $INGRESS) != $before ]] && systemctl is-active --quiet $INGRESS"
  expect "records cross" cross 10
  before=$(show destination "$EGRESS" MainPID)
  since=$SECONDS
  host_run destination kill -STOP "$before"
  expect "SIGSTOP: the watchdog kills, systemd starts it again" host_wait 90 destination bash -c \
    "[[ \$(systemctl show -P MainPID $EGRESS) != $before ]] && systemctl is-active --quiet $EGRESS"
  printf '        %d s from the standstill to the next start\n' $((SECONDS - since))
  expect "the journal says why" journal destination "$EGRESS" 'Watchdog timeout'
  expect "records cross" cross 10
}

bad_configuration() {
  local file=/etc/ddc/ingress-$LINK.toml
  host_run source systemctl stop "$INGRESS"
  host_run source cp -p "$file" /root/good.toml
  host_run source sed -i 's/^name = .*/nmae = "plant-a"/' "$file"
  expect "a wrong file does not start" refused host_run source systemctl start "$INGRESS"
  expect "exit code 78" test "$(show source "$INGRESS" ExecMainStatus)" = 78
  expect "the journal names file, line and the mend" journal source "$INGRESS" 'ingress-plant-a.toml:[0-9]+:.*nmae.*name'
  sleep 5
  expect "and it is not tried again" test "$(show source "$INGRESS" NRestarts) $(show source "$INGRESS" ActiveState)" = '0 failed'
  host_run source cp -p /root/good.toml "$file"

  host_run source mv /etc/ddc/credentials/ingress-$LINK/link.key /root/away.key
  expect "without its key it does not start" refused host_run source systemctl start "$INGRESS"
  expect "exit code 78" test "$(show source "$INGRESS" ExecMainStatus)" = 78
  expect "the journal names the key file" journal source "$INGRESS" 'link\.key'
  host_run source mv /root/away.key /etc/ddc/credentials/ingress-$LINK/link.key
  expect "an instance without a file says so" refused host_run source systemctl start ddc-ingress@nowhere
  expect "by name" journal source ddc-ingress@nowhere '/etc/ddc/ingress-nowhere.toml'
  expect "right again, it starts" host_run source systemctl start "$INGRESS"
  expect "records cross" cross 10
}

broker_away() {
  local before
  before=$(show destination "$EGRESS" MainPID)
  host_run destination systemctl stop kafka
  expect "the egress says that it is not ready, and why" host_wait 90 destination bash -c \
    "ddc ready --socket /run/ddc/egress-$LINK/admin.sock 2>&1 | grep -i 'not ready'"
  host_run destination ddc ready --socket /run/ddc/egress-$LINK/admin.sock 2>&1 </dev/null | sed 's/^/        /' || true
  expect "systemctl status says it" host_wait 60 destination bash -c "systemctl status $EGRESS | grep 'Status:' | grep -qv '\"ready\"'"
  expect "it stays up" test "$(show destination "$EGRESS" MainPID)" = "$before"
  # Written while the destination has no broker: held in the egress's buffer.
  sent=$((sent + 10))
  host_run source bash -c "seq -f 'record %.0f' $((sent - 9)) $sent >/root/feed"
  expect "the broker comes back" start_broker destination
  host_run destination systemctl restart reader 2>/dev/null </dev/null || start_reader
  expect "ready again" host_wait 60 destination ddc ready --socket /run/ddc/egress-$LINK/admin.sock
  expect "what was sent meanwhile arrives" host_wait 60 destination grep -qx "record $sent" /root/records
  expect "it is the same process all along" test "$(show destination "$EGRESS" MainPID)" = "$before"
}

# Two means of the example drop-in. What this systemd or kernel lacks is said, not passed over.
narrower_network() {
  local drop_in=/etc/systemd/system/$EGRESS.service.d/restrict-network.conf before
  host_run destination mkdir -p "${drop_in%/*}"
  host_run destination cp /usr/share/ddc/systemd/restrict-network.conf "$drop_in"
  host_run destination bash -c "systemctl daemon-reload && systemctl restart $EGRESS"
  expect "with the example's addresses records cross" cross 10
  host_run destination sed -i 's|^IPAddressAllow=198.18.0.0/30|IPAddressAllow=203.0.113.1|' "$drop_in"
  host_run destination bash -c "systemctl daemon-reload && systemctl restart $EGRESS"
  before=$(metric destination $EGRESS_ADMIN ddc_egress_packets_received_total)
  sleep 3
  expect "without the diode's address no datagram reaches the process" test \
    "$(metric destination $EGRESS_ADMIN ddc_egress_packets_received_total)" = "$before"
  host_run destination sed -i -e 's|^IPAddress.*||' -e 's|^RestrictNetworkInterfaces=.*|RestrictNetworkInterfaces=lo|' "$drop_in"
  host_run destination bash -c "systemctl daemon-reload && systemctl restart $EGRESS"
  before=$(metric destination $EGRESS_ADMIN ddc_egress_packets_received_total)
  sleep 3
  if host_run destination systemctl --version | grep -q '+BPF_FRAMEWORK'; then
    expect "without the diode's interface no datagram reaches the process" test \
      "$(metric destination $EGRESS_ADMIN ddc_egress_packets_received_total)" = "$before"
  else
    printf 'NOT PROVEN HERE: RestrictNetworkInterfaces; %s is built without BPF_FRAMEWORK\n' \
      "$(host_run destination systemctl --version | head -n 1)"
    expect "this systemd ignores it, as the manual says" test \
      "$(metric destination $EGRESS_ADMIN ddc_egress_packets_received_total)" -gt "$before"
  fi
  host_run destination rm -r "${drop_in%/*}"
  host_run destination bash -c "systemctl daemon-reload && systemctl restart $EGRESS"
  expect "without the drop-in they cross again" cross 10
}

upgrade() {
  local before sums
  sums=$(host_run source bash -c 'find /etc/ddc -type f -exec sha256sum {} + | sort')
  before=$(show source "$INGRESS" MainPID)
  expect "source: from 0.0.9, the instance runs" host_run source dpkg -i "/root/newer/ddc_$VERSION-1_$ARCH.deb"
  expect "it was restarted" test "$(show source "$INGRESS" MainPID)" != "$before"
  expect "and runs" active source "$INGRESS"
  expect "configuration and keys are as they were" test "$(host_run source bash -c 'find /etc/ddc -type f -exec sha256sum {} + | sort')" = "$sums"
  host_run destination touch /etc/ddc/no-restart
  before=$(show destination "$EGRESS" MainPID)
  expect "destination: with /etc/ddc/no-restart" host_run destination dpkg -i "/root/newer/ddc_$VERSION-1_$ARCH.deb"
  expect "dpkg's output says that it was not restarted" grep "until you restart: $EGRESS" "$HOSTS_DIR/said"
  expect "nor was it" test "$(show destination "$EGRESS" MainPID)" = "$before"
  host_run destination rm /etc/ddc/no-restart
  host_run destination systemctl stop "$EGRESS"
  expect "the same version again, the instance stopped" host_run destination dpkg -i "/root/newer/ddc_$VERSION-1_$ARCH.deb"
  expect "a stopped instance stays stopped" refused active destination "$EGRESS"
  host_run destination systemctl start "$EGRESS"
  expect "records cross" cross 10
}

exchange() {
  local before
  before=$(show source "$INGRESS" MainPID)
  expect "ddc-gssapi takes the place of ddc" host_run source dpkg -i "/root/newer/ddc-gssapi_$VERSION-1_$ARCH.deb"
  expect "its program has GSSAPI" host_run source bash -c "ddc version --json | grep '\"sasl_gssapi\":true'"
  expect "the instance runs it" bash -c "[[ $(show source "$INGRESS" MainPID) != $before ]]"
  expect "ddc is gone" refused host_run source bash -c "dpkg-query --show --showformat '\${db:Status-Status}' ddc | grep -qx installed"
  host_run source dpkg --purge ddc >"$HOSTS_DIR/output" 2>&1 </dev/null || true
  expect "purging what is left of ddc takes nothing" host_run source test -s /etc/ddc/ingress-$LINK.toml -a -s /etc/ddc/credentials/ingress-$LINK/link.key
  expect "records cross" cross 10
  expect "and back: ddc" host_run source dpkg -i "/root/newer/ddc_$VERSION-1_$ARCH.deb"
  expect "its program has none" host_run source bash -c "ddc version --json | grep '\"sasl_gssapi\":false'"
  expect "records cross" cross 10
}

reboot() {
  host_reboot source destination
  # The egress's address is not there yet: it tries again until it is.
  expect "the enabled egress tries" host_wait 60 destination bash -c "((\$(systemctl show -P NRestarts $EGRESS) > 0))"
  addresses
  expect "and runs once its interface has the address" host_wait 60 destination systemctl is-active --quiet "$EGRESS"
  expect "the enabled ingress runs after a reboot" host_wait 60 source systemctl is-active --quiet "$INGRESS"
  expect "brokers" eval 'start_broker source && start_broker destination'
  host_run source rm -f /root/feed
  start_feed
  start_reader
  expect "records cross" cross 10
}

remove_and_purge() {
  expect "remove" host_run destination dpkg --remove ddc
  sed -n 's/^ddc: /        says: /p' "$HOSTS_DIR/output"
  expect "the instance was stopped" refused active destination "$EGRESS"
  expect "nothing of ddc runs" refused host_run destination pgrep -x ddc
  expect "the program is gone" refused host_run destination test -e /usr/bin/ddc
  expect "configuration, keys and state are there" host_run destination test -s /etc/ddc/egress-$LINK.toml -a \
    -s /etc/ddc/credentials/egress-$LINK/link.key -a -d /var/lib/ddc/egress-$LINK
  expect "purge" host_run destination dpkg --purge ddc
  sed -n 's/^ddc: /        says: /p' "$HOSTS_DIR/output"
  # The journal, dpkg's own log, and what the test put there are no part of the package.
  expect "nothing is left but the user" nothing_left
  expect "the user stays" host_run destination getent passwd ddc
  expect "no unit is left in systemd" test -z "$(host_run destination systemctl list-units --all --plain --no-legend 'ddc-*')"
}

nothing_left() {
  local left
  left=$(host_run destination find / -xdev \( -path /proc -o -path /sys -o -path /srv -o -path /root -o -path /etc/ssl \) -prune -o -name '*ddc*' -print)
  printf 'left: %s\n' "$left"
  [[ -z $left ]]
}

main "$@"
