#!/bin/sh
# Before the files go. An upgrade, or the change between ddc and ddc-gssapi, leaves instances running: postinst restarts them.
set -e

[ "$1" = remove ] || exit 0
[ "$2" != in-favour ] || exit 0
[ -d /run/systemd/system ] || exit 0

running=$(systemctl list-units --plain --no-legend --full --state=active,activating,reloading,deactivating \
  'ddc-ingress@*.service' 'ddc-egress@*.service' | cut -d ' ' -f 1 | tr '\n' ' ')
if [ -n "$running" ]; then
  echo "ddc: stopping $running"
  # Names, one word each: not quoted.
  # shellcheck disable=SC2086
  deb-systemd-invoke stop $running
fi
guarded=$(systemctl list-units --plain --no-legend --full --state=active 'ddc-one-way@*.service' | cut -d ' ' -f 1 | tr '\n' ' ')
if [ -n "$guarded" ]; then
  echo "ddc: the one-way rules stay loaded until the next boot, and are not loaded after it: $guarded"
fi
