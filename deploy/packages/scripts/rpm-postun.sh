#!/bin/sh
# After the files have gone. rpm knows no purge: what the operator made stays, and is named.
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = 0 ]; then
  echo "ddc: kept: /etc/ddc (configuration, keys), /var/lib/ddc (state), the user ddc, enabled instances"
fi
exit 0
