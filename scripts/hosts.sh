#!/usr/bin/env bash
# Test hosts: Debian 12 machines booted with their own systemd (systemd-nspawn), joined by virtual cables.
#
# Source it after lib.sh, and call hosts_init first. Needs root, mmdebstrap, systemd-nspawn, ip, python3; no network
# once the roots are in the cache. Tried with one overlay per host on tmpfs: a boot takes about a second.
#
#   source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
#   source "$ROOT_DIR/scripts/hosts.sh"
#   hosts_init "$@"
#   host_add source; host_add destination          # not booted yet: files and cables can be put in place
#   host_link source diode0 destination diode0     # a cable; a filtering bridge is nowhere
#   host_copy destination dist/packages/ddc.deb /root/
#   host_boot source destination
#   host_run destination dpkg -i /root/ddc.deb
#
# hosts_init "$@"            Runs the calling script again, with these arguments, in mount and process namespaces of its
#                            own, and returns there. Everything (hosts, cables, files) ends with the script, also when
#                            it is killed with SIGKILL. So: call it before anything is started. In there the script has
#                            process id 1, and $HOSTS_DIR (on tmpfs) is a directory for its own files.
# host_add NAME [OPTION…]    Makes a host that is not booted. Its files lie below $(host_root NAME).
#     --root base|java         which cached root (default base; java = base and a Java 17 for brokers)
#     --bind FILE:PATH         PATH in the host shows FILE or directory FILE of here, read-only; may be repeated
# host_netns NAME            Makes a place that has a network and no system of its own: a controller, a wiretap.
#                            host_link and host_run work with it; its files are those of this machine.
# host_link A IFACE_A B IFACE_B   A cable. Both ends exist, down and without addresses. Names ≤ 15 characters.
#     host_link controller-a to-source source mgmt0
#     host_run controller-a ip address add 198.18.1.1/30 dev to-source
#     host_run controller-a ip link set to-source up
# host_boot NAME…            Boots (adds first what was not added); returns when systemd says running or degraded.
# host_run NAME COMMAND…     Runs it as root in the host (no shell: host_run a bash -c '…'). Standard input goes along:
#                            in a loop that reads, add </dev/null. Exit code is the command's.
# host_copy NAME FILE… PATH  Copies into the host's disk, booted or not, owned by root. Not below /run or /tmp, which are
#                            mounts of the running host: pipe into host_run for those.
# host_root NAME             Prints the directory that is the host's / (to write and read files directly).
# host_stop NAME…            Powers off as an operator would.
# host_kill NAME…            Power cut: every process at once, no shutdown.
# host_reboot NAME…          host_stop (if it runs), then a boot with a new network stack: addresses, rules, sysctls and
#                            link flags are gone as after a real reboot. Cables stay plugged in: the other end sees the
#                            carrier go and come back, and its listeners go on.
# host_wait SECONDS NAME COMMAND…   Repeats COMMAND in the host until it succeeds; fails after SECONDS.
# host_journal NAME [ARG…]   journalctl of the host, without pager.
# host_frames_start LABEL NAME IFACE   Begins to count the frames that arrive at this end of a cable, that is all that
#                            leaves the other end: ARP, LLDP, anything. Give the far end, and set it up before.
# host_frames_count LABEL    Prints how many came since the start. Counted by the kernel for the interface (rx_packets).
# host_frames_show LABEL     Prints what they were, one line each: seconds, bytes, from, to, EtherType, summary.
# host_frames_stop LABEL     Ends it and prints the count.
#
# As a command: hosts.sh root base|java   makes the cached root and prints its path
#               hosts.sh check            boots two hosts and proves what is said above
set -euo pipefail
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  # shellcheck source=scripts/lib.sh
  source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
fi
# shellcheck source=scripts/roots.sh
source "$(dirname "${BASH_SOURCE[0]}")/roots.sh"

# What every host has. libssl3, libsasl2-2 and zlib1g are what a dynamic ddc needs.
HOSTS_BASE=systemd,systemd-sysv,dbus,python3,openssh-server,nftables,iproute2,iputils-ping,procps,kmod,chrony
HOSTS_BASE+=,ca-certificates,libssl3,libsasl2-2,zlib1g,sudo,rsyslog,logrotate
HOSTS_JAVA=$HOSTS_BASE,openjdk-17-jre-headless
# The hosts' disks together, in memory.
HOSTS_SIZE=${HOSTS_SIZE:-8G}
HOSTS_BOOT_TIMEOUT=90

