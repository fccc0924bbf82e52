{{/*
The TOML files of a link side: what the values say, and over it whatever `config` says.
Each takes dict "root" ROOT "link" LINK (of _link.tpl).
*/}}

{{- define "link-side.config" -}}
{{- $values := .link.values -}}
{{- $ingress := eq .root.Values.side "ingress" -}}
{{- $config := include "link-side.linkTable" . | fromJson -}}
{{- if hasKey $values "streams" -}}
{{- $_ := set $config (ternary "source" "sink" $ingress) (dict "udp" (dict "streams" $values.streams)) -}}
{{- else -}}
{{- $kafka := dict "brokers" $values.brokers "security" (include "link-side.security" $values | fromJson) -}}
{{- if $ingress }}{{ $_ := set $kafka "topics" $values.topics }}{{ end -}}
{{- $_ := set $config (ternary "source" "sink" $ingress) (dict "kafka" $kafka) -}}
{{- /* An emptyDir ends with the pod, which would be evicted for what a spool puts there. */ -}}
{{- if not (or $ingress .root.Values.state.persistent) }}{{ $_ := set $config "spool" (dict "enabled" false) }}{{ end -}}
{{- end -}}
{{- $telemetry := dict -}}
{{- with .root.Values.site }}{{ $_ := set $telemetry "site" . }}{{ end -}}
{{- if .root.Values.vector.enabled -}}
{{- $statsd := list (printf "127.0.0.1:%v" .link.ports.statsd) -}}
{{- $syslog := list (printf "udp://127.0.0.1:%v" .link.ports.syslog) -}}
{{- with .link.telemetry -}}
{{- if $ingress -}}
{{- $statsd = append $statsd (printf "127.0.0.1:%v" .ports.statsd) -}}
{{- $syslog = append $syslog (printf "udp://127.0.0.1:%v" .ports.syslog) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $telemetry "statsd" $statsd -}}
{{- $_ := set $telemetry "syslog" $syslog -}}
{{- end -}}
{{- $_ := set $config "telemetry" $telemetry -}}
{{- include "link-side.toml" (mergeOverwrite $config (deepCopy (default dict $values.config))) -}}
{{- end -}}

{{/* The telemetry link: as vector/snippets/diode/ingress.toml and egress.toml explain. */}}
{{- define "link-side.telemetryConfig" -}}
{{- $link := .link.telemetry -}}
{{- $ingress := eq .root.Values.side "ingress" -}}
{{- $config := include "link-side.linkTable" (dict "root" .root "link" $link) | fromJson -}}
{{- $streams := dict "statsd" (printf "127.0.0.1:%v" $link.ports.statsd) "syslog" (printf "127.0.0.1:%v" $link.ports.syslog) -}}
{{- $statsd := list (printf "127.0.0.1:%v" .link.ports.statsd) -}}
{{- if $ingress -}}
{{- $_ := mergeOverwrite $config.link (dict "rate" "5Mbit/s" "buffer" "4MiB" "socket_buffer" "1MiB" "fec" (dict "code" "32+4") "pack" (dict "linger" "20ms")) -}}
{{- $_ := set $config "source" (dict "udp" (dict "streams" $streams "max_datagram" "8KiB")) -}}
{{- $statsd = append $statsd (printf "127.0.0.1:%v" $link.ports.statsd) -}}
{{- else -}}
{{- $_ := mergeOverwrite $config.link (dict "socket_buffer" "4MiB" "receive" (dict "window" "4MiB" "max_record_bytes" "64KiB")) -}}
{{- $_ := set $config "sink" (dict "buffer" "4MiB" "udp" (dict "streams" $streams)) -}}
{{- end -}}
{{- $telemetry := dict "statsd" $statsd "syslog" (list (printf "udp://127.0.0.1:%v" .link.ports.syslog)) -}}
{{- with .root.Values.site }}{{ $_ := set $telemetry "site" . }}{{ end -}}
{{- $_ := set $config "telemetry" $telemetry -}}
{{- include "link-side.toml" (mergeOverwrite $config (deepCopy (default dict $link.values.config))) -}}
{{- end -}}

{{/* [link] and [admin], as JSON. */}}
{{- define "link-side.linkTable" -}}
{{- $keys := list -}}
{{- range .link.values.keys -}}
{{- $id := hasKey . "id" | ternary .id 1 | int -}}
{{- $keys = append $keys (dict "id" $id "file" (printf "/run/secrets/ddc/link-%d.key" $id)) -}}
{{- end -}}
{{- $table := dict "name" .link.name "id" .link.id "state_dir" (printf "/var/lib/ddc/%s" .link.name) "keys" $keys -}}
{{- if eq .root.Values.side "ingress" -}}
{{- $_ := set $table "target" (include "link-side.socket" (dict "ip" .link.ip "port" .link.ports.link)) -}}
{{- if hasKey .link.values "activeKey" }}{{ $_ := set $table "active_key" (int .link.values.activeKey) }}{{ end -}}
{{- else -}}
{{- $_ := set $table "listen" (printf "%s:%v" (ternary "[::]" "0.0.0.0" (contains ":" .link.ip)) .link.ports.link) -}}
{{- end -}}
{{- with .link.interface }}{{ $_ := set $table "interface" . }}{{ end -}}
{{- toJson (dict "link" $table "admin" (dict "listen" (printf "127.0.0.1:%v" .link.ports.admin))) -}}
{{- end -}}

{{/* [….kafka.security], as JSON. Takes the values of a link. */}}
{{- define "link-side.security" -}}
{{- $security := dict "protocol" (printf "%s%s" (hasKey . "sasl" | ternary "sasl_" "") (hasKey . "tls" | ternary "ssl" "plaintext")) -}}
{{- if hasKey . "sasl" -}}
{{- $sasl := dict "mechanism" (default "SCRAM-SHA-512" .sasl.mechanism) -}}
{{- with .sasl.username }}{{ $_ := set $sasl "username" . }}{{ end -}}
{{- if .sasl.secret }}{{ $_ := set $sasl "password_file" "/run/secrets/ddc/kafka.password" }}{{ end -}}
{{- $_ := set $security "sasl" $sasl -}}
{{- end -}}
{{- if hasKey . "tls" -}}
{{- $tls := dict -}}
{{- if or .tls.caSecret .tls.caConfigMap }}{{ $_ := set $tls "ca_file" "/run/secrets/ddc/kafka-ca.pem" }}{{ end -}}
{{- if .tls.clientSecret -}}
{{- $_ := set $tls "certificate_file" "/run/secrets/ddc/kafka-client.pem" -}}
{{- $_ := set $tls "key_file" "/run/secrets/ddc/kafka-client.key" -}}
{{- if .tls.clientKeyPasswordItem }}{{ $_ := set $tls "key_password_file" "/run/secrets/ddc/kafka-client.key-password" }}{{ end -}}
{{- end -}}
{{- $_ := set $security "tls" $tls -}}
{{- end -}}
{{- toJson $security -}}
{{- end -}}
