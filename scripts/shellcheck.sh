#!/usr/bin/env bash
# Checks every shell script of the repository with the pinned shellcheck.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

tool=$(scripts/tools.sh path shellcheck)

# Scripts by name or by first line, under version control or about to be.
mapfile -t scripts < <(
  git ls-files --cached --others --exclude-standard | while read -r file; do
    [[ -f $file ]] || continue
    if [[ $file == *.sh ]] || LC_ALL=C head -c 64 "$file" 2>/dev/null | head -n 1 | grep -qaE '^#!.*\b(ba)?sh$'; then
      printf '%s\n' "$file"
    fi
  done
)
"$tool" --external-sources --source-path=. "${scripts[@]}"
say "shellcheck: ${#scripts[@]} scripts are clean"