hosts_init() {
  local tool
  require_root "it boots hosts with systemd-nspawn"
  for tool in systemd-nspawn:systemd-container ip:iproute2 python3:python3 setpriv:util-linux unshare:util-linux \
    nsenter:util-linux mmdebstrap:mmdebstrap; do
    have "${tool%%:*}" || die "$EX_UNAVAILABLE" "${tool%%:*} is missing; run: apt-get install ${tool#*:}"
  done
  if [[ ${HOSTS_INSIDE:-} != 1 || $$ != 1 ]]; then
    hosts_enter "$@"
  fi
  unset HOSTS_INSIDE

  # Nothing below is seen outside, and all of it goes with the namespace.
  HOSTS_DIR=/run/ddc-hosts
  mkdir -p /run/netns "$HOSTS_DIR"
  mount -t tmpfs -o mode=755 tmpfs /run/netns
  mount -t tmpfs -o "mode=755,size=$HOSTS_SIZE" tmpfs "$HOSTS_DIR"
  mkdir "$HOSTS_DIR/hosts" "$HOSTS_DIR/frames"
  if [[ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup ||
      die "$EX_UNAVAILABLE" "this kernel does not let cgroup2 be mounted, which booted hosts need"
  fi
  hosts_make_cgroup
  trap hosts_end EXIT
}

# Runs the script again inside. SIGKILL of the outer shell reaches unshare (pdeathsig), whose end kills process 1 of the
# namespace (kill-child) and so everything in it. unshare itself would sit out a SIGTERM.
hosts_enter() {
  local child code=0 script
  script=$(realpath "$0")
  HOSTS_INSIDE=1 setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
    --propagation private -- bash "$script" "$@" <&0 &
  child=$!
  trap 'kill -KILL "$child" 2>/dev/null || true' HUP INT TERM
  wait "$child" || code=$?
  exit "$code"
}

# A group per script, and in it one per host. Directories of scripts that were killed are removed by the next one.
hosts_make_cgroup() {
  local group lock
  mkdir -p "$CACHE_DIR/roots"
  exec {lock}>"$CACHE_DIR/roots/.cgroup.lock"
  flock "$lock"
  for group in /sys/fs/cgroup/ddc-hosts.*; do
    if [[ -d $group ]] && grep -qx 'populated 0' "$group/cgroup.events"; then hosts_remove_cgroup "$group"; fi
  done
  HOSTS_CGROUP=$(mktemp -d /sys/fs/cgroup/ddc-hosts.XXXXXX)
  mkdir "$HOSTS_CGROUP/script"
  echo $$ >"$HOSTS_CGROUP/script/cgroup.procs"
  exec {lock}>&-
}

hosts_remove_cgroup() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true; }

# Ends all hosts at once. Runs at the script's end; a script with an EXIT trap of its own calls it there.
hosts_end() {
  local directory
  for directory in "$HOSTS_DIR"/hosts/*; do
    if [[ -d $directory ]]; then host_kill "${directory##*/}"; fi
  done
  echo $$ >/sys/fs/cgroup/cgroup.procs 2>/dev/null || true
  hosts_remove_cgroup "$HOSTS_CGROUP"
}

hosts_root() {
  case $1 in
    base) cached_root base "$HOSTS_BASE" ;;
    java) cached_root java "$HOSTS_JAVA" ;;
    *) die "$EX_USAGE" "there is no root \`$1\`; there are base and java" ;;
  esac
}

# --- making hosts and cables ------------------------------------------------------------------------------------------

host_add() {
  local name=$1 root=base directory=$HOSTS_DIR/hosts/$1 lower
  shift
  host_netns "$name"
  : >"$directory/binds"
  while (($#)); do
    case $1 in
      --root) root=$2 ;;
      --bind) printf '%s\n' "--bind-ro=$2" >>"$directory/binds" ;;
      *) die "$EX_USAGE" "host_add: unknown option \`$1\`" ;;
    esac
    shift 2
  done
  lower=$(hosts_root "$root")
  mkdir "$directory/upper" "$directory/work" "$directory/root"
  mount -t overlay -o "lowerdir=$lower,upperdir=$directory/upper,workdir=$directory/work" overlay "$directory/root"
  printf '%s\n' "$name" >"$directory/root/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$name" >"$directory/root/etc/hosts"
  # Each host gets an identity of its own at its first boot, and none can ask a name server.
  : >"$directory/root/etc/machine-id"
  rm -f "$directory/root/etc/resolv.conf"
  : >"$directory/root/etc/resolv.conf"
}

