{{- /* A collector's container. Takes root, files (of the config map, the last wins) and env. */ -}}
{{- define "kat.collector" -}}
{{- $root := .root -}}
name: collector
image: {{ $root.Values.collector.image.repository }}:{{ $root.Values.collector.image.tag }}
imagePullPolicy: {{ $root.Values.collector.image.pullPolicy }}
args:
  {{- range .files }}
  - --config=/etc/otelcol/{{ . }}
  {{- end }}
env:
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: KAT_COLLECTOR_GRPC_ENDPOINT, value: "0.0.0.0:4317"}
  - {name: KAT_COLLECTOR_HTTP_ENDPOINT, value: "0.0.0.0:4318"}
  - {name: KAT_COLLECTOR_HEALTH_ENDPOINT, value: "0.0.0.0:13133"}
  - {name: KAT_COLLECTOR_METRICS_PORT, value: "8887"}
  - {name: KAT_PROMETHEUS_ENDPOINT, value: "0.0.0.0:8889"}
  - {name: KAT_COLLECTOR_STATE, value: /var/lib/otelcol/kat}
  {{- if $root.Values.kafka.brokers }}
  - {name: KAT_KAFKA_BROKERS, value: {{ toJson $root.Values.kafka.brokers | quote }}}
  - {name: KAT_KAFKA_MEMBER, value: $(POD_NAME)}
  {{- end }}
  {{- range $name, $value := $root.Values.collector.env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
ports:
  {{- if .receives }}
  - {name: otlp-grpc, containerPort: 4317}
  - {name: otlp-http, containerPort: 4318}
  {{- end }}
  {{- if .exports }}
  - {name: fleet-metrics, containerPort: 8889}
  {{- end }}
  - {name: col-health, containerPort: 13133}
readinessProbe:
  httpGet: {path: /, port: col-health}
livenessProbe:
  httpGet: {path: /, port: col-health}
  initialDelaySeconds: 10
  failureThreshold: 6
resources:
  {{- toYaml $root.Values.collector.resources | nindent 2 }}
securityContext:
  {{- include "kat.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: collector-config, mountPath: /etc/otelcol, readOnly: true}
  - {name: collector-state, mountPath: /var/lib/otelcol/kat}
  {{- if $root.Values.tls.secretName }}
  - {name: tls, mountPath: /etc/kat-tls, readOnly: true}
  {{- end }}
{{- end }}

{{- define "kat.backendFiles" -}}
{{- if eq .Values.topology "single" }}gateway.yaml{{ else if eq .Values.topology "kafka" }}kafka-consumer.yaml backend.yaml{{ else }}backend.yaml{{ end }} {{ if eq .Values.topology "single" }}receiver-overlay.yaml {{ end }}backend-overlay.yaml
{{- end }}

{{- /* What the chart's own settings change in a tier that receives from workers. */ -}}
{{- define "kat.receiverOverlay" -}}
{{- $overlay := dict -}}
{{- if .Values.tls.secretName }}
{{- $tls := dict "cert_file" "/etc/kat-tls/tls.crt" "key_file" "/etc/kat-tls/tls.key" -}}
{{- $overlay = dict "receivers" (dict "otlp" (dict "protocols" (dict "grpc" (dict "tls" $tls) "http" (dict "tls" $tls)))) -}}
{{- end }}
{{- if eq .Values.topology "loadBalanced" }}
{{- $to := dict "resolver" (dict "static" nil "dns" (dict "hostname" (printf "%s-processors.%s.svc" (include "kat.name" .) .Release.Namespace) "port" "4327")) -}}
{{- if .Values.tls.secretName }}
{{- $to = merge $to (dict "protocol" (dict "otlp" (dict "tls" (dict "insecure" false "ca_file" "/etc/kat-tls/ca.crt" "server_name_override" (printf "%s-processors" (include "kat.name" .)))))) -}}
{{- end }}
{{- $overlay = merge $overlay (dict "exporters" (dict "load_balancing" $to)) -}}
{{- end }}
{{- mergeOverwrite $overlay (deepCopy .Values.collector.config) | toYaml }}
{{- end }}
