#!/bin/sh
# What the preflight wants to know of this host, as YAML. Reads only; works on a host without DDC.
#
#   host-facts.sh STATE-DIRECTORY INTERFACE…
LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin
state=$1
shift

quoted() { printf '%s' "$1" | tr '\n' ' ' | sed 's/\\/\\\\/g; s/"/\\"/g; s/^/"/; s/$/"/'; }
number() { case $1 in '' | *[!0-9]*) echo -1 ;; *) echo "$1" ;; esac; }

echo "page_size: $(number "$(getconf PAGE_SIZE 2>/dev/null)")"
echo "rmem_max: $(number "$(cat /proc/sys/net/core/rmem_max 2>/dev/null)")"
echo "wmem_max: $(number "$(cat /proc/sys/net/core/wmem_max 2>/dev/null)")"
# The kernel's own word, whoever disciplines the clock.
echo "clock_synchronised: $(timedatectl show -p NTPSynchronized --value 2>/dev/null || echo unknown)"
time_service=none
for service in chrony chronyd systemd-timesyncd ntpsec ntp; do
  if systemctl is-active --quiet "$service" 2>/dev/null; then
    time_service=$service
    break
  fi
done
echo "time_service: $time_service"
echo "systemd: $(number "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')")"
echo "python_apt: $(python3 -c 'import apt_pkg' 2>/dev/null && echo yes || echo no)"
echo "ddc: $(quoted "$(/usr/bin/ddc version 2>/dev/null | head -n 1)")"
echo "vector: $(quoted "$(vector --version 2>/dev/null | head -n 1)")"
# The state's own file system, or that on which it will be made.
while [ ! -d "$state" ]; do state=$(dirname "$state"); done
echo "state_path: $(quoted "$state")"
echo "state_free: $(number "$(df -P -B1 "$state" 2>/dev/null | awk 'NR == 2 { print $4 }')")"
# Asks the kernel, which then drops it again: the egress hook needs 5.16 or a distribution that brought it back.
nft_error=$(nft --check 'add table netdev ddc-check; add chain netdev ddc-check c { type filter hook egress device "lo" priority 0; }' 2>&1)
echo "nft_egress: $(quoted "$nft_error")"
nft_error=$(nft --check 'add table netdev ddc-check; add chain netdev ddc-check c { type filter hook ingress device "lo" priority 0; }' 2>&1)
echo "nft_ingress: $(quoted "$nft_error")"
echo "default_route_interfaces: [$(ip -o route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/"\1"/p' | sort -u | paste -sd ,)]"
# A data diode carries no TCP: an interface that does is another one.
echo "tcp_addresses: [$(ss -H -n -t state established 2>/dev/null | awk '{ print $3 }' | sed 's/:[0-9]*$//; s/[][]//g; s/^::ffff://; s/%.*//' | sort -u | sed 's/.*/"&"/' | paste -sd ,)]"
echo "listening:"
ss -H -l -n -t -u -p 2>/dev/null | awk '{ gsub(/"/, ""); printf "  - {protocol: %s, address: \"%s\", process: \"%s\"}\n", $1, $5, $7 }'
echo "  - {protocol: none, address: none, process: none}"
echo "interfaces:"
echo "  none: {mtu: -1, mtu_maximum: -1, addresses: [], permanent_neighbours: []}"
for interface; do
  [ -e "/sys/class/net/$interface" ] || continue
  mtu=$(number "$(cat "/sys/class/net/$interface/mtu" 2>/dev/null)")
  maximum=$(number "$(ip -d -o link show dev "$interface" 2>/dev/null | sed -n 's/.* maxmtu \([0-9]*\).*/\1/p')")
  addresses=$(ip -o addr show dev "$interface" 2>/dev/null | awk '{ sub(/\/.*/, "", $4); printf "%s\"%s\"", (NR > 1 ? ", " : ""), $4 }')
  neighbours=$(ip -o neigh show dev "$interface" nud permanent 2>/dev/null | awk '{ printf "%s\"%s\"", (NR > 1 ? ", " : ""), $1 }')
  echo "  $(quoted "$interface"): {mtu: $mtu, mtu_maximum: $maximum, addresses: [$addresses], permanent_neighbours: [$neighbours]}"
done
