{{/*
What the schema cannot say: that values fit each other. All mistakes are gathered and told at once, each with the path of its value and what
to set. Every file of templates/ begins with it, so nothing is rendered from wrong values.
*/}}
{{- define "ddc.validate" -}}
{{- $found := dict "errors" list -}}
{{- include "ddc.errors" (dict "root" . "found" $found) -}}
{{- include "link-side.errors" (dict "root" . "found" $found) -}}
{{- with $found.errors | uniq -}}
{{- fail (printf "\n\n%d of the values must be corrected:\n\n  %s\n" (len .) (join "\n  " .)) -}}
{{- end -}}
{{- end -}}

{{/* list FOUND PATH TEXT… */}}
{{- define "ddc.error" -}}
{{- $found := first . -}}
{{- $_ := set $found "errors" (append $found.errors (printf "%s: %s" (index . 1) (index . 2))) -}}
{{- end -}}

{{/* What concerns no single link. */}}
{{- define "ddc.errors" -}}
{{- $values := .root.Values -}}
{{- $found := .found -}}
{{- if $values.links -}}
{{- if not $values.side -}}
{{- include "ddc.error" (list $found "side" "missing. Set it to ingress (this cluster reads Kafka and sends) or egress (it receives and writes to Kafka)") -}}
{{- end -}}
{{- if and $values.hostNetwork (not $values.acceptPrivilegedNamespace) -}}
{{- include "ddc.error" (list $found "acceptPrivilegedNamespace" (printf "must be true with hostNetwork: Pod Security admits such pods only where it is set to privileged. Run: kubectl label namespace %s pod-security.kubernetes.io/enforce=privileged, and set acceptPrivilegedNamespace to true; or use links[].networks (Multus) instead of hostNetwork" .root.Release.Namespace)) -}}
{{- end -}}
{{- if $values.requireDigests -}}
{{- if not $values.image.digest -}}
{{- include "ddc.error" (list $found "image.digest" "empty, and requireDigests is true. Set it to the digest of the image that you pushed (sha256:…); `skopeo inspect` prints it") -}}
{{- end -}}
{{- if and $values.vector.enabled (not $values.vector.image.digest) -}}
{{- include "ddc.error" (list $found "vector.image.digest" "empty, and requireDigests is true. Run `make mirror` on a connected machine and add -f bundle/helm-values.yaml") -}}
{{- end -}}
{{- end -}}
{{- else if not (or $values.prometheusRules.enabled $values.dashboards.enabled) -}}
{{- include "ddc.error" (list $found "links" "empty: there is nothing to install. Add a link with name, id, peer, brokers and keys; or, for monitoring alone, set prometheusRules.enabled or dashboards.enabled to true") -}}
{{- end -}}
{{- if $values.vector.enabled -}}
{{- if and $values.vector.auth.secret (not $values.vector.tls.secret) -}}
{{- include "ddc.error" (list $found "vector.auth.secret" "the password would travel in the clear. Set vector.tls.secret too") -}}
{{- end -}}
{{- if and $values.vector.tls.clientCertificates (not $values.vector.tls.secret) -}}
{{- include "ddc.error" (list $found "vector.tls.clientCertificates" "needs TLS. Set vector.tls.secret") -}}
{{- end -}}
{{- range $name, $_ := $values.vector.extraConfig -}}
{{- if not (regexMatch "^[A-Za-z0-9._-]+\\.(yaml|toml|json)$" $name) -}}
{{- include "ddc.error" (list $found (printf "vector.extraConfig.%s" $name) "is no file name that Vector can tell the format of. Name it like loki.yaml") -}}
{{- end -}}
{{- end -}}
{{- $set := dict "DDC_SITE" "site" "DDC_STATSD_LISTEN" "links[].ports.statsd" "DDC_SYSLOG_LISTEN" "links[].ports.syslog" "DDC_EXPORTER_LISTEN" "links[].ports.exporter" "DDC_VECTOR_API_LISTEN" "links[].ports.api" "DDC_EXPORTER_TLS" "vector.tls.secret" "DDC_EXPORTER_USER" "vector.auth.secret" "DDC_EXPORTER_PASSWORD" "vector.auth.secret" -}}
{{- range $name, $_ := $values.vector.env -}}
{{- with get $set $name -}}
{{- include "ddc.error" (list $found (printf "vector.env.%s" $name) (printf "is set by the chart. Use %s" .)) -}}
{{- end -}}
{{- end -}}
{{- else if $values.podMonitor.enabled -}}
{{- include "ddc.error" (list $found "podMonitor.enabled" "there is nothing to scrape without Vector. Set vector.enabled to true, or podMonitor.enabled to false") -}}
{{- end -}}
{{- if and $values.podMonitor.enabled (not $values.links) -}}
{{- include "ddc.error" (list $found "podMonitor.enabled" "there are no pods to scrape. Add links, or set it to false") -}}
{{- end -}}
{{- if and $values.prometheusRules.enabled (not $values.side) (not $values.prometheusRules.view) -}}
{{- include "ddc.error" (list $found "prometheusRules.view" "missing. Set it to what this Prometheus sees: source, destination or both") -}}
{{- end -}}
{{- end -}}
