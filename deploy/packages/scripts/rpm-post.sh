#!/bin/sh
# After unpacking, at an installation (1) and an upgrade (2): the user, directories, kernel limits. Enables and starts nothing.
systemd-sysusers ddc.conf || exit 1
systemd-tmpfiles --create ddc.conf || exit 1

# Where no systemd runs (a chroot, an image being built) the rest happens at its first boot.
if [ -d /run/systemd/system ]; then
  # All files of sysctl.d in their order, but only our settings: a larger value of the administrator stays.
  /usr/lib/systemd/systemd-sysctl --prefix=/net/core/rmem_max --prefix=/net/core/wmem_max \
    --prefix=/net/core/netdev_max_backlog ||
    echo "ddc: the socket buffer limits could not all be set here; \`ddc check --host\` says what is missing" >&2
fi
exit 0
