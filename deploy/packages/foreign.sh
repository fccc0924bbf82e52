# shellcheck shell=bash
# Two sections of test.sh, which sources this file: the arm64 packages in an arm64 Debian root under qemu (nothing is booted
# there), and the rpm in a booted Debian host with rpm put beside (there is no Red Hat root to be had: no dnf resolves
# its dependencies here).

# --- arm64 -------------------------------------------------------------------------------------------------------------

foreign_arm64() {
  local root=$HOSTS_DIR/arm64 lower name
  register_arm64
  lower=$(arm64_root)
  mkdir -p "$root/upper" "$root/work" "$root/root"
  mount -t overlay -o "lowerdir=$lower,upperdir=$root/upper,workdir=$root/work" overlay "$root/root"
  ARM64=$root/root
  mount -t proc proc "$ARM64/proc"
  # shellcheck disable=SC2153 # test.sh sets it
  cp "$PACKAGES/ddc_$VERSION-1_arm64.deb" "$PACKAGES/ddc-gssapi_$VERSION-1_arm64.deb" "$ARM64/root/"

  expect "the root is arm64" test "$(in_arm64 uname -m)" = aarch64
  for name in ddc ddc-gssapi; do
    expect "dpkg -i ${name}_$VERSION-1_arm64.deb" in_arm64 dpkg -i "/root/${name}_$VERSION-1_arm64.deb"
    expect "ddc version" in_arm64 ddc version
    sed 's/^/        /' "$HOSTS_DIR/output"
    expect "its program is for arm64" grep aarch64 "$HOSTS_DIR/said"
    # shellcheck disable=SC2016 # expanded in there
    expect "ddc check takes both example files" in_arm64 bash -euc 'for side in ingress egress; do
      mkdir -p /etc/ddc/credentials/$side-plant-a; cd /etc/ddc/credentials/$side-plant-a
      [[ -e link.key ]] || ddc keygen --out link.key
      CREDENTIALS_DIRECTORY=$PWD ddc check -c /usr/share/doc/ddc/examples/$side.toml; done'
  done
  expect "the user and the directories are there" in_arm64 bash -c 'getent passwd ddc && stat -c "%U:%G %a" /var/lib/ddc | grep -qx "root:ddc 750"'
  expect "purge" in_arm64 dpkg --purge ddc-gssapi ddc
  expect "nothing is left but the user" test -z "$(find "$ARM64" -xdev \( -path "$ARM64/proc" -o -path "$ARM64/root" -o -path "$ARM64/etc/ssl" \) -prune \
    -o -name '*ddc*' -print)"
  umount "$ARM64/proc" "$ARM64"
}

in_arm64() { chroot "$ARM64" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root "$@"; }

# The kernel has one table of foreign formats for all mount namespaces: ours has a name of its own and goes with the test;
# what a killed test left is removed by the next one.
register_arm64() {
  local table=/proc/sys/fs/binfmt_misc file=/usr/lib/binfmt.d/qemu-aarch64.conf old
  [[ $ARCH != arm64 ]] || return 0
  [[ -r $file ]] || die "$EX_UNAVAILABLE" "$file is missing; run: apt-get install qemu-user-static"
  mountpoint -q "$table" || mount -t binfmt_misc binfmt_misc "$table" ||
    die "$EX_UNAVAILABLE" "this kernel has no binfmt_misc; run: modprobe binfmt_misc"
  for old in "$table"/ddc-packages*; do [[ ! -e $old ]] || echo -1 >"$old"; done
  sed 's/^:[^:]*:/:ddc-packages:/' "$file" >"$table/register"
  trap 'unregister_arm64; hosts_end' EXIT
}

unregister_arm64() {
  if [[ -e /proc/sys/fs/binfmt_misc/ddc-packages ]]; then echo -1 >/proc/sys/fs/binfmt_misc/ddc-packages; fi
}

