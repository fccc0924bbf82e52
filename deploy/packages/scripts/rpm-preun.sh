#!/bin/sh
# Before the files go: $1 is 0 at a removal, 1 at an upgrade, which leaves instances running.
[ "$1" = 0 ] || exit 0
[ -d /run/systemd/system ] || exit 0
running=$(systemctl list-units --plain --no-legend --full --state=active,activating,reloading,deactivating \
  'ddc-ingress@*.service' 'ddc-egress@*.service' | cut -d ' ' -f 1 | tr '\n' ' ')
if [ -n "$running" ]; then
  echo "ddc: stopping $running"
  # Names, one word each: not quoted.
  # shellcheck disable=SC2086
  systemctl stop $running
fi
guarded=$(systemctl list-units --plain --no-legend --full --state=active 'ddc-one-way@*.service' | cut -d ' ' -f 1 | tr '\n' ' ')
if [ -n "$guarded" ]; then
  echo "ddc: the one-way rules stay loaded until the next boot, and are not loaded after it: $guarded"
fi
exit 0
