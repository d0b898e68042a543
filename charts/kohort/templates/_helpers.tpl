{{/* Names are fixed: there is one installation in a namespace, and commands in the docs hold for all. */}}

{{- define "kohort.selector" -}}
app.kubernetes.io/name: kohort
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "kohort.labels" -}}
app.kubernetes.io/name: kohort
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "kohort.common" . }}
{{- end }}

{{- define "kohort.componentLabels" -}}
{{ include "kohort.selector" . }}
{{ include "kohort.common" .root }}
{{- end }}

{{- define "kohort.common" -}}
app.kubernetes.io/part-of: kohort
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* An image's full name, of (dict "root" $ "image" .Values.X.image). */}}
{{- define "kohort.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) }}
{{- end -}}
{{- end }}

{{/* Metadata of a fleet's pods: nothing in them changes with the chart's version alone. */}}
{{- define "kohort.podMetadata" -}}
labels:
  {{- include "kohort.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: kohort
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a fleet's pods run, and as whom. */}}
{{- define "kohort.podSpec" -}}
serviceAccountName: kohort-{{ .component }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "kohort.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* What Pod Security's level "restricted" asks of a container, and a root that cannot be written. */}}
{{- define "kohort.restricted" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kohort.serviceHost" -}}
kohort-{{ .component }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}

{{/* Where what to do about an alert is written, of (list $ ALERT). */}}
{{- define "kohort.runbook" -}}
{{- $section := lower (index . 1) -}}
runbook: docs/runbooks.md#{{ $section }}
{{- with (index . 0).Values.monitoring.rules.runbooks }}
runbook_url: {{ . }}#{{ $section }}
{{- end }}
{{- end }}