# Made once, under qemu: some minutes.
arm64_root() {
  local packages=systemd,libssl3,libsasl2-2,zlib1g,libgcc-s1 hash directory lock
  hash=$(printf '%s %s\n' "$ROOTS_SUITE" "$packages" | sha256sum | cut -c 1-12)
  directory=$CACHE_DIR/roots/arm64-$hash
  if [[ ! -d $directory ]]; then
    mkdir -p "$CACHE_DIR/roots"
    exec {lock}>"$CACHE_DIR/roots/.arm64.lock"
    flock "$lock"
    if [[ ! -d $directory ]]; then
      say "making the root directory \`arm64\` under qemu (once; some minutes)"
      rm -rf --one-file-system "$directory.part"
      debian_root "$directory.part" "$packages" --arch=arm64 --skip=check/qemu >&2 || {
        rm -rf --one-file-system "$directory.part"
        die "$EX_UNAVAILABLE" "mmdebstrap could not make an arm64 root (see above)"
      }
      mv "$directory.part" "$directory"
    fi
    exec {lock}>&-
  fi
  printf '%s\n' "$directory"
}

# --- rpm ---------------------------------------------------------------------------------------------------------------

foreign_rpm() {
  local machine=x86_64 rpm before
  [[ $ARCH == amd64 ]] || machine=aarch64
  rpm=$PACKAGES/ddc-$VERSION-1.$machine.rpm
  have rpm || die "$EX_UNAVAILABLE" "rpm is missing; run: apt-get install rpm"

  # Into an empty directory, without scripts: files, modes and sums as the package says.
  mkdir "$HOSTS_DIR/empty"
  expect "an empty root takes the files" rpm --root "$HOSTS_DIR/empty" --nodeps --noscripts -i "$rpm"
  expect "rpm -V finds nothing wrong" test -z "$(rpm --root "$HOSTS_DIR/empty" --nodeps --noscripts -V ddc)"
  expect "rpm -e leaves no file" bash -c "rpm --root '$HOSTS_DIR/empty' --nodeps --noscripts -e ddc &&
    ! find '$HOSTS_DIR/empty' -name '*ddc*' | grep ."

  # Into a booted host, with scripts. Debian's rpm and its libraries lie beside; --nodeps, since dpkg installed the rest.
  host_add redhat
  put_rpm redhat
  host_copy redhat "$rpm" /root/
  host_boot redhat
  expect "a booted host: rpm -i" in_redhat -i --nodeps "/root/${rpm##*/}"
  expect "the user and the directories are there" host_run redhat bash -c 'getent passwd ddc && stat -c "%U:%G %a" /var/lib/ddc | grep -qx "root:ddc 750"'
  expect "nothing is enabled, nothing runs" test -z "$(host_run redhat systemctl list-units --all --plain --no-legend 'ddc-*')$(host_run redhat find /etc/systemd/system -name 'ddc-*')"
  expect "an egress is configured and started" host_run redhat bash -euc '
    install -d -m 700 /etc/ddc/credentials/egress-plant-a
    ddc keygen --out /etc/ddc/credentials/egress-plant-a/link.key
    install -m 640 -g ddc /usr/share/doc/ddc/examples/egress.toml /etc/ddc/egress-plant-a.toml
    systemctl enable --now ddc-egress@plant-a'
  before=$(show redhat "$EGRESS" MainPID)
  expect "an upgrade (the same version, by force)" in_redhat -U --force --nodeps "/root/${rpm##*/}"
  expect "restarts the instance" bash -c "[[ $(show redhat "$EGRESS" MainPID) != $before ]]"
  expect "which runs" active redhat "$EGRESS"
  expect "rpm -e" in_redhat -e --nodeps ddc
  sed -n 's/^ddc: /        says: /p' "$HOSTS_DIR/output"
  expect "stops it" refused active redhat "$EGRESS"
  expect "keeps configuration and keys" host_run redhat test -s /etc/ddc/egress-plant-a.toml -a -s /etc/ddc/credentials/egress-plant-a/link.key
  expect "and takes the program" refused host_run redhat test -e /usr/bin/ddc -o -e /usr/lib/systemd/system/ddc-egress@.service
  host_kill redhat
}

in_redhat() { host_run redhat env LD_LIBRARY_PATH=/opt/rpm/lib RPM_CONFIGDIR=/usr/lib/rpm /opt/rpm/rpm "$@"; }

# put_rpm HOST: this machine's rpm with its libraries; both are Debian 12.
put_rpm() {
  local root
  root=$(host_root "$1")
  mkdir -p "$root/opt/rpm/lib"
  cp "$(command -v rpm)" "$root/opt/rpm/rpm"
  ldd "$(command -v rpm)" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | grep -vE '/(libc|libm|libpthread|ld-linux[^/]*)\.so' |
    xargs -I '{}' cp -L '{}' "$root/opt/rpm/lib/"
  cp -r /usr/lib/rpm "$root/usr/lib/"
}
