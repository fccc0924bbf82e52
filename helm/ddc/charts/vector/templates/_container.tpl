{{/*
Vector in the pod of a link, as a native sidecar: up before the proxy, down after it. Takes dict "root" ROOT "link" LINK.
It has neither a startup nor a readiness probe on purpose: a Vector that does not come up must not keep records waiting, nor call the link unready.
*/}}
{{- define "vector.container" -}}
{{- $values := .root.Values.vector -}}
- name: vector
  restartPolicy: Always
  image: {{ include "ddc.image" (dict "image" $values.image "tag" $values.image.tag) | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args:
    {{- range include "vector.files" . | fromJsonArray }}
    - --config
    - /etc/ddc/vector/{{ . }}
    {{- end }}
  env:
    - name: POD_IP
      valueFrom:
        fieldRef:
          fieldPath: status.podIP
    {{- range $name, $value := include "vector.environment" . | fromJson }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
    {{- with $values.auth.secret }}
    {{- range $name, $key := dict "DDC_EXPORTER_USER" "username" "DDC_EXPORTER_PASSWORD" "password" }}
    - name: {{ $name }}
      valueFrom:
        secretKeyRef:
          name: {{ $values.auth.secret }}
          key: {{ $key }}
    {{- end }}
    {{- end }}
  ports:
    - name: metrics
      containerPort: {{ .link.ports.exporter }}
      protocol: TCP
  livenessProbe:
    tcpSocket:
      port: metrics
    periodSeconds: 20
    timeoutSeconds: 5
    failureThreshold: 6
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "ddc.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - name: vector-config
      mountPath: /etc/ddc/vector
      readOnly: true
    {{- if $values.tls.secret }}
    - name: vector-tls
      mountPath: /etc/ddc/tls
      readOnly: true
    {{- end }}
{{- end -}}

{{/* The configuration files of this link's Vector, in the order in which they are given. */}}
{{- define "vector.files" -}}
{{- $values := .root.Values -}}
{{- $files := list "vector.yaml" (ternary "exporter-auth.yaml" "exporter.yaml" (ne $values.vector.auth.secret "")) -}}
{{- with .link.telemetry -}}
{{- if eq $values.side "egress" }}{{ $files = append $files "destination.yaml" }}{{ end -}}
{{- if .hostMetrics }}{{ $files = append $files "host-metrics.yaml" }}{{ end -}}
{{- end -}}
{{- range $name, $_ := $values.vector.extraConfig }}{{ $files = append $files (printf "extra-%s" $name) }}{{ end -}}
{{- toJson $files -}}
{{- end -}}

{{/*
Its settings (vector/README.md). The exporter listens on the pod's own address and nowhere else: with a secondary network "every address"
would be the diode's too.
*/}}
{{- define "vector.environment" -}}
{{- $values := .root.Values.vector -}}
{{- $ports := .link.ports -}}
{{- $loopback := "127.0.0.1:%v" -}}
{{- $env := dict
  "VECTOR_DANGEROUSLY_ALLOW_ENV_VAR_INTERPOLATION" "true"
  "DDC_VECTOR_DIR" "/etc/ddc/vector"
  "DDC_SITE" .root.Values.site
  "DDC_EXPORTER_LISTEN" (printf (ternary "[$(POD_IP)]:%v" "$(POD_IP):%v" $values.ipv6) $ports.exporter)
  "DDC_STATSD_LISTEN" (printf $loopback $ports.statsd)
  "DDC_SYSLOG_LISTEN" (printf $loopback $ports.syslog)
  "DDC_VECTOR_API_LISTEN" (printf $loopback $ports.api)
-}}
{{- with .link.telemetry -}}
{{- if eq $.root.Values.side "egress" -}}
{{- $_ := set $env "DDC_DIODE_STATSD_LISTEN" (printf $loopback .ports.statsd) -}}
{{- $_ := set $env "DDC_DIODE_SYSLOG_LISTEN" (printf $loopback .ports.syslog) -}}
{{- else -}}
{{- $_ := set $env "DDC_ACROSS_STATSD" (printf $loopback .ports.statsd) -}}
{{- end -}}
{{- end -}}
{{- if $values.tls.secret -}}
{{- $_ := set $env "DDC_EXPORTER_TLS" "true" -}}
{{- $_ := set $env "DDC_EXPORTER_CERT" "/etc/ddc/tls/tls.crt" -}}
{{- $_ := set $env "DDC_EXPORTER_KEY" "/etc/ddc/tls/tls.key" -}}
{{- $_ := set $env "DDC_EXPORTER_CA" "/etc/ddc/tls/ca.crt" -}}
{{- $_ := set $env "DDC_EXPORTER_CLIENT_CERTS" (toString $values.tls.clientCertificates) -}}
{{- end -}}
{{- toJson (merge $env $values.env) -}}
{{- end -}}

{{- define "vector.volumes" -}}
- name: vector-config
  configMap:
    name: {{ include "ddc.fullname" .root }}-vector
    items:
      {{- range include "vector.files" . | fromJsonArray }}
      - { key: {{ . }}, path: {{ . }} }
      {{- end }}
      {{- range $path, $_ := .root.Subcharts.vector.Files.Glob "files/vrl/*.vrl" }}
      - { key: {{ base $path }}, path: vrl/{{ base $path }} }
      {{- end }}
{{- with .root.Values.vector.tls.secret }}
- name: vector-tls
  secret:
    secretName: {{ . }}
    # Readable by the pod's group only.
    defaultMode: 0440
{{- end }}
{{- end -}}
