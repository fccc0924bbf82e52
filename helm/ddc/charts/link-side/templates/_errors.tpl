{{/* What is wrong with links. Each takes a dict with "root" ROOT and "found" FOUND (see ddc.validate) and what it names besides. */}}
{{- define "link-side.errors" -}}
{{- $context := . -}}
{{- $links := (include "link-side.links" .root | fromJson).links -}}
{{- $all := list -}}
{{- range $link := $links -}}
{{- $all = append $all $link -}}
{{- include "link-side.errors.link" (dict "root" $context.root "found" $context.found "link" $link) -}}
{{- include "link-side.errors.kafka" (dict "root" $context.root "found" $context.found "link" $link) -}}
{{- include "link-side.errors.common" (dict "root" $context.root "found" $context.found "link" $link) -}}
{{- with $link.telemetry -}}
{{- $all = append $all . -}}
{{- include "link-side.errors.telemetry" (dict "root" $context.root "found" $context.found "link" .) -}}
{{- include "link-side.errors.common" (dict "root" $context.root "found" $context.found "link" .) -}}
{{- end -}}
{{- end -}}
{{- include "link-side.errors.unique" (dict "root" $context.root "found" $context.found "links" $all) -}}
{{- include "link-side.errors.ports" (dict "root" $context.root "found" $context.found "links" $links) -}}
{{- end -}}

