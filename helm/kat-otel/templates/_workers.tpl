{{- define "kat.workerImage" -}}
{{ .Values.workers.image }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- /* What a worker's environment needs beside the exporter's address. Takes root and folder, where its secret is mounted. */ -}}
{{- define "kat.workerEnv" -}}
{{- $values := .root.Values -}}
- {name: KAT_OTEL, value: "on"}
- {name: KAT_CONTROL_ENDPOINT, value: "{{ include "kat.scheme" .root }}://{{ include "kat.processorsHost" .root }}:4329/v1/opamp"}
{{- with $values.workers.env }}
{{ toYaml . }}
{{- end }}
{{- $headers := list }}
{{- with $values.workers.secretName }}
- {name: KAT_CONTROL_CERTIFICATE, value: {{ $.folder }}/ca.crt}
{{- if $values.auth.tokenSecret.name }}
- {name: KAT_CONTROL_TOKEN_FILE, value: {{ $.folder }}/{{ $values.auth.tokenSecret.key }}}
- {name: KAT_TOKEN, valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.auth.tokenSecret.key }}}}}
{{- $headers = append $headers "authorization=Bearer%20$(KAT_TOKEN)" }}
{{- end }}
{{- end }}
{{- if eq $values.topology "kafka" }}{{ $headers = append $headers "kat-instance-id=$(KAT_INSTANCE_ID)" }}{{ end }}
{{- with $headers }}
- {name: OTEL_EXPORTER_OTLP_HEADERS, value: "{{ join "," . }}"}
{{- end }}
{{- end }}
