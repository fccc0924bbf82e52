# shellcheck shell=bash
# Debian roots by mmdebstrap, for the scripts that need a machine of their own. Sourced after lib.sh, never run.
#
#   debian_root DIRECTORY PACKAGE,PACKAGE… [OPTION…]   makes one; further options go to mmdebstrap (--arch=arm64 …)
#   cached_root NAME PACKAGE,PACKAGE…                  makes it once, below the cache; prints its path. Never write into it
#
# Example:
#   root=$(cached_root base "$BASE_PACKAGES")

ROOTS_SUITE=bookworm

# Settings of this host's apt that concern the network and the archive's dates go along; the others are the host's business.
debian_root() {
  local directory=$1 packages=$2 file options=()
  shift 2
  require_root "it makes a root directory"
  have mmdebstrap || die "$EX_UNAVAILABLE" "mmdebstrap is missing; run: apt-get install mmdebstrap"
  for file in /etc/apt/apt.conf.d/*; do
    if [[ -f $file ]] && grep -qE '^ *Acquire::' "$file"; then options+=("--aptopt=$file"); fi
  done
  mkdir -p "$directory"
  mmdebstrap --quiet --variant=apt --include="$packages" "${options[@]}" "$@" "$ROOTS_SUITE" "$directory"
}

# Another list of packages makes another root: the directory's name carries a hash of the list.
cached_root() {
  local name=$1 packages=$2 hash directory lock
  hash=$(printf '%s %s\n' "$ROOTS_SUITE" "$packages" | sha256sum | cut -c 1-12)
  directory=$CACHE_DIR/roots/$name-$hash
  if [[ ! -d $directory ]]; then
    mkdir -p "$CACHE_DIR/roots"
    # Two scripts that start together make it once.
    exec {lock}>"$CACHE_DIR/roots/.$name.lock"
    flock "$lock"
    if [[ ! -d $directory ]]; then
      say "making the root directory \`$name\` (once; about a minute)"
      rm -rf --one-file-system "$directory.part"
      debian_root "$directory.part" "$packages" >&2 || {
        rm -rf --one-file-system "$directory.part"
        die "$EX_UNAVAILABLE" "mmdebstrap could not make the root \`$name\` (see above); it needs the package archive of apt"
      }
      mv "$directory.part" "$directory"
    fi
    exec {lock}>&-
  fi
  printf '%s\n' "$directory"
}
