#!/bin/sh
# After the files have gone. `remove` keeps configuration, keys and state; `purge` deletes them.
set -e

if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
[ "$1" = purge ] || exit 0

# The other one of ddc and ddc-gssapi is installed: all of it is in use.
if [ -e /usr/bin/ddc ]; then
  echo "ddc: /etc/ddc and /var/lib/ddc stay: another package of ddc is installed"
  exit 0
fi

echo "ddc: deleting configuration, keys and state: /etc/ddc, /var/lib/ddc, enabled instances and their drop-ins"
rm -rf /etc/ddc /var/lib/ddc /run/ddc
rm -f /etc/systemd/system/*.wants/ddc-ingress@*.service /etc/systemd/system/*.wants/ddc-egress@*.service \
  /etc/systemd/system/*.wants/ddc-one-way@*.service
rm -rf /etc/systemd/system/ddc-ingress@*.service.d /etc/systemd/system/ddc-egress@*.service.d \
  /etc/systemd/system/ddc-one-way@*.service.d
# A number that was used must not become somebody else's: copies of the state may still carry it.
echo "ddc: the user ddc stays; to remove it: deluser --system ddc"
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
