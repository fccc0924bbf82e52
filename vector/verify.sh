#!/usr/bin/env bash
# Validates and tests the shipped files with a real Vector.
#
#   vector/verify.sh                            with `vector` from the path
#   VECTOR_BIN=/opt/vector/bin/vector vector/verify.sh
#
# Exit codes: 0 all is well, 69 there is no Vector, anything else is Vector's own. Nothing is started that outlives the script,
# but `vector validate` looks at what the files name: certificates when DDC_EXPORTER_TLS is true, for example.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

vector=${VECTOR_BIN:-$(command -v vector || true)}
if [[ -z $vector || ! -x $vector ]]; then
  echo "verify.sh: no Vector: install it, or set VECTOR_BIN to its binary (./check.sh checks with the double)" >&2
  exit 69
fi

export DDC_VECTOR_DIR=$PWD
# Vector 0.57 and later replace variables only when told to; older ones ignore this.
export VECTOR_DANGEROUSLY_ALLOW_ENV_VAR_INTERPOLATION=true
export DDC_EXPORTER_USER=${DDC_EXPORTER_USER:-user} DDC_EXPORTER_PASSWORD=${DDC_EXPORTER_PASSWORD:-password}

"$vector" --version
combinations=0
check() {
  echo "validate $*"
  "$vector" validate "$@"
  combinations=$((combinations + 1))
}
check vector.yaml exporter.yaml
check vector.yaml exporter.yaml destination.yaml
check vector.yaml exporter-auth.yaml destination.yaml
# Without the environment, because a snippet's Loki or Kafka need not be there; that leaves the options and the topology.
for snippet in snippets/*.yaml snippets/diode/*.yaml; do
  check --no-environment vector.yaml exporter.yaml "$snippet"
done
"$vector" test vector.yaml exporter.yaml destination.yaml tests/*.yaml
DDC_SITE=north "$vector" test vector.yaml exporter.yaml destination.yaml tests/*.yaml
echo "verify.sh: $combinations combinations of files are valid, their tests pass"
