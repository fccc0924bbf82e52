#!/bin/sh
# At the end of the transaction, when the old files have gone: instances that run get the new program.
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload

running=$(systemctl list-units --plain --no-legend --full --state=active,activating,reloading \
  'ddc-ingress@*.service' 'ddc-egress@*.service' | cut -d ' ' -f 1 | tr '\n' ' ')
[ -n "$running" ] || exit 0
if [ -e /etc/ddc/no-restart ]; then
  echo "ddc: /etc/ddc/no-restart exists: still the old program, until you restart: $running"
  exit 0
fi
echo "ddc: restarting $running"
# Names, one word each: not quoted.
# shellcheck disable=SC2086
systemctl try-restart $running ||
  echo "ddc: not all of them came up again; see: systemctl status 'ddc-*@*'" >&2
exit 0
