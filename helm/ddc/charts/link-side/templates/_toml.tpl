{{/*
A map as TOML, as people write it: scalars first, then a table for each map. Helm's own toToml writes whole numbers that came out of JSON as
1.0, which is no id. Takes the map.
*/}}
{{- define "link-side.toml" -}}
{{- include "link-side.toml.table" (dict "table" . "path" "") | trim }}
{{ end -}}

{{- define "link-side.toml.table" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if not (include "link-side.toml.isTable" $value) }}
{{ include "link-side.toml.key" $key }} = {{ include "link-side.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if include "link-side.toml.isTable" $value -}}
{{- $below := printf "%s%s" (ternary "" (printf "%s." $path) (eq $path "")) (include "link-side.toml.key" $key) -}}
{{- if kindIs "map" $value }}
{{- if include "link-side.toml.needsHeader" $value }}

[{{ $below }}]
{{- end -}}
{{- include "link-side.toml.table" (dict "table" $value "path" $below) -}}
{{- else -}}
{{- range $value }}

[[{{ $below }}]]
{{- include "link-side.toml.table" (dict "table" . "path" $below) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A table that holds nothing but tables needs no line of its own. */}}
{{- define "link-side.toml.needsHeader" -}}
{{- if empty . }}yes{{ end -}}
{{- range . }}{{ if not (include "link-side.toml.isTable" .) }}yes{{ end }}{{ end -}}
{{- end -}}

{{/* Not empty for a map and for a list of maps. */}}
{{- define "link-side.toml.isTable" -}}
{{- if kindIs "map" . -}}
yes
{{- else if kindIs "slice" . -}}
{{- if and . (kindIs "map" (first .)) }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{- define "link-side.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end -}}
{{- end -}}

{{- define "link-side.toml.value" -}}
{{- if kindIs "slice" . -}}
[{{- range $i, $value := . }}{{ if $i }}, {{ end }}{{ include "link-side.toml.value" $value }}{{ end -}}]
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if typeIs "json.Number" . -}}
{{- . -}}
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}
