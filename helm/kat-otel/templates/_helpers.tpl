{{- define "kat.name" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}{{ else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
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

{{- /* Where things are reached: one place for what workers call, what certificates must name, and what is printed. */ -}}
{{- define "kat.host" -}}
{{ include "kat.name" . }}.{{ .Release.Namespace }}.svc
{{- end }}
{{- define "kat.processorsHost" -}}
{{ include "kat.name" . }}-processors.{{ .Release.Namespace }}.svc
{{- end }}
{{- define "kat.agentHost" -}}
{{ include "kat.name" . }}-agent.{{ .Release.Namespace }}.svc
{{- end }}
{{- /* With Kafka the instance is told in a header, which a hop in between would lose: workers send past the agent. */ -}}
{{- define "kat.workersHost" -}}
{{- if and .Values.agent.enabled (ne .Values.topology "kafka") }}{{ include "kat.agentHost" . }}{{ else }}{{ include "kat.host" . }}{{ end }}
{{- end }}
{{- define "kat.scheme" -}}
http{{ if .Values.tls.secretName }}s{{ end }}
{{- end }}
{{- define "kat.tlsNames" -}}
{{- $names := list (include "kat.host" .) (include "kat.processorsHost" .) (printf "*.%s" (include "kat.processorsHost" .)) -}}
{{- if .Values.agent.enabled }}{{ $names = append $names (include "kat.agentHost" .) }}{{ end -}}
{{ join "\n" $names }}
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
{{- if and .Values.auth.tokenSecret.name (not .Values.tls.secretName) }}
{{- fail "auth.tokenSecret without tls.secretName: a token in plain text can be read on the way, and collectors refuse to send one; set tls.secretName" }}
{{- end }}
{{- if and .Values.auth.tokenSecret.name .Values.workers.operator (not .Values.workers.secretName) }}
{{- fail "workers.operator with auth.tokenSecret: workers need the token too; set workers.secretName to a secret of their namespace with ca.crt and the token" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas (%d) is more than autoscaling.maxReplicas (%d)" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- end }}
{{- if lt (int .Values.terminationGracePeriodSeconds) 40 }}
{{- fail "terminationGracePeriodSeconds: at least 40, of which 30 are the collector's that ends after the processor" }}
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
{{- $auth := dict -}}
{{- if .Values.auth.tokenSecret.name }}{{ $auth = dict "auth" (dict "token_file" (include "kat.tokenFile" .)) }}{{ end -}}
{{- if eq .Values.topology "loadBalanced" }}{{ $receiver = merge (dict "endpoint" "0.0.0.0:4327" "http" (dict "endpoint" nil)) $tls $auth }}{{ end -}}
{{- $control := merge (dict "endpoint" "0.0.0.0:4329") $tls $auth -}}
{{- $state := dict "directory" (ternary "/var/lib/kat-state" "/var/lib/kat/state" (ne .Values.processor.sharedState.existingClaim "")) -}}
{{- $own := dict
    "receiver" $receiver
    "wal" (dict "directory" "/var/lib/kat/log")
    "state" $state
    "control" $control
    "exporter" (dict "endpoint" "127.0.0.1:4337")
    "health" (merge (dict "endpoint" "0.0.0.0:13134") $open)
    "prometheus" (merge (dict "endpoint" "0.0.0.0:8888") $open)
    "debug" (dict "endpoint" "127.0.0.1:55679")
    "shutdown_timeout" (printf "%ds" (sub (int .Values.terminationGracePeriodSeconds) 30)) -}}
{{- mergeOverwrite $own (deepCopy .Values.processor.config) | toYaml }}
{{- end }}

{{- define "kat.tokenFile" -}}
/etc/kat-token/{{ .Values.auth.tokenSecret.key }}
{{- end }}

{{- define "kat.secretMounts" -}}
{{- if .Values.tls.secretName }}
- {name: tls, mountPath: /etc/kat-tls, readOnly: true}
{{- end }}
{{- if .Values.auth.tokenSecret.name }}
- {name: token, mountPath: /etc/kat-token, readOnly: true}
{{- end }}
{{- end }}

{{- define "kat.secretVolumes" -}}
{{- if .Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ .Values.tls.secretName }}, defaultMode: 0440}
{{- end }}
{{- if .Values.auth.tokenSecret.name }}
- name: token
  secret: {secretName: {{ .Values.auth.tokenSecret.name }}, defaultMode: 0440}
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
