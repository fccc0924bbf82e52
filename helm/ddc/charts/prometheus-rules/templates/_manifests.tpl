{{/*
The rules of deploy/prometheus/rules/parts as they are, one PrometheusRule a part: the parts that a Prometheus needs which sees one side or both
(rules/source, rules/destination, rules/both there).
*/}}
{{- define "prometheus-rules.parts" -}}
{{- $source := list "hosts" "ingress" "process" "telemetry" -}}
{{- toJson (dict "source" $source "destination" (concat $source (list "egress" "far")) "both" (concat $source (list "egress" "far"))) -}}
{{- end -}}

{{- define "prometheus-rules.view" -}}
{{- $bySide := dict "ingress" "source" "egress" "destination" -}}
{{- .Values.prometheusRules.view | default (get $bySide .Values.side) -}}
{{- end -}}

{{- define "prometheus-rules.manifests" -}}
{{- $values := .Values.prometheusRules -}}
{{- if $values.enabled -}}
{{- $root := . -}}
{{- $files := (index .Subcharts "prometheus-rules").Files -}}
{{- range $part := get (include "prometheus-rules.parts" . | fromJson) (include "prometheus-rules.view" .) }}
{{- include "prometheus-rules.rule" (dict "root" $root "name" $part "content" ($files.Get (printf "files/parts/%s.yml" $part))) }}
{{- end }}
{{- if $values.compatibility }}
{{- include "prometheus-rules.rule" (dict "root" $root "name" "compat" "content" ($files.Get "files/compat.yml")) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "prometheus-rules.rule" -}}
{{- $values := .root.Values.prometheusRules -}}
{{- $content := .content -}}
{{- with $values.docsUrl }}{{ $content = replace "{{ $externalLabels.ddc_docs }}" . $content }}{{ end -}}
{{- with $values.grafanaUrl }}{{ $content = replace "{{ $externalLabels.ddc_grafana }}" . $content }}{{ end }}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ include "ddc.fullname" .root }}-{{ .name }}
  labels:
    {{- include "ddc.labels" .root | nindent 4 }}
    app.kubernetes.io/component: prometheus-rules
    {{- with $values.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- $content | trimSuffix "\n" | nindent 2 }}
{{- end -}}
