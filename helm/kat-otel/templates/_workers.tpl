{{- define "kat.workerImage" -}}
{{ .Values.workers.image }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- /* What a reader of the patch puts in. */ -}}
{{- define "kat.placeholders" -}}
s/SERVER/vllm/{{ if eq .Values.topology "kafka" }}; s/THIS-INSTANCE/llama/{{ end }}
{{- end }}

{{- /* What a worker's environment needs beside the exporter's address. Takes root, folder (where its secret is mounted) and
       names (a patch: its variables come before the container's own, so what they refer to must be among them). */ -}}
{{- define "kat.workerEnv" -}}
{{- $values := .root.Values -}}
- {name: KAT_OTEL, value: "on"}
- {name: KAT_CONTROL_ENDPOINT, value: "{{ include "kat.scheme" .root }}://{{ include "kat.processorsHost" .root }}:4329/v1/opamp"}
{{- with $values.workers.env }}
{{ toYaml . }}
{{- end }}
{{- $headers := list }}
{{- if eq $values.topology "kafka" }}
{{- $headers = append $headers "kat-instance-id=$(KAT_INSTANCE_ID)" }}
{{- $given := false }}
{{- range $values.workers.env }}{{ if eq .name "KAT_INSTANCE_ID" }}{{ $given = true }}{{ end }}{{ end }}
{{- if and .names (not $given) }}
- {name: KAT_INSTANCE_ID, value: THIS-INSTANCE}
{{- end }}
{{- end }}
{{- with $values.workers.secretName }}
- {name: KAT_CONTROL_CERTIFICATE, value: {{ $.folder }}/ca.crt}
{{- if $values.auth.tokenSecret.name }}
- {name: KAT_CONTROL_TOKEN_FILE, value: {{ $.folder }}/{{ $values.auth.tokenSecret.key }}}
- {name: KAT_TOKEN, valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.auth.tokenSecret.key }}}}}
{{- $headers = append $headers "authorization=Bearer%20$(KAT_TOKEN)" }}
{{- end }}
{{- end }}
{{- with $headers }}
- {name: OTEL_EXPORTER_OTLP_HEADERS, value: "{{ join "," . }}"}
{{- end }}
{{- end }}