host_netns() {
  local name=$1
  [[ $name =~ ^[a-z][a-z0-9-]*$ ]] || die "$EX_USAGE" "host name \`$name\`: a-z, 0-9 and - only"
  [[ ! -e $HOSTS_DIR/hosts/$name ]] || die "$EX_USAGE" "host \`$name\` exists already"
  mkdir "$HOSTS_DIR/hosts/$name"
  hosts_new_netns "$name" 1
}

hosts_new_netns() {
  ip netns add "$1.$2"
  ip -n "$1.$2" link set lo up
  printf '%s\n' "$2" >"$HOSTS_DIR/hosts/$1/generation"
}

# The network namespace of a host, as ip -n wants it.
host_netns_name() {
  [[ -d $HOSTS_DIR/hosts/$1 ]] || die "$EX_USAGE" "there is no host \`$1\`; host_add or host_netns makes one"
  printf '%s.%s\n' "$1" "$(<"$HOSTS_DIR/hosts/$1/generation")"
}

host_link() {
  local a b
  a=$(host_netns_name "$1")
  b=$(host_netns_name "$3")
  ip -n "$a" link add name "$2" type veth peer name "$4" netns "$b"
}

host_root() { printf '%s\n' "$HOSTS_DIR/hosts/$1/root"; }

host_copy() {
  local name=$1 target=${!#}
  case $target in
    /run | /run/* | /tmp | /tmp/*) die "$EX_USAGE" "host_copy: $target is a mount of the running host; pipe into host_run" ;;
    /*) ;;
    *) die "$EX_USAGE" "host_copy: \`$target\` is not an absolute path" ;;
  esac
  cp -r --preserve=mode,timestamps "${@:2:$#-2}" "$(host_root "$name")$target"
}

# --- running them -----------------------------------------------------------------------------------------------------

host_boot() {
  local name
  for name in "$@"; do
    [[ -d $HOSTS_DIR/hosts/$name ]] || host_add "$name"
    hosts_start "$name"
  done
  for name in "$@"; do hosts_await_boot "$name"; done
}

hosts_start() {
  local name=$1 directory=$HOSTS_DIR/hosts/$1 binds
  [[ -d $directory/root ]] || die "$EX_USAGE" "\`$name\` is a bare network (host_netns), it cannot boot"
  ! host_is_up "$name" || die "$EX_USAGE" "host \`$name\` is up already"
  mapfile -t binds <"$directory/binds"
  mkdir -p "$HOSTS_CGROUP/$name"
  (
    # In a group of its own, where nspawn makes the host's.
    echo "$BASHPID" >"$HOSTS_CGROUP/$name/cgroup.procs"
    # nspawn stands in the host's network from the start, so that the host's /sys and /proc/sys show that one.
    exec nsenter --net="/run/netns/$(host_netns_name "$name")" env -i PATH="$PATH" \
      SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_SECCOMP=0 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn \
      --quiet --register=no --keep-unit --settings=no --link-journal=no --resolv-conf=off --timezone=off \
      --directory="$directory/root" --machine="$name" --capability=CAP_NET_ADMIN,CAP_NET_RAW "${binds[@]}" \
      --console=read-only --boot systemd.unit=multi-user.target
  ) </dev/null >"$directory/console" 2>&1 &
  printf '%s\n' "$!" >"$directory/nspawn"
}

hosts_await_boot() {
  local name=$1 directory=$HOSTS_DIR/hosts/$1 until=$((SECONDS + HOSTS_BOOT_TIMEOUT)) state='' leader
  while ((SECONDS < until)); do
    host_is_up "$name" || break
    # nspawn's child is the host's process 1, once that is systemd.
    leader=$(pgrep -P "$(<"$directory/nspawn")" -x systemd || true)
    if [[ $leader ]]; then
      printf '%s\n' "$leader" >"$directory/leader"
      state=$(host_run "$name" systemctl is-system-running 2>/dev/null </dev/null || true)
      case $state in running | degraded) return 0 ;; esac
    fi
    sleep 0.1
  done
  say "host \`$name\` did not boot (state: ${state:-none}); its console:"
  say "$(tail -n 40 "$directory/console")"
  if [[ $state ]]; then say "$(host_run "$name" systemctl list-jobs --no-pager </dev/null 2>&1)"; fi
  return 1
}

host_is_up() {
  [[ -e $HOSTS_DIR/hosts/$1/nspawn ]] && kill -0 "$(<"$HOSTS_DIR/hosts/$1/nspawn")" 2>/dev/null
}

host_run() {
  local name=$1 directory=$HOSTS_DIR/hosts/$1
  shift
  if [[ ! -d $directory/root ]]; then
    ip netns exec "$(host_netns_name "$name")" "$@"
    return
  fi
  if ! host_is_up "$name" || [[ ! -e $directory/leader ]]; then
    say "host \`$name\` is not up; host_boot $name"
    return "$EX_UNAVAILABLE"
  fi
  nsenter --target "$(<"$directory/leader")" --all --root --wd -- env -i HOME=/root USER=root LOGNAME=root \
    LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

host_wait() {
  local until=$((SECONDS + $1)) name=$2
  shift 2
  until host_run "$name" "$@" >/dev/null 2>&1 </dev/null; do
    if ((SECONDS >= until)); then
      say "host \`$name\`: not in time: $*"
      return 1
    fi
    sleep 0.2
  done
}

host_journal() {
  local name=$1
  shift
  host_run "$name" journalctl --no-pager -o short-monotonic "$@" </dev/null
}

host_stop() {
  local name until
  for name in "$@"; do
    if host_is_up "$name"; then host_run "$name" systemctl poweroff --no-block </dev/null >/dev/null 2>&1 || true; fi
  done
  for name in "$@"; do
    until=$((SECONDS + 100))
    while host_is_up "$name" && ((SECONDS < until)); do sleep 0.1; done
    ! host_is_up "$name" || say "host \`$name\` did not power off within 100 s; killed"
    host_kill "$name"
  done
}

host_kill() {
  local name directory pid
  for name in "$@"; do
    directory=$HOSTS_DIR/hosts/$name
    [[ -e $directory/nspawn ]] || continue
    pid=$(<"$directory/nspawn")
    # The group holds nspawn and all that runs in the host, and nothing else.
    if [[ -e $HOSTS_CGROUP/$name/cgroup.kill ]]; then echo 1 >"$HOSTS_CGROUP/$name/cgroup.kill"; fi
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    rm -f "$directory/nspawn" "$directory/leader"
    hosts_remove_cgroup "$HOSTS_CGROUP/$name"
  done
}

host_reboot() {
  local name old new link
  host_stop "$@"
  for name in "$@"; do
    old=$(host_netns_name "$name")
    hosts_new_netns "$name" "$(($(<"$HOSTS_DIR/hosts/$name/generation") + 1))"
    new=$(host_netns_name "$name")
    for link in $(ip -n "$old" -o link show type veth | awk -F ': ' '{ sub(/@.*/, "", $2); print $2 }'); do
      ip -n "$old" link set dev "$link" down
      ip -n "$old" link set dev "$link" netns "$new"
      ip -n "$new" link set dev "$link" arp on multicast on allmulticast off promisc off mtu 1500
    done
    ip netns delete "$old"
  done
  host_boot "$@"
}

