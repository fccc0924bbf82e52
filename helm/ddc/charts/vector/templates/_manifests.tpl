{{/* The files of vector/ in a ConfigMap, and a PodMonitor for what Vector shows. */}}

{{/*
vector.yaml without its Unix socket: a socket outlives a container that was killed, and Vector does not start over one. In a pod the
proxies reach Vector over loopback anyway.
*/}}
{{- define "vector.yaml" -}}
{{- $all := .Subcharts.vector.Files.Get "files/vector.yaml" -}}
{{- $text := regexReplaceAll "(?m)^  # A stream socket;.*\\n  syslog_unix:\\n(?:    .*\\n)+\\n" $all "" | replace ", syslog_unix]" "]" -}}
{{- if or (contains "syslog_unix" $text) (eq $all $text) -}}
{{- fail "vector/vector.yaml has changed: charts/vector/templates/_manifests.tpl no longer finds its Unix socket" -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "vector.manifests" -}}
{{- if and .Values.vector.enabled .Values.links }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "ddc.fullname" . }}-vector
  labels:
    {{- include "ddc.labels" . | nindent 4 }}
    app.kubernetes.io/component: vector
data:
  {{- include "vector.data" . | nindent 2 }}
{{- end }}
{{- with .Values.podMonitor }}
{{- if .enabled }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "ddc.fullname" $ }}
  labels:
    {{- include "ddc.labels" $ | nindent 4 }}
    app.kubernetes.io/component: vector
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "ddc.sideLabels" $ | nindent 6 }}
  sampleLimit: {{ int .sampleLimit }}
  podMetricsEndpoints:
    - {{- include "vector.endpoint" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "vector.data" -}}
{{- $files := .Subcharts.vector.Files -}}
vector.yaml: |
  {{- include "vector.yaml" . | trimSuffix "\n" | nindent 2 }}
{{- range $name := list "exporter.yaml" "exporter-auth.yaml" "destination.yaml" "host-metrics.yaml" }}
{{ $name }}: |
  {{- $files.Get (printf "files/%s" $name) | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- range $path, $content := $files.Glob "files/vrl/*.vrl" }}
{{ base $path }}: |
  {{- toString $content | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- range $name, $content := .Values.vector.extraConfig }}
extra-{{ $name }}: |
  {{- $content | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- end -}}

{{/* As deploy/prometheus/prometheus-*.yml scrape it: the series bring their own site, side, link and process, and these hold. */}}
{{- define "vector.endpoint" -}}
{{- $endpoint := dict "port" "metrics" "path" "/metrics" "interval" .Values.podMonitor.interval "scrapeTimeout" .Values.podMonitor.scrapeTimeout "honorLabels" true -}}
{{- $relabelings := list (dict "targetLabel" "ddc_role" "replacement" "vector") (dict "targetLabel" "ddc_side" "replacement" .Values.side) -}}
{{- with .Values.site }}{{ $relabelings = append $relabelings (dict "targetLabel" "site" "replacement" .) }}{{ end -}}
{{- $_ := set $endpoint "relabelings" $relabelings -}}
{{- $_ := set $endpoint "metricRelabelings" (list (dict "action" "labeldrop" "regex" "ddc_role|ddc_side")) -}}
{{- with .Values.vector.tls.secret -}}
{{- $_ := set $endpoint "scheme" "https" -}}
{{- $_ := set $endpoint "tlsConfig" (dict "ca" (dict "secret" (dict "name" . "key" "ca.crt"))) -}}
{{- end -}}
{{- with .Values.vector.auth.secret -}}
{{- $_ := set $endpoint "basicAuth" (dict "username" (dict "name" . "key" "username") "password" (dict "name" . "key" "password")) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $endpoint (deepCopy .Values.podMonitor.endpoint)) -}}
{{- end -}}
