{{/* Each page of grafana/dashboards, as it is: one ConfigMap a page, for Grafana's sidecar. */}}
{{- define "dashboards.manifests" -}}
{{- $values := .Values.dashboards -}}
{{- if $values.enabled -}}
{{- $root := . -}}
{{- range $path, $content := .Subcharts.dashboards.Files.Glob "files/*.json" }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "ddc.fullname" $root }}-dashboard-{{ base $path | trimSuffix ".json" }}
  labels:
    {{- include "ddc.labels" $root | nindent 4 }}
    app.kubernetes.io/component: dashboards
    {{- with $values.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  ddc-{{ base $path }}: |
    {{- toString $content | trimSuffix "\n" | nindent 4 }}
{{- end }}
{{- end }}
{{- end -}}
