{{- define "kat.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "kat.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kat.labels" -}}
{{ include "kat.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "kat.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "kat.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "kat.image" -}}
{{- $repository := .Values.image.repository -}}
{{- if and .Values.gpu.enabled (eq $repository "ghcr.io/kat-otel/processor") }}{{ $repository = "ghcr.io/kat-otel/processor-cuda" }}{{ end -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- /* What the schema cannot say: settings that only make sense together. */ -}}
{{- define "kat.check" -}}
{{- if and (eq .Values.topology "single") (or (ne (int .Values.processor.replicas) 1) .Values.autoscaling.enabled) }}
{{- fail "topology single has one processor: set processor.replicas to 1 and autoscaling.enabled to false, or topology to loadBalanced or kafka" }}
{{- end }}
{{- if and (eq .Values.topology "kafka") (not .Values.kafka.brokers) }}
{{- fail "topology kafka needs kafka.brokers, for example [\"broker-0:9092\"]" }}
{{- end }}
{{- end }}

{{- define "kat.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kat.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Settings of kat process: what the pod's layout asks for, and the user's over it. */ -}}
{{- define "kat.config" -}}
{{- $tls := dict -}}
{{- if .Values.tls.secretName }}{{ $tls = dict "tls" (dict "cert_file" "/etc/kat-tls/tls.crt" "key_file" "/etc/kat-tls/tls.key") }}{{ else }}{{ $tls = dict "insecure" true }}{{ end -}}
{{- $open := dict "insecure" true -}}
{{- $receiver := dict "endpoint" "127.0.0.1:4327" -}}
{{- if eq .Values.topology "loadBalanced" }}{{ $receiver = merge (dict "endpoint" "0.0.0.0:4327" "http" (dict "endpoint" nil)) $tls }}{{ end -}}
{{- $control := merge (dict "endpoint" "0.0.0.0:4329") $tls -}}
{{- if .Values.control.tokenSecret.name }}{{ $control = merge $control (dict "auth" (dict "token_file" (printf "/etc/kat-token/%s" .Values.control.tokenSecret.key))) }}{{ end -}}
{{- $state := dict "directory" (ternary "/var/lib/kat-state" "/var/lib/kat/state" (ne .Values.processor.sharedState.existingClaim "")) -}}
{{- $own := dict
    "receiver" $receiver
    "wal" (dict "directory" "/var/lib/kat/log")
    "state" $state
    "control" $control
    "exporter" (dict "endpoint" "127.0.0.1:4337")
    "health" (merge (dict "endpoint" "0.0.0.0:13134") $open)
    "prometheus" (merge (dict "endpoint" "0.0.0.0:8888") $open)
    "debug" (dict "endpoint" "127.0.0.1:55679") -}}
{{- mergeOverwrite $own (deepCopy .Values.processor.config) | toYaml }}
{{- end }}

{{- define "kat.tlsVolume" -}}
{{- if .Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ .Values.tls.secretName }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "kat.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