# --- counting frames ----------------------------------------------------------------------------------------------------

host_frames_start() {
  local label=$1 netns interface=$3 directory=$HOSTS_DIR/frames/$1
  netns=$(host_netns_name "$2")
  rm -rf "$directory"
  mkdir "$directory"
  printf '%s %s\n' "$2" "$interface" >"$directory/where"
  # -u and the marker: when this returns, the listener sees.
  nsenter --net="/run/netns/$netns" python3 -u -c "$HOSTS_LISTENER" "$interface" >"$directory/frames" \
    2>"$directory/errors" </dev/null &
  printf '%s\n' "$!" >"$directory/listener"
  until grep -qs '^listening' "$directory/frames"; do
    if ! kill -0 "$(<"$directory/listener")" 2>/dev/null; then
      say "cannot listen at $2 $interface: $(tail -n 1 "$directory/errors")"
      return 1
    fi
    sleep 0.05
  done
  hosts_received "$label" >"$directory/before"
}

# rx_packets of a veth end = what the other end sent, whatever it was and however it was sent.
hosts_received() {
  local name interface
  read -r name interface <"$HOSTS_DIR/frames/$1/where"
  ip -n "$(host_netns_name "$name")" -statistics link show dev "$interface" | awk 'rx { print $2; exit } / RX:/ { rx = 1 }'
}

host_frames_count() { printf '%d\n' $(($(hosts_received "$1") - $(<"$HOSTS_DIR/frames/$1/before"))); }

host_frames_show() { grep -v '^listening' "$HOSTS_DIR/frames/$1/frames" || true; }

host_frames_stop() {
  host_frames_count "$1"
  kill "$(<"$HOSTS_DIR/frames/$1/listener")" 2>/dev/null || true
}

