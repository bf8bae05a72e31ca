{{/* Names, labels and what every container of ours has in common. */}}
{{- define "liq.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "liq.labels" -}}
app.kubernetes.io/name: liq-pipeline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* part: (dict "root" $ "part" "land") */}}
{{- define "liq.selector" -}}
app.kubernetes.io/name: liq-pipeline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "liq.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag }}{{- end }}

{{- define "liq.kafka" -}}
{{- if .Values.kafka.strimzi.enabled -}}
{{ include "liq.name" . }}-kafka-bootstrap:9092
{{- else -}}
{{ required "set kafka.bootstrapServers, or kafka.strimzi.enabled" .Values.kafka.bootstrapServers }}
{{- end -}}
{{- end }}

{{/* A variable from the Secret: (dict "root" $ "name" "LIQ_DATABASE_URL" "key" "database-url") */}}
{{- define "liq.secret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.secrets.name }}
      key: {{ .key }}
{{- end }}

{{/* Every part's environment. The owner's URL is not in it: only who migrates, maintains or copies gets that. */}}
{{- define "liq.env" -}}
- {name: LIQ_MODE, value: {{ .Values.mode | quote }}}
- {name: LIQ_HOME, value: /var/lib/liq_pipeline}
{{ include "liq.secret" (dict "root" . "name" "LIQ_DATABASE_URL" "key" "database-url") }}
{{ include "liq.secret" (dict "root" . "name" "LIQ_DATABASE_READER_URL" "key" "database-reader-url") }}
{{ include "liq.secret" (dict "root" . "name" "LIQ_DAGSTER_PG_URL" "key" "dagster-storage-url") }}
- {name: LIQ_KAFKA_BOOTSTRAP_SERVERS, value: {{ include "liq.kafka" . | quote }}}
- {name: LIQ_ZYGOTE_SOCKET, value: /run/liq/zygote.sock}
- {name: LIQ_CODE_SERVER_PORT, value: "4266"}
- {name: LIQ_CODE_SERVER_HOST, value: {{ include "liq.name" . }}-code}
{{- with .Values.desk.url }}
- {name: LIQ_ALERT_LINK_URL, value: {{ . | quote }}}
{{- end }}
- {name: LIQ_WEB_NAMES, value: {{ concat (list (printf "%s-desk" (include "liq.name" .)) (printf "%s-dagster" (include "liq.name" .))) .Values.desk.names | join "," | quote }}}
- {name: DAGSTER_HOME, value: /var/lib/dagster}
- {name: DAGSTER_DISABLE_TELEMETRY, value: "yes"}
- {name: PYTHONUNBUFFERED, value: "1"}
- {name: TZ, value: UTC}
# Many small processes on few cores: a thread pool in each would only compete.
- {name: OMP_NUM_THREADS, value: "1"}
- {name: OPENBLAS_NUM_THREADS, value: "1"}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "liq.envOwner" -}}
{{ include "liq.secret" (dict "root" . "name" "LIQ_DATABASE_OWNER_URL" "key" "database-owner-url") }}
{{- end }}

{{- define "liq.envFrom" -}}
{{- with .Values.secrets.settingsName }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "liq.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "liq.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "liq.mounts" -}}
volumeMounts:
  - {name: home, mountPath: /var/lib/liq_pipeline}
  - {name: dagster-home, mountPath: /var/lib/dagster}
  - {name: dagster-config, mountPath: /var/lib/dagster/dagster.yaml, subPath: dagster.yaml, readOnly: true}
  - {name: dagster-config, mountPath: /var/lib/dagster/workspace.yaml, subPath: workspace.yaml, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "liq.volumes" -}}
- {name: home, emptyDir: {}}
- {name: dagster-home, emptyDir: {}}
- {name: tmp, emptyDir: {}}
- name: dagster-config
  configMap: {name: {{ include "liq.name" . }}-dagster}
{{- end }}

{{/* Wait until the job that migrates has brought the schema to this version. */}}
{{- define "liq.waitForSchema" -}}
- name: wait-for-schema
  image: {{ include "liq.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sh, -c, "until liq migrate --check; do sleep 5; done"]
  env:
    {{- include "liq.env" . | nindent 4 }}
  {{- include "liq.containerSecurity" . | nindent 2 }}
  {{- include "liq.mounts" . | nindent 2 }}
  resources:
    requests: {cpu: 50m, memory: 128Mi}
    limits: {memory: 512Mi}
{{- end }}

{{/* The start of a container: (dict "root" $ "name" "land") */}}
{{- define "liq.container" -}}
name: {{ .name }}
image: {{ include "liq.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "liq.containerSecurity" .root }}
{{- with include "liq.envFrom" .root }}
{{ . }}
{{- end }}
{{- end }}
