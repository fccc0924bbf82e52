{{/*
One process for one side of one link. Takes dict "root" ROOT "link" LINK.

There is no Service: one-way UDP through one goes stale in the node's connection table, and after a restart datagrams vanish for hours.
There is no `replicas`: it is 1, and `kubectl scale --replicas=0` stays in force over an upgrade. Recreate: two of one link would be two senders.
*/}}
{{- define "link-side.deployment" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $link := .link }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $link.fullname }}
  labels:
    {{- include "link-side.labels" . | nindent 4 }}
spec:
  strategy:
    type: Recreate
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      {{- include "link-side.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        # Not the chart's version: it would restart every link.
        {{- include "link-side.selector" . | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: ddc
        # ddc reads its files at the start: a change of them is a new pod.
        checksum/config: {{ include "link-side.files" . | sha256sum }}
        {{- if $values.vector.enabled }}
        checksum/vector: {{ include "vector.data" $root | sha256sum }}
        {{- end }}
        {{- with $link.values.networks }}
        k8s.v1.cni.cncf.io/networks: {{ . | quote }}
        {{- end }}
        {{- with mergeOverwrite (deepCopy $values.podAnnotations) (deepCopy (default dict $link.values.podAnnotations)) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ default (include "ddc.fullname" $root) $values.serviceAccountName }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- if $values.hostNetwork }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- end }}
      terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        # Secrets and the state volume belong to this group.
        fsGroup: 65532
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      {{- with $link.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $values.vector.enabled }}
      initContainers:
        {{- include "vector.container" . | nindent 8 }}
      {{- end }}
      containers:
        {{- include "link-side.container" (dict "root" $root "container" "ddc" "link" $link "resources" (default $values.resources $link.values.resources)) | nindent 8 }}
        {{- with $link.telemetry }}
        {{- include "link-side.container" (dict "root" $root "container" "telemetry" "link" . "resources" $values.telemetryResources) | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "link-side.volumes" (dict "fullname" $link.fullname "container" "ddc" "link" $link) | nindent 8 }}
        {{- with $link.telemetry }}
        {{- include "link-side.volumes" (dict "fullname" $link.fullname "container" "telemetry" "link" .) | nindent 8 }}
        {{- end }}
        - name: state
          {{- if $values.state.persistent }}
          persistentVolumeClaim:
            claimName: {{ default $link.fullname $link.values.existingClaim }}
          {{- else }}
          emptyDir:
            sizeLimit: 64Mi
          {{- end }}
        {{- if $values.vector.enabled }}
        {{- include "vector.volumes" . | nindent 8 }}
        {{- end }}
        {{- with $values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}

{{/* dict "root" "container" NAME "link" LINK "resources" */}}
{{- define "link-side.container" -}}
{{- $values := .root.Values -}}
{{- $admin := printf "127.0.0.1:%v" .link.ports.admin -}}
- name: {{ .container }}
  image: {{ include "ddc.image" (dict "image" $values.image "tag" (default .root.Chart.AppVersion $values.image.tag)) | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args: [{{ $values.side }}, --config, /etc/ddc/ddc.toml]
  {{- with $values.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq $values.side "egress" }}
  ports:
    - name: {{ ternary "link" "telemetry" (eq .container "ddc") }}
      containerPort: {{ .link.ports.link }}
      protocol: UDP
  {{- end }}
  # Alive does not ask for Kafka: a broker that is away is no reason to restart, which would lose datagrams. Ready does.
  startupProbe:
    exec:
      command: [/usr/bin/ddc, ready, --live, --admin, {{ $admin | quote }}]
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 30
  livenessProbe:
    exec:
      command: [/usr/bin/ddc, ready, --live, --admin, {{ $admin | quote }}]
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    exec:
      command: [/usr/bin/ddc, ready, --admin, {{ $admin | quote }}]
    periodSeconds: 10
    timeoutSeconds: 5
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "ddc.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - name: {{ .container }}-config
      mountPath: /etc/ddc
      readOnly: true
    - name: {{ .container }}-secrets
      mountPath: /run/secrets/ddc
      readOnly: true
    - name: state
      mountPath: /var/lib/ddc
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Configuration and secrets of one container; the files have the names that link-side.linkTable and link-side.security give them. */}}
{{- define "link-side.volumes" -}}
{{- $values := .link.values -}}
- name: {{ .container }}-config
  configMap:
    name: {{ .fullname }}
    items:
      - { key: {{ .container }}.toml, path: ddc.toml }
- name: {{ .container }}-secrets
  projected:
    # ddc refuses keys that others can read; the pod's group is fsGroup.
    defaultMode: 0440
    sources:
      {{- range $values.keys }}
      - secret:
          name: {{ .secret }}
          items:
            - { key: {{ default "link.key" .item | quote }}, path: link-{{ hasKey . "id" | ternary .id 1 }}.key }
      {{- end }}
      {{- with $values.sasl }}
      {{- if .secret }}
      - secret:
          name: {{ .secret }}
          items:
            - { key: {{ default "password" .item | quote }}, path: kafka.password }
      {{- end }}
      {{- end }}
      {{- with $values.tls }}
      {{- if or .caSecret .caConfigMap }}
      - {{ ternary "secret" "configMap" (ne "" (default "" .caSecret)) }}:
          name: {{ default .caConfigMap .caSecret }}
          items:
            - { key: {{ default "ca.crt" .caItem | quote }}, path: kafka-ca.pem }
      {{- end }}
      {{- if .clientSecret }}
      - secret:
          name: {{ .clientSecret }}
          items:
            - { key: tls.crt, path: kafka-client.pem }
            - { key: tls.key, path: kafka-client.key }
            {{- with .clientKeyPasswordItem }}
            - { key: {{ . | quote }}, path: kafka-client.key-password }
            {{- end }}
      {{- end }}
      {{- end }}
{{- end -}}
