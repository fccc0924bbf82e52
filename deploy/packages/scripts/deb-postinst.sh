#!/bin/sh
# After unpacking: the user, directories, kernel limits. Instances that run get the new program; nothing is enabled, and
# nothing is started that did not run.
set -e

[ "$1" = configure ] || exit 0

systemd-sysusers ddc.conf
systemd-tmpfiles --create ddc.conf

# A chroot, an image being built: the rest happens at its first boot.
[ -d /run/systemd/system ] || exit 0

# All files of sysctl.d in their order, but only our settings: a larger value of the administrator stays.
/usr/lib/systemd/systemd-sysctl --prefix=/net/core/rmem_max --prefix=/net/core/wmem_max \
  --prefix=/net/core/netdev_max_backlog ||
  echo "ddc: the socket buffer limits could not all be set here; \`ddc check --host\` says what is missing" >&2

systemctl daemon-reload

running=$(systemctl list-units --plain --no-legend --full --state=active,activating,reloading \
  'ddc-ingress@*.service' 'ddc-egress@*.service' | cut -d ' ' -f 1 | tr '\n' ' ')
[ -n "$running" ] || exit 0
if [ -e /etc/ddc/no-restart ]; then
  echo "ddc: /etc/ddc/no-restart exists: still the old program, until you restart: $running"
  exit 0
fi
echo "ddc: restarting $running"
# deb-systemd-invoke asks policy-rc.d, as everything in Debian does. Names, one word each: not quoted.
# shellcheck disable=SC2086
deb-systemd-invoke try-restart $running ||
  echo "ddc: not all of them came up again; see: systemctl status 'ddc-*@*'" >&2