{{- define "link-side.errors.link" -}}
{{- $found := .found -}}
{{- $path := .link.path -}}
{{- $values := .link.values -}}
{{- if not .link.name -}}
{{- include "ddc.error" (list $found (printf "%s.name" $path) "missing. Set it to the link's name, the same on both sides, such as plant-a") -}}
{{- else if or (eq .link.name "vector") (hasPrefix "dashboard-" .link.name) -}}
{{- include "ddc.error" (list $found (printf "%s.name" $path) (printf "%s would give its objects the names of others of this chart. Set it to another, on both sides" .link.name)) -}}
{{- end -}}
{{- if and $values.networks .root.Values.hostNetwork -}}
{{- include "ddc.error" (list $found (printf "%s.networks" $path) "secondary networks are for pods with a network of their own. Remove it and set interface to the node's, or set hostNetwork to false") -}}
{{- end -}}
{{- $grace := int .root.Values.terminationGracePeriodSeconds -}}
{{- $drain := dig "sink" "kafka" "drain_timeout" "" (default dict $values.config) | toString -}}
{{- if and (regexMatch "^[0-9]+(s|min)$" $drain) (eq .root.Values.side "egress") -}}
{{- $seconds := mul (regexFind "^[0-9]+" $drain | int) (hasSuffix "min" $drain | ternary 60 1) -}}
{{- if gt (add $seconds 10 | int) $grace -}}
{{- include "ddc.error" (list $found "terminationGracePeriodSeconds" (printf "%d ends a stop before %s.config.sink.kafka.drain_timeout (%s) has passed. Set it to %d or more" $grace $path $drain (add $seconds 10))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where records come from or go to. */}}
{{- define "link-side.errors.kafka" -}}
{{- $found := .found -}}
{{- $path := .link.path -}}
{{- $values := .link.values -}}
{{- $ingress := eq .root.Values.side "ingress" -}}
{{- $streams := hasKey $values "streams" -}}
{{- if and $streams $values.brokers -}}
{{- include "ddc.error" (list $found (printf "%s.streams" $path) "stands instead of brokers. Keep one of the two") -}}
{{- else if and (not $streams) (not $values.brokers) -}}
{{- include "ddc.error" (list $found (printf "%s.brokers" $path) "missing. Set it to the Kafka brokers, such as [kafka:9092]; or set streams for UDP datagrams") -}}
{{- else if and $streams (not $values.streams) -}}
{{- include "ddc.error" (list $found (printf "%s.streams" $path) "empty. Set at least one, such as sensors: 0.0.0.0:9000") -}}
{{- end -}}
{{- if and $ingress (not $streams) (not $values.topics) -}}
{{- include "ddc.error" (list $found (printf "%s.topics" $path) "missing. Set it to the topics that cross, such as [orders] or [\"^plant-.*\"]") -}}
{{- end -}}
{{- if and $values.topics (or $streams (not $ingress)) -}}
{{- include "ddc.error" (list $found (printf "%s.topics" $path) "is for an ingress that reads Kafka. Remove it; an egress renames topics with config: {sink: {kafka: {topic_prefix: …}}}") -}}
{{- end -}}
{{- if hasKey $values "sasl" -}}
{{- if or (hasPrefix "SCRAM" (default "SCRAM" $values.sasl.mechanism)) (eq "PLAIN" (default "" $values.sasl.mechanism)) -}}
{{- range $key := list "username" "secret" -}}
{{- if not (get $values.sasl $key) -}}
{{- include "ddc.error" (list $found (printf "%s.sasl.%s" $path $key) (eq $key "secret" | ternary "missing. Set it to a Secret whose item `password` holds the password" "missing. Set it to the Kafka user")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $values.tls -}}
{{- if and .caSecret .caConfigMap -}}
{{- include "ddc.error" (list $found (printf "%s.tls.caSecret" $path) "and caConfigMap are both set. Keep one of the two") -}}
{{- end -}}
{{- if and .clientKeyPasswordItem (not .clientSecret) -}}
{{- include "ddc.error" (list $found (printf "%s.tls.clientKeyPasswordItem" $path) "needs clientSecret. Set clientSecret to the Secret with tls.crt and tls.key") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every link needs, a telemetry link too. */}}
{{- define "link-side.errors.common" -}}
{{- $found := .found -}}
{{- $path := .link.path -}}
{{- $values := .link.values -}}
{{- $ingress := eq .root.Values.side "ingress" -}}
{{- if not (hasKey $values "id") -}}
{{- include "ddc.error" (list $found (printf "%s.id" $path) "missing. Set it to the link's number, the same on both sides, such as 1") -}}
{{- else if gt (int .link.ports.link) 65535 -}}
{{- include "ddc.error" (list $found (printf "%s.ports.link" $path) (printf "missing, and 7400 + id is no port for id %d. Set it to the link's UDP port, the same on both sides" (int .link.id))) -}}
{{- end -}}
{{- if not .link.ip -}}
{{- if $values.peer -}}
{{- include "ddc.error" (list $found (printf "%s.peer" $path) (printf "%q is no IP address (names are not resolved). Set it to the other side's, such as 198.18.0.2 or 2001:db8::2" $values.peer)) -}}
{{- else if not (hasSuffix ".telemetry" $path) -}}
{{- include "ddc.error" (list $found (printf "%s.peer" $path) ($ingress | ternary "missing. Set it to the egress's IP address, such as 198.18.0.2" "missing. Set it to the IP address that the ingress sends from, such as 198.18.0.1")) -}}
{{- end -}}
{{- else if and (not $ingress) $values.peer (include "link-side.address" $values.peer | fromJson).port -}}
{{- include "ddc.error" (list $found (printf "%s.peer" $path) "has a port. At an egress it is the address that datagrams come from: remove the port; ports.link is where they arrive") -}}
{{- end -}}
{{- $secretPath := printf "%s.keys" $path -}}
{{- if not $values.keys -}}
{{- include "ddc.error" (list $found $secretPath (printf "missing. Set it to [{secret: NAME}]; the Secret is made by: ddc keygen --out link.key; kubectl -n %s create secret generic NAME --from-file=link.key. Both sides have the same key" .root.Release.Namespace)) -}}
{{- end -}}
{{- $ids := list -}}
{{- range $i, $key := $values.keys -}}
{{- if not $key.secret -}}
{{- include "ddc.error" (list $found (printf "%s[%d].secret" $secretPath $i) "missing. Set it to the name of the Secret that holds the link's key") -}}
{{- end -}}
{{- $id := hasKey $key "id" | ternary $key.id 1 | int -}}
{{- if has $id $ids -}}
{{- include "ddc.error" (list $found (printf "%s[%d].id" $secretPath $i) (printf "%d is there twice. Set it to the number that this key has on the other side too" $id)) -}}
{{- end -}}
{{- $ids = append $ids $id -}}
{{- end -}}
{{- if hasKey $values "activeKey" -}}
{{- if not $ingress -}}
{{- include "ddc.error" (list $found (printf "%s.activeKey" $path) "is the ingress's to choose. Remove it: an egress takes all of its keys") -}}
{{- else if not (has (int $values.activeKey) $ids) -}}
{{- include "ddc.error" (list $found (printf "%s.activeKey" $path) (printf "there is no key %d in %s. Set it to the id of one" (int $values.activeKey) $secretPath)) -}}
{{- end -}}
{{- else if and $ingress (gt (len $ids) 1) -}}
{{- include "ddc.error" (list $found (printf "%s.activeKey" $path) "missing: there are several keys. Set it to the id of the one that seals") -}}
{{- end -}}
{{- $owned := dict "link.name" "name" "link.id" "id" "link.target" "peer" "link.listen" "ports.link" "link.keys" "keys" "link.active_key" "activeKey" "link.interface" "interface" "link.state_dir" "" "admin.listen" "ports.admin" "telemetry.site" "" -}}
{{- range $key, $value := $owned -}}
{{- $parts := splitList "." $key -}}
{{- $table := get (default dict $values.config) (first $parts) -}}
{{- if and (kindIs "map" $table) (hasKey $table (last $parts)) -}}
{{- $instead := eq $key "telemetry.site" | ternary "site" (ternary (printf "%s.%s" $path $value) "" (ne $value "")) -}}
{{- include "ddc.error" (list $found (printf "%s.config.%s" $path $key) (printf "is set by the chart. %s" (empty $instead | ternary "Remove it" (printf "Use %s" $instead)))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "link-side.errors.telemetry" -}}
{{- if not .root.Values.vector.enabled -}}
{{- include "ddc.error" (list .found .link.path "needs Vector on this side. Set vector.enabled to true, or remove it") -}}
{{- end -}}
{{- if and .link.values.hostMetrics (ne .root.Values.side "ingress") -}}
{{- include "ddc.error" (list .found (printf "%s.hostMetrics" .link.path) "is for the ingress, which sends them. Remove it") -}}
{{- end -}}
{{- end -}}

{{/* Names, numbers and targets that only one link may have. */}}
{{- define "link-side.errors.unique" -}}
{{- $found := .found -}}
{{- $root := .root -}}
{{- $seen := dict -}}
{{- range $link := .links -}}
{{- $facts := dict -}}
{{- if $link.name }}{{ $_ := set $facts "name" $link.name }}{{ end -}}
{{- if hasKey $link.values "id" }}{{ $_ := set $facts "id" (toString $link.id) }}{{ end -}}
{{- if and $link.ip (eq $root.Values.side "ingress") }}{{ $_ := set $facts "peer" (include "link-side.socket" (dict "ip" $link.ip "port" $link.ports.link)) }}{{ end -}}
{{- range $fact, $value := $facts -}}
{{- $first := get $seen (printf "%s %s" $fact $value) -}}
{{- if $first -}}
{{- include "ddc.error" (list $found (printf "%s.%s" $link.path $fact) (printf "%s is %s.%s already. Set it to another; every link has its own" $value $first $fact)) -}}
{{- else -}}
{{- $_ := set $seen (printf "%s %s" $fact $value) $link.path -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Ports that two would listen on: within a pod, and with hostNetwork between all pods that may meet on a node, that is those with the same
nodeSelector.
*/}}
{{- define "link-side.errors.ports" -}}
{{- $found := .found -}}
{{- $values := .root.Values -}}
{{- $seen := dict -}}
{{- $used := dict -}}
{{- $listeners := list -}}
{{- range $link := .links -}}
{{- $place := $values.hostNetwork | ternary (toJson $link.nodeSelector) $link.path -}}
{{- range $name := list "admin" "link" "exporter" "api" "statsd" "syslog" -}}
{{- if and (or (ne $name "link") (eq $values.side "egress")) (or $values.vector.enabled (has $name (list "admin" "link"))) -}}
{{- $listeners = append $listeners (dict "path" (printf "%s.ports.%s" $link.path $name) "port" (get $link.ports $name | int) "udp" (has $name (list "link" "statsd" "syslog")) "place" $place) -}}
{{- end -}}
{{- end -}}
{{- with $link.telemetry -}}
{{- $telemetry := . -}}
{{- range $name := list "admin" "link" "statsd" "syslog" -}}
{{- if or (ne $name "link") (eq $values.side "egress") -}}
{{- $listeners = append $listeners (dict "path" (printf "%s.ports.%s" $telemetry.path $name) "port" (get $telemetry.ports $name | int) "udp" (ne $name "admin") "place" $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $listeners }}{{ $_ := set $used (toString .port) true }}{{ end -}}
{{- range $listener := $listeners -}}
{{- /* Vector takes syslog over UDP and TCP. */ -}}
{{- range $protocol := ternary (list "udp" "tcp") (list (ternary "udp" "tcp" $listener.udp)) (and $listener.udp (hasSuffix ".syslog" $listener.path)) -}}
{{- $key := printf "%s %d %s" $protocol $listener.port $listener.place -}}
{{- $first := get $seen $key -}}
{{- if $first -}}
{{- $free := $listener.port -}}
{{- range until 200 }}{{ if get $used (toString $free) }}{{ $free = add $free 1 | int }}{{ end }}{{ end -}}
{{- include "ddc.error" (list $found $listener.path (printf "%d is %s already%s. Set it to another, such as %d" $listener.port $first ($values.hostNetwork | ternary ", and with hostNetwork both are the node's" "") $free)) -}}
{{- $_ := set $used (toString $free) true -}}
{{- break -}}
{{- else -}}
{{- $_ := set $seen $key $listener.path -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
