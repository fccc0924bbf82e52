{{/*
A link as its values mean it, with every default filled in: what all other templates here work with.

  link-side.links      ROOT                              JSON: {"links": [LINK…]}
  link-side.link       dict "root" "index" "values"      JSON: one LINK
  link-side.address    "198.18.0.2:7401"                 JSON: {"ip", "port"}, or {} when it is no IP address

Values that are missing are left out or empty here; _errors.tpl names them.
*/}}

{{- define "link-side.links" -}}
{{- $links := list -}}
{{- range $index, $values := .Values.links -}}
{{- $links = append $links (include "link-side.link" (dict "root" $ "index" $index "values" $values) | fromJson) -}}
{{- end -}}
{{- toJson (dict "links" $links) -}}
{{- end -}}

{{- define "link-side.link" -}}
{{- $values := .values -}}
{{- $ingress := eq .root.Values.side "ingress" -}}
{{- $id := int (default 0 $values.id) -}}
{{- $peer := include "link-side.address" (toString (default "" $values.peer)) | fromJson -}}
{{- $given := default dict $values.ports -}}
{{- $ports := dict
  "link" (default (default (add 7400 $id) $peer.port) $given.link | int)
  "admin" (default (include "link-side.adminPort" (dict "ingress" $ingress "id" $id "else" 0) | int) $given.admin | int)
  "exporter" (default 9598 $given.exporter | int)
  "statsd" (default 8125 $given.statsd | int)
  "syslog" (default 5140 $given.syslog | int)
  "api" (default 8686 $given.api | int)
-}}
{{- $link := dict
  "index" .index
  "path" (printf "links[%d]" .index)
  "values" $values
  "name" (default "" $values.name)
  "fullname" (printf "%s-%s" (include "ddc.fullname" .root) (default "" $values.name))
  "id" $id
  "ip" (default "" $peer.ip)
  "ports" $ports
  "interface" (default (ternary "net1" "" (ne "" (default "" $values.networks))) $values.interface)
  "nodeSelector" (default .root.Values.nodeSelector $values.nodeSelector)
-}}
{{- if hasKey $values "telemetry" -}}
{{- $_ := set $link "telemetry" (include "link-side.telemetryLink" (dict "ingress" $ingress "link" $link "values" $values.telemetry) | fromJson) -}}
{{- end -}}
{{- toJson $link -}}
{{- end -}}

{{/* The telemetry link in the pod of LINK. */}}
{{- define "link-side.telemetryLink" -}}
{{- $values := .values -}}
{{- $id := int (default 0 $values.id) -}}
{{- $peer := include "link-side.address" (toString (default (default "" .link.ip) $values.peer)) | fromJson -}}
{{- $given := default dict $values.ports -}}
{{- $ports := dict
  "link" (default (default (add 7400 $id) $peer.port) $given.link | int)
  "admin" (default (include "link-side.adminPort" (dict "ingress" .ingress "id" $id "else" 19) | int) $given.admin | int)
  "statsd" (default (ternary 8126 8127 .ingress) $given.statsd | int)
  "syslog" (default (ternary 5141 5142 .ingress) $given.syslog | int)
-}}
{{- toJson (dict
  "path" (printf "%s.telemetry" .link.path)
  "values" $values
  "name" (default (printf "telemetry-%s" .link.name) $values.name)
  "id" $id
  "ip" (default "" $peer.ip)
  "ports" $ports
  "interface" .link.interface
  "hostMetrics" (and .ingress (default false $values.hostMetrics))
) -}}
{{- end -}}

{{/* By custom 9640 + id on an ingress and 9660 + id on an egress; ids above 19 would run into each other. */}}
{{- define "link-side.adminPort" -}}
{{- add (ternary 9640 9660 .ingress) (ternary .id .else (le (int .id) 19)) -}}
{{- end -}}

{{- define "link-side.address" -}}
{{- $ip := "" -}}
{{- $port := "" -}}
{{- if regexMatch "^[0-9.]+(:[0-9]+)?$" . -}}
{{- $ip = regexReplaceAll ":.*$" . "" -}}
{{- $port = regexReplaceAll "^[^:]*:?" . "" -}}
{{- if not (regexMatch "^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\\.|$)){4}$" $ip) }}{{ $ip = "" }}{{ end -}}
{{- else if regexMatch "^\\[[0-9a-fA-F:.]+\\](:[0-9]+)?$" . -}}
{{- $ip = regexReplaceAll "^\\[|\\].*$" . "" -}}
{{- $port = regexReplaceAll "^.*\\]:?" . "" -}}
{{- else if regexMatch "^[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$" . -}}
{{- $ip = . -}}
{{- end -}}
{{- if $ip -}}
{{- toJson (dict "ip" $ip "port" (ternary nil (int $port) (eq $port ""))) -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* An address in a URL or TOML: IPv6 in brackets. dict "ip" "port" */}}
{{- define "link-side.socket" -}}
{{- printf (ternary "[%s]:%v" "%s:%v" (contains ":" .ip)) .ip .port -}}
{{- end -}}

{{- define "link-side.selector" -}}
{{- include "ddc.sideLabels" .root }}
link: {{ .link.name }}
{{- end -}}

{{- define "link-side.labels" -}}
{{- include "ddc.labels" .root }}
app.kubernetes.io/component: {{ .root.Values.side }}
link: {{ .link.name }}
{{- end -}}
