{{- /* A collector's container. Takes root, files (of the config map, the last wins), receives and exports (which ports it
       has), env, extraEnv, resources, mounts beside the common ones, and sidecar: it starts before the containers and ends after them. */ -}}
{{- define "kat.collector" -}}
{{- $root := .root -}}
name: collector
image: {{ $root.Values.collector.image.repository }}:{{ $root.Values.collector.image.tag }}
imagePullPolicy: {{ $root.Values.collector.image.pullPolicy }}
{{- if .sidecar }}
restartPolicy: Always
{{- end }}
args:
  {{- range .files }}
  - --config=/etc/otelcol/{{ . }}
  {{- end }}
env:
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  - {name: NODE_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
  - {name: KAT_COLLECTOR_GRPC_ENDPOINT, value: "0.0.0.0:4317"}
  - {name: KAT_COLLECTOR_HTTP_ENDPOINT, value: "0.0.0.0:4318"}
  - {name: KAT_COLLECTOR_HEALTH_ENDPOINT, value: "0.0.0.0:13133"}
  - {name: KAT_PROMETHEUS_ENDPOINT, value: "0.0.0.0:8889"}
  - {name: KAT_COLLECTOR_STATE, value: /var/lib/otelcol/kat}
  {{- if $root.Values.kafka.brokers }}
  - {name: KAT_KAFKA_BROKERS, value: {{ toJson $root.Values.kafka.brokers | quote }}}
  - {name: KAT_KAFKA_MEMBER, value: $(POD_NAME)}
  {{- end }}
  {{- range $name, $value := .env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- with .extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- if .receives }}
  - {name: otlp-grpc, containerPort: 4317}
  - {name: otlp-http, containerPort: 4318}
  {{- end }}
  {{- if .exports }}
  - {name: fleet-metrics, containerPort: 8889}
  {{- end }}
  - {name: col-metrics, containerPort: 8887}
  - {name: col-health, containerPort: 13133}
readinessProbe:
  httpGet: {path: /, port: col-health}
livenessProbe:
  httpGet: {path: /, port: col-health}
  initialDelaySeconds: 10
  failureThreshold: 6
lifecycle: # who sends hears of its end first; what came last has time to leave
  preStop: {sleep: {seconds: 10}}
resources:
  {{- toYaml .resources | nindent 2 }}
securityContext:
  {{- include "kat.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: collector-config, mountPath: /etc/otelcol, readOnly: true}
  - {name: collector-state, mountPath: /var/lib/otelcol/kat}
  {{- with .mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with include "kat.secretMounts" $root }}{{ . | trim | nindent 2 }}{{ end }}
{{- end }}

{{- define "kat.backendFiles" -}}
{{- if eq .Values.topology "single" }}gateway.yaml{{ else if eq .Values.topology "kafka" }}kafka-consumer.yaml backend.yaml{{ else }}backend.yaml{{ end }} {{ if eq .Values.topology "single" }}receiver-overlay.yaml {{ end }}backend-overlay.yaml
{{- end }}

{{- /* What the pod's layout asks for of any collector: its own metrics where Prometheus reaches them. */ -}}
{{- define "kat.anyOverlay" -}}
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 0.0.0.0, port: 8887}}}}]
{{- end }}

{{- /* What a tier that receives from workers has of its own: certificate and token. */ -}}
{{- define "kat.receivingOverlay" -}}
{{- $port := dict -}}
{{- if .Values.tls.secretName }}{{ $_ := set $port "tls" (dict "cert_file" "/etc/kat-tls/tls.crt" "key_file" "/etc/kat-tls/tls.key") }}{{ end -}}
{{- if .Values.auth.tokenSecret.name }}{{ $_ := set $port "auth" (dict "authenticator" "bearertokenauth/kat") }}{{ end -}}
{{- $overlay := include "kat.anyOverlay" . | fromYaml -}}
{{- if $port }}{{ $_ := set $overlay "receivers" (dict "otlp" (dict "protocols" (dict "grpc" $port "http" $port))) }}{{ end -}}
{{- if .Values.auth.tokenSecret.name }}
{{- $_ := set $overlay "extensions" (dict "bearertokenauth/kat" (dict "filename" (include "kat.tokenFile" .))) }}
{{- $_ := set $overlay.service "extensions" (list "file_storage/kat" "health_check" "bearertokenauth/kat") }}
{{- end }}
{{- toYaml $overlay }}
{{- end }}

{{- /* How a collector calls the next tier, by the name its certificate has. Takes root and, where it calls by address, name. */ -}}
{{- define "kat.callingOverlay" -}}
{{- $calls := dict -}}
{{- if .root.Values.tls.secretName }}
{{- $tls := dict "insecure" false "ca_file" "/etc/kat-tls/ca.crt" }}
{{- with .name }}{{ $_ := set $tls "server_name_override" . }}{{ end }}
{{- $_ := set $calls "tls" $tls }}
{{- end }}
{{- if .root.Values.auth.tokenSecret.name }}{{ $_ := set $calls "auth" (dict "authenticator" "bearertokenauth/kat") }}{{ end -}}
{{- toYaml $calls }}
{{- end }}

{{- define "kat.receiverOverlay" -}}
{{- $overlay := include "kat.receivingOverlay" . | fromYaml -}}
{{- if eq .Values.topology "loadBalanced" }}
{{- $host := include "kat.processorsHost" . -}}
{{- $to := dict "resolver" (dict "static" nil "dns" (dict "hostname" $host "port" "4327")) -}}
{{- with include "kat.callingOverlay" (dict "root" . "name" $host) | fromYaml }}{{ $_ := set $to "protocol" (dict "otlp" .) }}{{ end -}}
{{- $_ := set $overlay "exporters" (dict "load_balancing" $to) }}
{{- end }}
{{- mergeOverwrite $overlay (deepCopy .Values.collector.config) | toYaml }}
{{- end }}

{{- define "kat.agentOverlay" -}}
{{- $overlay := include "kat.receivingOverlay" . | fromYaml -}}
{{- $calls := include "kat.callingOverlay" (dict "root" .) | fromYaml -}}
{{- if not .Values.tls.secretName }}{{ $_ := set $calls "tls" (dict "insecure" true) }}{{ end -}}
{{- if eq .Values.topology "kafka" }}{{ $_ := set $calls "headers" (dict "kat-instance-id" "${env:KAT_INSTANCE_ID}") }}{{ end -}}
{{- $_ := set $overlay "exporters" (dict "otlp_grpc/gateway" $calls) }}
{{- $receivers := default (dict) $overlay.receivers -}}
{{- $_ := set $receivers "hostmetrics" (dict "root_path" "/hostfs") }}
{{- $_ := set $overlay "receivers" $receivers }}
{{- /* The collector's image has no journalctl. */ -}}
{{- $_ := set $overlay.service "pipelines" (dict "logs/in" (dict "receivers" (list "otlp" "filelog"))) }}
{{- mergeOverwrite $overlay (deepCopy .Values.agent.config) | toYaml }}
{{- end }}