# A packet socket for every EtherType; what this end sends itself (PACKET_OUTGOING) is left out.
# shellcheck disable=SC2016 # Python
HOSTS_LISTENER='
import socket, sys, time
KINDS = {0x0800: "IPv4", 0x0806: "ARP", 0x86dd: "IPv6", 0x88cc: "LLDP", 0x8100: "VLAN"}
PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 0: "hop-by-hop (MLD)"}
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
listener.bind((sys.argv[1], 3))
print("listening", flush=True)
start = time.monotonic()
while True:
    try:
        frame, where = listener.recvfrom(65536)
    except OSError:  # the interface went down; it stays bound
        continue
    if where[2] == 4:
        continue
    kind = int.from_bytes(frame[12:14], "big")
    about = KINDS.get(kind, "")
    if kind == 0x0800 and len(frame) > 33:
        addresses = [".".join(map(str, frame[at : at + 4])) for at in (26, 30)]
        about += " %s %s > %s" % (PROTOCOLS.get(frame[23], frame[23]), *addresses)
    elif kind == 0x86DD and len(frame) > 53:
        about += " " + str(PROTOCOLS.get(frame[20], frame[20]))
    print("%.3f" % (time.monotonic() - start), len(frame), frame[6:12].hex(":"), frame[0:6].hex(":"), "%04x" % kind, about)
'

# --- the check ----------------------------------------------------------------------------------------------------------

hosts_check() {
  local passed=0 failed=0
  host_add left
  host_add right
  host_netns controller
  host_link left diode0 right diode0
  host_link controller to-left left mgmt0
  printf 'a\n' >"$HOSTS_DIR/note"
  host_copy left "$HOSTS_DIR/note" /root/
  host_boot left right
  hosts_expect "both boot to the end" host_wait 30 right systemctl is-system-running
  hosts_expect "a file that was copied is there" host_run left grep -qx a /root/note
  hosts_expect "no unit failed" hosts_no_failed_units
  hosts_expect "exit codes come through" hosts_exit_code_is 3 host_run left bash -c 'exit 3'
  host_run right ip link set diode0 up
  host_frames_start crossing right diode0
  host_run left ip link set diode0 up
  host_run left ip address add 198.18.0.1/30 dev diode0
  host_run left ping -c 1 -W 1 198.18.0.2 >/dev/null || true
  hosts_expect "frames are counted and named" hosts_saw_arp crossing
  host_run left nft add table inet leftover
  host_reboot left
  # shellcheck disable=SC2016 # for the shell in the host
  hosts_expect "after a reboot addresses and rules are gone, files and cables not" host_run left bash -c \
    '[[ -e /root/note && -e /sys/class/net/mgmt0 && -z $(nft list tables) && -z $(ip -4 -o address show dev diode0) ]]'
  host_run controller ip address add 198.18.1.1/30 dev to-left
  host_run controller ip link set to-left up
  host_run left ip address add 198.18.1.2/30 dev mgmt0
  host_run left ip link set mgmt0 up
  hosts_expect "a controller reaches its host over its cable" host_run controller python3 -c \
    'import socket; assert socket.create_connection(("198.18.1.2", 22), 5).recv(4) == b"SSH-"'
  hosts_expect "and not the other host" hosts_exit_code_is 2 host_run controller ip route get 198.18.0.2
  host_kill left
  hosts_expect "a killed host is gone" hosts_exit_code_is "$EX_UNAVAILABLE" host_run left true
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

hosts_expect() {
  local what=$1
  shift
  if "$@" >"$HOSTS_DIR/output" 2>&1 </dev/null; then
    printf 'ok      %s\n' "$what"
    passed=$((passed + 1))
  else
    printf 'FAILED  %s\n' "$what"
    sed 's/^/        /' "$HOSTS_DIR/output"
    failed=$((failed + 1))
  fi
}

hosts_no_failed_units() {
  local units
  units=$(host_run left systemctl list-units --failed --plain --no-legend)
  printf '%s\n' "$units"
  [[ -z $units ]]
}

hosts_exit_code_is() {
  local wanted=$1 code=0
  shift
  "$@" || code=$?
  ((code == wanted))
}

hosts_saw_arp() { (($(host_frames_count "$1") > 0)) && host_frames_show "$1" | grep -q ARP; }

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  case ${1:-} in
    root) hosts_root "${2:-base}" ;;
    check)
      hosts_init "$@"
      hosts_check
      ;;
    *)
      sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
      exit "$EX_USAGE"
      ;;
  esac
fi
