#!/usr/bin/env bash
# Apache Kafka brokers for development and tests: one node each, KRaft combined mode, on this machine.
# Not for production: one replica, test certificates, passwords on the command line.
#
#   kafka.sh fetch VERSION                      gets the jars once, prints their directory
#   kafka.sh start NAME VERSION PORT [OPTION…]  starts in the background; prints the listeners, then "ready"
#   kafka.sh run   NAME VERSION PORT [OPTION…]  the same in the foreground (exec): the caller owns the process
#   kafka.sh wait  PORT [--host A] [--timeout S]     waits until a broker answers a metadata request
#   kafka.sh stop  NAME [--dir D]               SIGTERM, and SIGKILL after 30 s
#   kafka.sh kill  NAME [--dir D]               SIGKILL, as a crash would; start it again on the same directory
#   kafka.sh status NAME [--dir D]              exit code 0 when it runs
#   kafka.sh tool  VERSION CLASS [ARG…]         a class of Kafka's tools, e.g. org.apache.kafka.tools.TopicCommand
#
# VERSION is a full one, or `4` or `3` for the pinned one of that line.
#
# Options of start and run:
#   --profile plaintext|secure   default plaintext
#   --dir D            data, properties, certificates, log; default ${XDG_STATE_HOME:-~/.local/state}/ddc/kafka/NAME.
#                      A directory that is already formatted is used as it is.
#   --host A           address to bind and advertise, default 127.0.0.1
#   --user U --password P        for SASL, default ddc / ddc-secret
#   --property K=V     one more line of server.properties; may be repeated
#
# Listeners: PORT PLAINTEXT, PORT+1 controller; with `secure` also PORT+2 SASL_PLAINTEXT, PORT+3 SSL (client
# certificate required), PORT+4 SASL_SSL. SASL mechanisms: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN.
# `secure` makes in D/tls: ca.pem; client.pem, client.key; client-encrypted.key (password "ddc-key"); and
# stranger.pem, stranger.key, which another authority signed and the broker must refuse.
#
# DDC_KAFKA_JVM_OPTS replaces the Java options (default: -Xmx512m).
set -euo pipefail

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# How long a start may take: 2 s on an idle machine, 13 s after a crash, more when the machine is loaded.
READY_TIMEOUT=90
# The small tools (format) start faster without the optimising compiler.
TOOL_JVM=(-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error)

main() {
  local command=${1:-}
  [[ -n $command ]] && shift
  case $command in
    fetch) need_arguments 1 "$#" "fetch VERSION" && fetch "$1" ;;
    start) need_arguments 3 "$#" "start NAME VERSION PORT" && start "$@" ;;
    run) need_arguments 3 "$#" "run NAME VERSION PORT" && run "$@" ;;
    wait) need_arguments 1 "$#" "wait PORT" && wait_command "$@" ;;
    stop) need_arguments 1 "$#" "stop NAME" && end "$1" TERM "${@:2}" ;;
    kill) need_arguments 1 "$#" "kill NAME" && end "$1" KILL "${@:2}" ;;
    status) need_arguments 1 "$#" "status NAME" && status "$@" ;;
    tool) need_arguments 2 "$#" "tool VERSION CLASS" && tool "$@" ;;
    *)
      sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
      exit "$EX_USAGE"
      ;;
  esac
}

need_arguments() { (($2 >= $1)) || die "$EX_USAGE" "usage: ${0##*/} $3 …"; }

# --- fetch ---------------------------------------------------------------------------------------------------------

# full_version VERSION: `4` and `3` stand for the pinned ones.
full_version() {
  case $1 in
    4) printf '%s\n' "$KAFKA_4_VERSION" ;;
    3) printf '%s\n' "$KAFKA_3_VERSION" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

kafka_home() { printf '%s/kafka-%s\n' "$CACHE_DIR" "$1"; }

