#!/usr/bin/env bash
# Runs the ARM64 binaries for real, under an emulator: `make test-arm64`. Needs dist/bin (`make dist`), Debian 12, and
# once the network, for the packages of a small ARM64 root.
#
#   units    the tests of the crates without C++ or Kafka, compiled for ARM64, with pages of 4 KiB and 64 KiB
#   static   `ddc demo` of the default binary with pages of 4, 16 and 64 KiB: the page size decides where memory may lie
#   gssapi   `ddc demo` of the dynamic binary with the libraries of an ARM64 Debian
#   lacking  `ddc check` of a configuration with Kerberos: refused by one, accepted by the other
#
# What this cannot show: a real kernel with 64 KiB pages, real ARM64 hardware and its speed. docs/binaries.md says so.
# The last line is the sum: "N passed, M failed".
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/cross.sh
source "$ROOT_DIR/scripts/cross.sh"
# shellcheck source=scripts/roots.sh
source "$ROOT_DIR/scripts/roots.sh"

QEMU=qemu-aarch64-static
STATIC=$ROOT_DIR/dist/bin/ddc-arm64
GSSAPI=$ROOT_DIR/dist/bin/ddc-gssapi-arm64
PURE=(-p ddc-wire -p ddc-fec -p ddc-link -p ddc-progress -p ddc-udp -p ddc-spool -p ddc-telemetry)
# What the emulator's system calls lack, not ARM64: the socket options IP_MULTICAST_IF, SO_RXQ_OVFL and SO_MEMINFO, and
# the path MTU behind a refused datagram. These tests stand on them.
LACKING=(
  broadcast_and_multicast_targets_are_permitted
  a_membership_held_elsewhere_is_enough
  multicast_does_not_arrive_without_a_membership
  multicast_reaches_members_of_its_group_only
  drops_show_with_the_next_datagram
  what_the_queue_drops_is_counted_exactly
  a_datagram_too_large_is_typed_and_the_ones_before_it_are_sent
  unicast_carries_the_mtu_and_refuses_one_byte_more
)
# The libraries the dynamic binary declares, and what they need.
ROOT_PACKAGES=libc6,libssl3,libsasl2-2,libsasl2-modules-gssapi-mit,zlib1g,libgcc-s1
# Emulation takes some twenty times as long: fewer scenarios of the simulator, fewer records, more patience.
export SIM_SCENARIOS=${SIM_SCENARIOS:-20}
RECORDS=3000

PASSED=0 FAILED=0

