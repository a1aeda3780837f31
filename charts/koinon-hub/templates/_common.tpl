{{/* The same file in both charts, so that each can be installed alone; a test compares them. */}}

{{/* (dict "root" $ "component" "agent"): what selects a component's pods; never to be changed. */}}
{{- define "koinon.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* (dict "root" $ "component" "agent") */}}
{{- define "koinon.labels" -}}
{{ include "koinon.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: koinon
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* (dict "root" $ "image" .Values.x.image): every image of a chart goes through here, so `image.registry` moves all. */}}
{{- define "koinon.image" -}}
{{- $registry := trimSuffix "/" .root.Values.image.registry -}}
{{- $name := .image.repository -}}
{{- if and $registry (contains ":" $name) -}}
{{- fail (printf "image.registry and the registry in %s contradict each other: give one." $name) -}}
{{- end -}}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* (dict "root" $ "account" name or nil "scheduling" other values than the chart's, or nil): what every pod has in common; a
token of the API only where there is an account. */}}
{{- define "koinon.pod" -}}
{{- with .account -}}
serviceAccountName: {{ . }}
{{ end -}}
automountServiceAccountToken: {{ not (empty .account) }}
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .scheduling | default .root.Values.scheduling }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* User ids, or nil where the platform gives them (OpenShift): Pod Security "restricted" stays in either case. */}}
{{- define "koinon.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- with .runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch # a volume is changed once: keys in it stay for their owner alone
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "koinon.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* (dict "url" … "otherwise" 443): the port of a URL. */}}
{{- define "koinon.port" -}}
{{- regexFind ":[0-9]+$" (urlParse .url).host | trimPrefix ":" | default .otherwise -}}
{{- end }}

{{/* A list of CIDRs as peers of a NetworkPolicy. */}}
{{- define "koinon.blocks" -}}
{{- range . }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* $: the rule that lets a pod ask the cluster's DNS. */}}
{{- define "koinon.dns" -}}
{{- with .Values.networkPolicy.dns -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace | quote }}}}
      podSelector: {matchLabels: {{ toJson .podLabels }}}
    {{- include "koinon.blocks" .cidrs | nindent 4 }}
  ports:
    {{- range .ports }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* (dict "existingConfigMap" … "existingSecret" … "key" …): a volume with the CA's certificates as ca.crt. */}}
{{- define "koinon.caVolume" -}}
{{- if .existingConfigMap -}}
configMap: {name: {{ .existingConfigMap | quote }}, items: [{key: {{ .key | quote }}, path: ca.crt}]}
{{- else -}}
secret: {secretName: {{ .existingSecret | quote }}, items: [{key: {{ .key | quote }}, path: ca.crt}]}
{{- end -}}
{{- end }}

{{/* (dict "root" $ "persistence" …): the claim of a StatefulSet's volume `data`. */}}
{{- define "koinon.claim" -}}
{{- if not .persistence.existingClaim -}}
persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .persistence.storageClass }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources: {requests: {storage: {{ toJson .persistence.size }}}}
{{- end }}
{{- end }}
