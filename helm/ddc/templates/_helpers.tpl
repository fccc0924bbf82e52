{{/* What all parts share: names, labels, images. */}}

{{- define "ddc.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end -}}

{{/* Labels of everything. */}}
{{- define "ddc.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: ddc
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ddc
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The pods of this release's side, of all its links. */}}
{{- define "ddc.sideLabels" -}}
app.kubernetes.io/name: ddc
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.side }}
{{- end -}}

{{/* dict "image" IMAGE "tag" TAG: a digest counts more than a tag. */}}
{{- define "ddc.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .tag }}
{{- end -}}
{{- end -}}

{{/* What restricted Pod Security asks of a container, and a read-only root file system besides. */}}
{{- define "ddc.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
