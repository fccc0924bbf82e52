#!/usr/bin/env bash
# Checks what Prometheus and Alertmanager are given: configuration, rules, every alert's test cases, routes, inhibitions,
# runbooks and names; and that the tests notice when a rule is broken. Prints a line for each step, then the sum.
#
#   deploy/prometheus/check.sh            everything, about a minute
#   deploy/prometheus/check.sh --quick    without breaking rules on purpose
#
# Needs promtool, amtool and Alertmanager (Debian: prometheus, prometheus-alertmanager) and python3. What is missing fails.
# Uses nothing but a temporary directory and a port of the kernel's choice on loopback.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

quick=
case ${1:-} in
  --quick) quick=1 ;;
  "") ;;
  *)
    echo "usage: check.sh [--quick]" >&2
    exit 64
    ;;
esac

missing=
for tool in promtool amtool python3; do
  command -v "$tool" >/dev/null || missing+=" $tool"
done
alertmanager=$(command -v prometheus-alertmanager || command -v alertmanager || true)
[[ -n $alertmanager ]] || missing+=" alertmanager"
if [[ -n $missing ]]; then
  echo "check.sh: missing:$missing; on Debian run: apt-get install prometheus prometheus-alertmanager python3" >&2
  exit 69
fi

scratch=$(mktemp -d)
alertmanager_pid=
cleanup() {
  if [[ -n $alertmanager_pid ]]; then
    kill "$alertmanager_pid" 2>/dev/null || true
    wait "$alertmanager_pid" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap cleanup EXIT

passed=0 failed=0
# step NAME COMMAND…: the command's output is shown only when it fails.
step() {
  local name=$1
  shift
  if "$@" >"$scratch/output" 2>&1; then
    passed=$((passed + 1))
    printf 'ok    %s%s\n' "$name" "$(sed -n 's/^/: /;$p' "$scratch/output" | grep -E ' (alerts|cases) ' || true)"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$name"
    sed 's/^/      /' "$scratch/output"
  fi
}

# test_rules DIRECTORY SIDE FILE: the file's tests with one side's rules.
test_rules() {
  local rules
  rules=$(cd "$1" && pwd)/rules
  sed "s|^rule_files: .*|rule_files: [$rules/$2/*.yml, $rules/compat.yml]|" "$1/tests/$3" >"$scratch/$2-$3"
  promtool test rules "$scratch/$2-$3"
}

route() {
  local receiver=$1
  shift
  amtool config routes test --config.file=alertmanager.yml --verify.receivers="$receiver" "$@"
}

routes() {
  local bad=0 count=0 receiver labels
  while read -r receiver labels; do
    [[ -n $receiver && $receiver != "#" ]] || continue
    count=$((count + 1))
    # The labels are words on purpose.
    # shellcheck disable=SC2086
    route "$receiver" $labels || {
      echo "tests/routes.txt: $labels must go to $receiver"
      bad=1
    }
  done <tests/routes.txt
  echo "$count cases "
  return "$bad"
}

inhibitions() {
  local address=
  "$alertmanager" --config.file=alertmanager.yml --storage.path="$scratch/alertmanager" \
    --web.listen-address=127.0.0.1:0 --cluster.listen-address= >"$scratch/alertmanager.log" 2>&1 &
  alertmanager_pid=$!
  for _ in {1..100}; do
    address=$(sed -nE 's/.*address="?(127\.0\.0\.1:[0-9]+).*/\1/p' "$scratch/alertmanager.log" | grep -v ':0$' | head -n 1 || true)
    [[ -n $address ]] && break
    sleep 0.1
  done
  if [[ -z $address ]]; then
    cat "$scratch/alertmanager.log"
    return 1
  fi
  python3 tests/inhibitions.py "http://$address" tests/inhibitions.txt
}

# A copy of everything in which one thing is broken. broken NAME FILE SED SIDE TEST: some test must fail.
broken() {
  local name=$1 file=$2 expression=$3 side=$4 test=$5
  local copy=$scratch/broken
  rm -rf "$copy"
  mkdir "$copy"
  cp -a rules tests "$copy/"
  sed -i -E "$expression" "$copy/rules/parts/$file"
  if cmp -s "rules/parts/$file" "$copy/rules/parts/$file"; then
    echo "$name: the rule to break was not found in $file; correct the expression in check.sh"
    return 1
  fi
  if ! promtool check rules --lint=all --lint-fatal "$copy/rules/parts/$file"; then
    echo "$name: does not even load"
    return 1
  fi
  if test_rules "$copy" "$side" "$test"; then
    echo "$name: $test passes with the broken rule"
    return 1
  fi
}

# names_say COPY LINE: names.py must fail and print that line.
names_say() {
  local said
  said=$(python3 tests/names.py "$1/deploy/prometheus" "$1/docs") && return 1
  grep -qxF "$2" <<<"$said"
}

# An expression that does not parse, a route that leads elsewhere, a runbook that is gone: noticed as well.
broken_otherwise() {
  local copy=$scratch/otherwise
  rm -rf "$copy"
  mkdir -p "$copy/deploy/prometheus" "$copy/docs"
  cp -a . "$copy/deploy/prometheus/"
  cp -a ../../docs/runbooks ../../docs/metrics.md "$copy/docs/"
  sed -i 's/expr: vector(1)/expr: vector(1/' "$copy/deploy/prometheus/rules/parts/telemetry.yml"
  promtool check config "$copy/deploy/prometheus/prometheus-source.yml" && return 1
  sed -i 's/severity="critical"/severity="crucial"/' "$copy/deploy/prometheus/alertmanager.yml"
  (cd "$copy/deploy/prometheus" && routes >/dev/null) && return 1
  rm "$copy/docs/runbooks/EgressDown.md"
  names_say "$copy" 'alert EgressDown has no docs/runbooks/EgressDown.md' || return 1
  cp ../../docs/runbooks/EgressDown.md "$copy/docs/runbooks/"
  sed -i 's/ddc_ready/ddc_reddy/' "$copy/deploy/prometheus/rules/parts/process.yml"
  names_say "$copy" 'process.yml: ddc_reddy is not in docs/metrics.md' || return 1
}

for side in source destination both; do
  step "configuration and rules of $side" promtool check config --lint=all --lint-fatal "prometheus-$side.yml"
done
step "Alertmanager's configuration" amtool check-config alertmanager.yml
step "alerts, cases, runbooks and names" python3 tests/names.py . ../../docs

# The destination side has the same parts as both, so what is about the egress runs once, with the rules of the destination.
for run in both:both-once both:process both:ingress \
  source:source-alone source:ingress source:process destination:destination-alone destination:life destination:egress; do
  step "tests/${run#*:}.yml with the rules of ${run%%:*}" test_rules . "${run%%:*}" "${run#*:}.yml"
done

step "routes" routes
step "inhibitions, by a running Alertmanager" inhibitions

if [[ -z $quick ]]; then
  step "noticed: a link that is believed in for too long" \
    broken threshold egress.yml 's/ddc:link_silent:seconds > 2 and on/ddc:link_silent:seconds > 20 and on/' both life.yml
  step "noticed: a dead egress that Vector keeps showing looks alive" \
    broken presence egress.yml 's/^          time\(\) \* group by \(site, link\) \($/          time() * group by (site, link) (ddc_egress_packets_received_total or/' both life.yml
  step "noticed: a reset counted as movement" \
    broken reset egress.yml 's/increase\(ddc_egress_socket_drops_total\[1m\]\)\) > 0/changes(ddc_egress_socket_drops_total[1m])) > 0/' both egress.yml
  step "noticed: the far copy counted twice" \
    broken twice ingress.yml 's/max by \(site, link\) \(rate\(ddc_ingress_packets_sent_total/sum by (site, link) (rate(ddc_ingress_packets_sent_total/' both both-once.yml
  step "noticed: an old far copy preferred to the direct series" \
    broken prefer process.yml 's/\(ddc_ready\{via=""\}\)/(ddc_ready{via="diode"})/' both process.yml
  step "noticed: a cut path taken for a dead ingress" \
    broken blame ingress.yml 's/time\(\) - ddc:far_moved:timestamp <= 2/time() - ddc:far_moved:timestamp <= 2000/' destination destination-alone.yml
  step "noticed: an alert that never fires" \
    broken never ingress.yml 's/- alert: SendErrors/- alert: SendFaults/' both ingress.yml
  step "noticed: rules that do not parse, wrong routes, missing runbooks, unknown metrics" broken_otherwise
fi

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