# Resolves the jars into a fresh directory beside the final one and renames it: an interrupted fetch leaves nothing
# that looks finished.
fetch() {
  local version home work
  version=$(full_version "$1")
  [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "$EX_USAGE" "not a Kafka version: \`$version\`; example: $KAFKA_4_VERSION"
  home=$(kafka_home "$version")
  if [[ ! -e $home/lib/connect-mirror-$version.jar ]]; then
    have mvn || die "$EX_UNAVAILABLE" "mvn is missing; run: scripts/setup.sh --for test"
    mkdir -p "$CACHE_DIR"
    work=$(mktemp -d "$CACHE_DIR/.kafka-$version.XXXXXX")
    cp "$HERE/pom.xml" "$work/"
    say "kafka.sh: fetching Apache Kafka $version with Maven …"
    # Maven prints colour codes even when told not to: its words are shown only when it fails.
    if ! mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies "-Dkafka.version=$version" \
      -DincludeScope=runtime "-DoutputDirectory=$work/home/lib" >"$work/maven.log" 2>&1 </dev/null; then
      say "$(tail -n 20 "$work/maven.log")"
      rm -rf "$work"
      die "$EX_UNAVAILABLE" "Maven could not resolve Kafka $version (see above); is its repository reachable?"
    fi
    # 3.9 brings a second logger binding, which would win over slf4j-simple and then complain.
    rm -f "$work"/home/lib/slf4j-reload4j-*.jar
    # Two fetches at once: the first one to arrive wins, the other one's copy goes. What an older version of this script fetched
    # lacks some jars; a broker may be running from it.
    mv -T "$work/home" "$home" 2>/dev/null || cp --no-clobber "$work"/home/lib/*.jar "$home/lib/"
    rm -rf "$work"
  fi
  printf '%s\n' "$home"
}

# --- start, run ----------------------------------------------------------------------------------------------------

start() {
  prepare "$@"
  if running_pid >/dev/null; then
    die "$EX_USAGE" "$NAME runs already (pid $(running_pid), $DIR); run: ${0##*/} stop $NAME --dir $DIR"
  fi
  local since=$SECONDS
  # A session of its own and no inherited streams: the caller's pipes close when this script ends.
  setsid "${BROKER[@]}" </dev/null >>"$DIR/broker.log" 2>&1 &
  local pid=$!
  printf '%s\n' "$pid" >"$DIR/broker.pid"
  disown "$pid"
  if ! await_metadata "$HOST" "$PORT" "$READY_TIMEOUT" "$pid"; then
    say "$(tail -n 20 "$DIR/broker.log")"
    kill -KILL "$pid" 2>/dev/null || true
    die "$EX_UNAVAILABLE" "$NAME did not answer on $HOST:$PORT within $((SECONDS - since)) s; its log: $DIR/broker.log"
  fi
  describe
  printf 'ready\n'
}

run() {
  prepare "$@"
  printf '%s\n' "$$" >"$DIR/broker.pid"
  describe
  exec "${BROKER[@]}" >>"$DIR/broker.log" 2>&1 </dev/null
}