main() {
  local binary
  cd "$ROOT_DIR"
  for binary in "$STATIC" "$GSSAPI"; do
    [[ -x $binary ]] || die "$EX_UNAVAILABLE" "dist/bin/${binary##*/} is missing; run make dist first"
  done
  require_root "it mounts, in a namespace of its own"
  if [[ ${TEST_ARM64_UNSHARED:-} != "$$" ]]; then
    # exec keeps the process id, which therefore marks the second round.
    TEST_ARM64_UNSHARED=$$ exec unshare --mount --propagation private "${BASH_SOURCE[0]}"
  fi
  cross_packages arm64
  cross_prepare
  WORK=$(mktemp -d)
  trap 'finish' EXIT
  register
  arm64_root

  local page
  for page in 4096 65536; do unit_tests "$page"; done
  for page in 4096 16384 65536; do
    attempt "static demo, pages of $((page / 1024)) KiB" demo -p "$page" "$STATIC"
  done
  # Not with 64 KiB: qemu 7.2 maps the rest of the dynamic loader's last page in steps of the host's 4 KiB, where a kernel
  # gives the whole page; glibc's loader uses all of it and faults. The alignment of our segments is checked by dist.sh.
  for page in 4096 16384; do
    attempt "gssapi demo, pages of $((page / 1024)) KiB" demo -p "$page" -L "$ARM64_ROOT" "$GSSAPI"
  done
  lacking
  attempt 'static loads no name service' names
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

# Some tests start their own program again: the kernel must know who runs it. It has one table for all; ours is an entry
# with a name of its own, seen in this mount namespace, and gone when this script ends.
ENTRY=ddc-test-arm64-$$
BINFMT=/proc/sys/fs/binfmt_misc
register() {
  mountpoint -q "$BINFMT" || mount -t binfmt_misc binfmt_misc "$BINFMT" ||
    die "$EX_UNAVAILABLE" "this kernel has no binfmt_misc; run: modprobe binfmt_misc"
  sed "s/^:[^:]*:/:$ENTRY:/" /usr/lib/binfmt.d/qemu-aarch64.conf >"$BINFMT/register"
}

finish() {
  [[ ! -e $BINFMT/$ENTRY ]] || echo -1 >"$BINFMT/$ENTRY"
  rm -rf "$WORK"
}

# attempt NAME COMMAND…: runs it, counts it, shows its output when it fails.
attempt() {
  local name=$1 since=$SECONDS code=0
  shift
  "$@" >"$WORK/log" 2>&1 </dev/null || code=$?
  if ((code == 0)); then
    PASSED=$((PASSED + 1))
    printf 'ok      %-34s %4d s  %s\n' "$name" $((SECONDS - since)) "$(tail -n 1 "$WORK/note" 2>/dev/null || true)"
  else
    FAILED=$((FAILED + 1))
    printf 'FAILED  %-34s %4d s, exit code %d:\n' "$name" $((SECONDS - since)) "$code"
    tail -n 40 "$WORK/log" | sed 's/^/  | /'
  fi
  rm -f "$WORK/note"
}

# Unpacked, not configured: nothing in it runs but through the emulator that is named here.
arm64_root() {
  local hash
  hash=$(printf '%s %s' "$ROOTS_SUITE" "$ROOT_PACKAGES" | sha256sum | cut -c 1-12)
  ARM64_ROOT=$CACHE_DIR/roots/arm64-$hash
  [[ -d $ARM64_ROOT ]] && return 0
  mkdir -p "$CACHE_DIR/roots"
  rm -rf --one-file-system "$ARM64_ROOT.part"
  debian_root "$ARM64_ROOT.part" "$ROOT_PACKAGES" --variant=extract --arch=arm64 >&2 ||
    die "$EX_UNAVAILABLE" "mmdebstrap could not make an ARM64 root (see above); it needs the package archive of apt"
  mv "$ARM64_ROOT.part" "$ARM64_ROOT"
}

# --- the tests -----------------------------------------------------------------------------------------------------

# unit_tests PAGE: compiled statically, as the product is. Counts every test that cargo ran.
unit_tests() {
  local page=$1 since=$SECONDS code=0 ran failed
  (
    cross_environment static arm64
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$QEMU QEMU_PAGESIZE=$page
    nice "$CROSS_CARGO" test --locked --no-fail-fast "${PURE[@]}" --lib --tests \
      --target aarch64-unknown-linux-gnu --target-dir "$CROSS_TARGET/test" -- "${LACKING[@]/#/--skip=}"
  ) >"$WORK/log" 2>&1 </dev/null || code=$?
  ran=$(results passed) failed=$(results failed)
  PASSED=$((PASSED + ran)) FAILED=$((FAILED + failed))
  printf 'units, pages of %d KiB: %d passed, %d failed, %d not for this emulator, %d s\n' \
    $((page / 1024)) "$ran" "$failed" "${#LACKING[@]}" $((SECONDS - since))
  ((code == 0)) && return 0
  ((failed > 0)) || FAILED=$((FAILED + 1))
  grep -E '^test .* FAILED|panicked|^error' "$WORK/log" | head -n 40 | sed 's/^/  | /' || true
  tail -n 20 "$WORK/log" | sed 's/^/  | /'
}

# results WORD: how many tests passed, or failed, in the log.
results() {
  sed -n "s/^test result: .* \([0-9]*\) $1.*/\1/p" "$WORK/log" | awk '{ sum += $1 } END { print sum + 0 }'
}

# demo OPTIONS-OF-THE-EMULATOR… BINARY: with loss, so that repair is at work; its exit code says whether all arrived.
demo() {
  timeout -k 10 600 nice "$QEMU" "$@" demo --records "$RECORDS" --loss 0.01 --seed 7 --rate 20Mbit/s --timeout 120s
  printf '%s records with 1 %% loss\n' "$RECORDS" >"$WORK/note"
}

# The static binary names the package that has GSSAPI, before anything is opened; the dynamic one accepts the file.
lacking() {
  local directory=$WORK/lacking
  mkdir -m 700 "$directory"
  "$QEMU" "$STATIC" keygen --out "$directory/a.key" >/dev/null
  "$QEMU" "$STATIC" config --side ingress | sed "s|/etc/ddc/keys/plant-a.key|a.key|" >"$directory/plain.toml"
  : >"$directory/ddc.keytab"
  cp "$directory/plain.toml" "$directory/kerberos.toml"
  sed -i 's|^\[source.kafka.security\]$|&\nprotocol = "sasl_plaintext"\nsasl = { mechanism = "GSSAPI" }\n[source.kafka.properties]\n"sasl.kerberos.keytab" = "ddc.keytab"|' \
    "$directory/kerberos.toml"
  attempt 'static accepts what needs nothing' accepts "$directory" plain.toml "$STATIC"
  (umask 077 && printf 'secret\n' >"$directory/password")
  sed 's|^\[source.kafka.security\]$|&\nprotocol = "sasl_ssl"\nsasl = { mechanism = "SCRAM-SHA-512", username = "u", password_file = "password" }|' \
    "$directory/plain.toml" >"$directory/scram.toml"
  attempt 'static accepts SCRAM over TLS' accepts "$directory" scram.toml "$STATIC"
  attempt 'static names ddc-gssapi' refuses "$directory" kerberos.toml "$STATIC"
  attempt 'gssapi accepts Kerberos' accepts "$directory" kerberos.toml -L "$ARM64_ROOT" "$GSSAPI"
}

accepts() (
  cd "$1"
  "$QEMU" "${@:3}" check -c "$2"
)

refuses() (
  local code=0
  cd "$1"
  "$QEMU" "${@:3}" check -c "$2" >said 2>&1 || code=$?
  cat said
  # Its name twice: for the mechanism and for the property.
  ((code == 78)) && (($(grep -c 'package .ddc-gssapi.' said) == 2))
)

# A service of /etc/nsswitch.conf would bring the system's C library into a static program. Here is one that leaves a
# trace when it is loaded; the broker's name is looked up all the same, and not found.
names() {
  local directory=$WORK/names code=0
  mkdir "$directory"
  cat >"$directory/trap.c" <<'C'
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) { _exit(99); }
C
  aarch64-linux-gnu-gcc -shared -fPIC -o "$directory/libnss_ddctrap.so.2" "$directory/trap.c"
  printf 'hosts: ddctrap files dns\n' >"$directory/nsswitch.conf"
  sed 's|^brokers = .*|brokers = ["no-such-host.invalid:9092"]|' "$WORK/lacking/plain.toml" >"$directory/ingress.toml"
  cp -p "$WORK/lacking/a.key" "$directory/a.key"
  (
    cd "$directory"
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --mount --propagation private bash -c '
      mount --bind nsswitch.conf /etc/nsswitch.conf
      exec "$1" -E LD_LIBRARY_PATH="$PWD" "$2" check --connect -c ingress.toml' - "$QEMU" "$STATIC"
  ) || code=$?
  ((code == 69)) || { printf 'exit code %d, not 69\n' "$code"; return 1; }
}

main "$@"
