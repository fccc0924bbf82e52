{{/* Everything of the links but their Deployments (_deployment.tpl): service account, configuration, state, NetworkPolicy. */}}
{{- define "link-side.manifests" -}}
{{- $root := . -}}
{{- if and .Values.links (not .Values.serviceAccountName) }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "ddc.fullname" . }}
  labels:
    {{- include "ddc.labels" . | nindent 4 }}
# Nothing in these pods talks to Kubernetes.
automountServiceAccountToken: false
{{- end }}
{{- range $link := (include "link-side.links" . | fromJson).links }}
{{- $context := dict "root" $root "link" $link }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $link.fullname }}
  labels:
    {{- include "link-side.labels" $context | nindent 4 }}
data:
  {{- include "link-side.files" $context | nindent 2 }}
{{- if and $root.Values.state.persistent (not $link.values.existingClaim) }}
{{- include "link-side.claim" $context }}
{{- end }}
{{- if and $root.Values.networkPolicy.enabled (not $root.Values.hostNetwork) }}
{{- include "link-side.networkPolicy" $context }}
{{- end }}
{{- include "link-side.deployment" $context }}
{{- end }}
{{- end -}}

{{- define "link-side.files" -}}
ddc.toml: |
  {{- include "link-side.config" . | trimSuffix "\n" | nindent 2 }}
{{- if .link.telemetry }}
telemetry.toml: |
  {{- include "link-side.telemetryConfig" . | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "link-side.claim" -}}
{{- $state := .root.Values.state }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .link.fullname }}
  labels:
    {{- include "link-side.labels" . | nindent 4 }}
  {{- if $state.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
  accessModes: [{{ $state.accessMode }}]
  {{- with $state.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $state.size }}
{{- end -}}

{{/*
What the pod may reach and who may reach it. NetworkPolicies hold on the pod network only: with a secondary network the link's datagrams go
there, and none may come over the pod network.
*/}}
{{- define "link-side.networkPolicy" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- $ingress := eq .root.Values.side "ingress" -}}
{{- $links := list .link -}}
{{- with .link.telemetry }}{{ $links = append $links . }}{{ end -}}
{{- if .link.values.networks }}{{ $links = list }}{{ end -}}
{{- $brokerPorts := $policy.brokerPorts -}}
{{- range default list .link.values.brokers }}{{ $brokerPorts = append $brokerPorts (regexFind "[0-9]+$" . | int) }}{{ end }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .link.fullname }}
  labels:
    {{- include "link-side.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "link-side.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- $in := list }}
  {{- if not $ingress }}
  {{- range $links }}
  {{- $in = append $in (dict "from" (list (include "link-side.block" . | fromYaml)) "ports" (list (dict "protocol" "UDP" "port" (int .ports.link)))) }}
  {{- end }}
  {{- end }}
  {{- if and .root.Values.vector.enabled $policy.prometheus }}
  {{- $in = append $in (dict "from" $policy.prometheus "ports" (list (dict "protocol" "TCP" "port" (int .link.ports.exporter)))) }}
  {{- end }}
  {{- with concat $in $policy.extraIngress }}
  ingress:
    {{- toYaml . | nindent 4 }}
  {{- else }}
  ingress: []
  {{- end }}
  {{- $dns := dict "ports" (list (dict "protocol" "UDP" "port" 53) (dict "protocol" "TCP" "port" 53)) }}
  {{- with $policy.dns }}{{ $_ := set $dns "to" . }}{{ end }}
  {{- $out := list $dns }}
  {{- if $brokerPorts }}
  {{- $rule := dict "ports" list }}
  {{- range uniq $brokerPorts }}{{ $_ := set $rule "ports" (append $rule.ports (dict "protocol" "TCP" "port" (int .))) }}{{ end }}
  {{- with $policy.brokers }}{{ $_ := set $rule "to" . }}{{ end }}
  {{- $out = append $out $rule }}
  {{- end }}
  {{- if $ingress }}
  {{- range $links }}
  {{- $out = append $out (dict "to" (list (include "link-side.block" . | fromYaml)) "ports" (list (dict "protocol" "UDP" "port" (int .ports.link)))) }}
  {{- end }}
  {{- end }}
  egress:
    {{- toYaml (concat $out $policy.extraEgress) | nindent 4 }}
{{- end -}}

{{/* One address as a NetworkPolicy peer. Takes a LINK. */}}
{{- define "link-side.block" -}}
ipBlock:
  cidr: {{ printf "%s/%s" .ip (ternary "128" "32" (contains ":" .ip)) }}
{{- end -}}