# Parses the arguments; writes certificates, properties and the formatted storage where they are missing.
# Sets NAME VERSION PORT PROFILE DIR HOST USER_NAME PASSWORD PROPERTIES HOME_DIR BROKER.
prepare() {
  NAME=$1 VERSION=$2 PORT=$3
  shift 3
  PROFILE=plaintext DIR=$(default_dir "$NAME") HOST=127.0.0.1 USER_NAME=ddc PASSWORD=ddc-secret PROPERTIES=()
  while (($#)); do
    (($# >= 2)) || die "$EX_USAGE" "option \`$1\` needs a value"
    case $1 in
      --profile) PROFILE=$2 ;;
      --dir) DIR=$2 ;;
      --host) HOST=$2 ;;
      --user) USER_NAME=$2 ;;
      --password) PASSWORD=$2 ;;
      --property) PROPERTIES+=("$2") ;;
      *) die "$EX_USAGE" "unknown option \`$1\`; run \`${0##*/}\` for help" ;;
    esac
    shift 2
  done
  [[ $PROFILE == plaintext || $PROFILE == secure ]] ||
    die "$EX_USAGE" "unknown profile \`$PROFILE\`; it is \`plaintext\` or \`secure\`"
  if ! [[ $PORT =~ ^[0-9]{1,5}$ ]] || ((10#$PORT < 1 || 10#$PORT > 65531)); then
    die "$EX_USAGE" "not a port: \`$PORT\` (1 to 65531)"
  fi
  have java || die "$EX_UNAVAILABLE" "java is missing; run: scripts/setup.sh --for test"
  HOME_DIR=$(fetch "$VERSION")

  # Keys and passwords lie in there.
  umask 077
  mkdir -p "$DIR"
  DIR=$(cd "$DIR" && pwd)
  [[ $PROFILE == secure ]] && make_certificates
  # Written again on every start, so that another port or property takes effect on old data.
  write_properties >"$DIR/server.properties"
  [[ -f $DIR/data/meta.properties ]] || format_storage

  local jvm
  read -r -a jvm <<<"${DDC_KAFKA_JVM_OPTS:--Xmx512m}"
  BROKER=(java "${jvm[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    -Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
    -cp "$HOME_DIR/lib/*" kafka.Kafka "$DIR/server.properties")
}

default_dir() { printf '%s/ddc/kafka/%s\n' "${XDG_STATE_HOME:-$HOME/.local/state}" "$1"; }

write_properties() {
  local listeners="PLAINTEXT://$HOST:$PORT"
  local protocols="CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"
  if [[ $PROFILE == secure ]]; then
    listeners+=",SASL_PLAINTEXT://$HOST:$((PORT + 2)),SSL://$HOST:$((PORT + 3)),SASL_SSL://$HOST:$((PORT + 4))"
    protocols+=",SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL"
  fi
  cat <<PROPERTIES
# Written by kafka.sh on every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$HOST:$((PORT + 1))
controller.listener.names=CONTROLLER
listeners=$listeners,CONTROLLER://$HOST:$((PORT + 1))
advertised.listeners=$listeners
listener.security.protocol.map=$protocols
inter.broker.listener.name=PLAINTEXT
log.dirs=$DIR/data

# One node: every internal topic has one partition and one replica.
num.partitions=1
default.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Quick starts, also after a crash, and small memory.
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
log.cleaner.dedupe.buffer.size=2097152

# Retention goes by the records' own timestamps: old ones would vanish within minutes.
log.retention.ms=-1
# Tests send records of 8 MiB; those that want a refusal set max.message.bytes on their topic.
message.max.bytes=20971520
replica.fetch.max.bytes=20971520
# A mistyped topic is an error, not a new topic. Deleting is allowed, since tests re-create topics.
auto.create.topics.enable=false
delete.topic.enable=true
PROPERTIES
  [[ $PROFILE == secure ]] && secure_properties
  ((${#PROPERTIES[@]})) && printf '%s\n' "" "# Given by --property." "${PROPERTIES[@]}"
  return 0
}

secure_properties() {
  local listener
  cat <<PROPERTIES

ssl.keystore.type=PEM
ssl.keystore.location=$DIR/tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$DIR/tls/ca.pem
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.ssl.client.auth=none
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
PROPERTIES
  for listener in sasl_plaintext sasl_ssl; do
    cat <<PROPERTIES
listener.name.$listener.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.$listener.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.$listener.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_$USER_NAME="$PASSWORD";
PROPERTIES
  done
}

# Formats with the SCRAM user in any profile, so that a directory can be restarted with the other one.
format_storage() {
  local id
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  # A first character `-` would be read as an option.
  id=A${id:1}
  rm -rf "${DIR:?}/data"
  if ! java "${TOOL_JVM[@]}" -cp "$HOME_DIR/lib/*" kafka.tools.StorageTool format --cluster-id "$id" \
    --config "$DIR/server.properties" \
    --add-scram "SCRAM-SHA-512=[name=$USER_NAME,password=$PASSWORD]" \
    --add-scram "SCRAM-SHA-256=[name=$USER_NAME,password=$PASSWORD]" \
    >"$DIR/format.log" 2>&1 </dev/null; then
    say "$(tail -n 20 "$DIR/format.log")"
    die "$EX_UNAVAILABLE" "the storage in $DIR/data could not be formatted"
  fi
}

# --- certificates --------------------------------------------------------------------------------------------------

make_certificates() {
  local tls=$DIR/tls
  [[ -f $tls/complete ]] && return 0
  have openssl || die "$EX_UNAVAILABLE" "openssl is missing; run: scripts/setup.sh --for test"
  rm -rf "$tls"
  mkdir -p "$tls"
  make_authority "$tls/ca" "DDC test authority"
  make_authority "$tls/stranger-ca" "Another authority"
  sign "$tls/ca" "$tls/broker" "ddc-broker" "subjectAltName=IP:$HOST,DNS:localhost"
  sign "$tls/ca" "$tls/client" "ddc-client" "extendedKeyUsage=clientAuth"
  sign "$tls/stranger-ca" "$tls/stranger" "stranger" "extendedKeyUsage=clientAuth"
  # Kafka's PEM store is one file: the PKCS#8 key, then the certificate.
  cat "$tls/broker.key" "$tls/broker.crt" >"$tls/broker.pem"
  mv "$tls/client.crt" "$tls/client.pem"
  mv "$tls/stranger.crt" "$tls/stranger.pem"
  quietly_openssl pkcs8 -topk8 -v2 aes-256-cbc -in "$tls/client.key" -out "$tls/client-encrypted.key" \
    -passout pass:ddc-key
  rm -f "$tls"/*.csr "$tls"/*.srl "$tls/broker.crt" "$tls/broker.key"
  : >"$tls/complete"
}

make_authority() {
  quietly_openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=$2" -keyout "$1.key" -out "$1.pem" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
}

# sign AUTHORITY TARGET COMMON-NAME EXTENSION
sign() {
  quietly_openssl req -newkey rsa:2048 -nodes -subj "/CN=$3" -keyout "$2.key" -out "$2.csr"
  quietly_openssl x509 -req -in "$2.csr" -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 3650 -out "$2.crt" \
    -extfile <(printf '%s\n' "$4")
}

# openssl reports its progress on stderr: shown only when it fails.
quietly_openssl() {
  local output
  output=$(openssl "$@" 2>&1 </dev/null) || die "$EX_UNAVAILABLE" "openssl $1 failed: $output"
}

# --- readiness -----------------------------------------------------------------------------------------------------

wait_command() {
  local port=$1 host=127.0.0.1 timeout=$READY_TIMEOUT
  shift
  while (($#)); do
    (($# >= 2)) || die "$EX_USAGE" "option \`$1\` needs a value"
    case $1 in
      --host) host=$2 ;;
      --timeout) timeout=$2 ;;
      *) die "$EX_USAGE" "unknown option \`$1\`" ;;
    esac
    shift 2
  done
  await_metadata "$host" "$port" "$timeout" "" ||
    die "$EX_UNAVAILABLE" "no broker answered on $host:$port within $timeout s"
  printf 'ready\n'
}

# await_metadata HOST PORT SECONDS PID: PID (may be empty) is the process whose end ends the wait.
await_metadata() {
  local deadline=$((SECONDS + $3))
  until metadata_answers "$1" "$2"; do
    ((SECONDS < deadline)) || return 1
    [[ -z $4 ]] || kill -0 "$4" 2>/dev/null || return 1
    sleep 0.1
  done
}

# One Metadata request (version 5, no topics) by hand: 50 times cheaper than starting a Java tool. Ready means that
# the broker lists at least one broker, itself: it has joined the cluster and serves.
# Answer: length i32, correlation id i32, throttle time i32, number of brokers i32, …
metadata_answers() {
  local answer
  answer=$(
    exec 2>/dev/null # a refused connection is the expected answer while the broker starts
    exec 3<>"/dev/tcp/$1/$2" || exit 1
    # Length 23; API key 3, version 5; correlation id 7; client id "kafka.sh"; 0 topics; no automatic creation.
    printf '\0\0\0\x17\0\x03\0\x05\0\0\0\x07\0\x08kafka.sh\0\0\0\0\0' >&3
    timeout 5 head -c 16 <&3 | od -An -v -tx1 | tr -d ' \n'
  ) || return 1
  [[ $answer =~ ^[0-9a-f]{8}00000007[0-9a-f]{8}([0-9a-f]{8})$ ]] && ((0x${BASH_REMATCH[1]} >= 1))
}

describe() {
  printf 'directory %s\n' "$DIR"
  printf 'PLAINTEXT %s:%s\n' "$HOST" "$PORT"
  if [[ $PROFILE == secure ]]; then
    printf 'SASL_PLAINTEXT %s:%s\nSSL %s:%s\nSASL_SSL %s:%s\n' \
      "$HOST" "$((PORT + 2))" "$HOST" "$((PORT + 3))" "$HOST" "$((PORT + 4))"
  fi
}

# --- stop, kill, status, tool --------------------------------------------------------------------------------------

# end NAME SIGNAL [--dir D]
end() {
  local signal=$2 pid deadline
  NAME=$1
  parse_dir "${@:3}"
  if ! pid=$(running_pid); then
    say "kafka.sh: $NAME does not run"
    return 0
  fi
  kill "-$signal" "$pid" 2>/dev/null || true
  deadline=$((SECONDS + 30))
  while is_broker "$pid"; do
    if ((SECONDS >= deadline)); then
      say "kafka.sh: $NAME did not stop within 30 s; killing it"
      kill -KILL "$pid" 2>/dev/null || true
      deadline=$((SECONDS + 30))
    fi
    sleep 0.1
  done
  rm -f "$DIR/broker.pid"
}

status() {
  NAME=$1
  parse_dir "${@:2}"
  local pid
  pid=$(running_pid) || {
    printf '%s stopped\n' "$NAME"
    return 1
  }
  printf '%s runs, pid %s, %s\n' "$NAME" "$pid" "$DIR"
}

parse_dir() {
  DIR=$(default_dir "$NAME")
  if (($#)); then
    [[ $1 == --dir && $# == 2 ]] || die "$EX_USAGE" "unknown arguments: $*"
    DIR=$2
  fi
  [[ -d $DIR ]] && DIR=$(cd "$DIR" && pwd)
  return 0
}

running_pid() {
  local pid
  [[ -f $DIR/broker.pid ]] && pid=$(<"$DIR/broker.pid") && is_broker "$pid" && printf '%s\n' "$pid"
}

# True when that process is the broker of this directory: numbers are used again. A zombie has no command line.
is_broker() {
  local command
  command=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline") || return 1
  [[ $command == *"kafka.Kafka $DIR/server.properties"* ]]
}

tool() {
  local home
  home=$(fetch "$1")
  exec java "${TOOL_JVM[@]}" -cp "$home/lib/*" "${@:2}"
}

main "$@"
