#!/usr/bin/env bash
# Sends records into the source side's broker and shows what comes out of the destination's: keys, headers, values.
#
#   ./try.sh [COUNT]      default 5
#
# Exit code 0 when all of them crossed, within 30 s; 1 when not. Needs a pair with the brokers for trying out (./up.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly SECONDS_TO_CROSS=30

count=${1:-5}
[[ $count =~ ^[1-9][0-9]{0,5}$ ]] || {
  echo "usage: try.sh [COUNT]: a number of records up to 999999" >&2
  exit 64
}
run=$(date +%s)

tool() { docker compose exec -T -e KAFKA_HEAP_OPTS="-Xmx128m -XX:TieredStopAtLevel=1" "$1" "/opt/kafka/bin/$2.sh" --bootstrap-server "$1:9092" "${@:3}"; }

# Reads the destination from the start: only this run's records are counted.
arrived=$(mktemp)
trap 'rm -f "$arrived"' EXIT

for ((number = 1; number <= count; number++)); do
  printf 'run:%s,number:%s\tkey-%s\trecord %s of run %s\n' "$run" "$number" "$number" "$number" "$run"
done | tool kafka-source kafka-console-producer --topic orders \
  --reader-property parse.key=true --reader-property parse.headers=true
echo "sent $count records to topic orders at the source side (run $run)" >&2

end=$((SECONDS + SECONDS_TO_CROSS))
until ((SECONDS >= end)); do
  # It ends with an error when nothing more comes: that is how one asks it to stop.
  tool kafka-destination kafka-console-consumer --topic orders --from-beginning --timeout-ms 3000 \
    --formatter-property print.key=true --formatter-property print.headers=true 2>/dev/null |
    { grep -F "run:$run," || true; } >"$arrived" || true
  (($(wc -l <"$arrived") < count)) || break
done

found=$(wc -l <"$arrived")
head -n 10 "$arrived"
((found <= 10)) || echo "… and $((found - 10)) more" >&2
if ((found == count)); then
  echo "all $count records crossed the one-way link" >&2
else
  echo "try.sh: $found of $count records arrived within $SECONDS_TO_CROSS s; look at: docker compose ps; docker compose logs ingress egress" >&2
  exit 1
fi
