{{/* 41 characters: with -postgresql, and the 11 of the revision that Kubernetes labels pods with, they are 63. */}}
{{- define "hub.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 41 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 41 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 41 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "hub.tls" -}}{{ if not .Values.tls.atIngress }}yes{{ end }}{{- end }}

{{- define "hub.scheme" -}}{{ ternary "HTTPS" "HTTP" (not .Values.tls.atIngress) }}{{- end }}

{{- define "hub.tlsSecret" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "hub.fullname" .)) }}
{{- end }}

{{/* The hub's address from outside the release. */}}
{{- define "hub.url" -}}
{{- if .Values.ingress.enabled -}}
https://{{ .Values.ingress.host }}
{{- else -}}
https://{{ include "hub.fullname" . }}.{{ .Release.Namespace }}.svc{{ if ne (int .Values.service.port) 443 }}:{{ .Values.service.port }}{{ end }}
{{- end -}}
{{- end }}

{{- define "hub.hasCA" -}}{{ if or .Values.privateCA.existingConfigMap .Values.privateCA.existingSecret }}yes{{ end }}{{- end }}

{{/* (dict "root" $ "secret" name "key" key): base64 of what is there already, or of a new password. */}}
{{- define "hub.password" -}}
{{- $found := (lookup "v1" "Secret" .root.Release.Namespace .secret).data | default dict -}}
{{ get $found .key | default (randAlphaNum 32 | b64enc) }}
{{- end }}

{{- define "hub.artifactsPort" -}}
{{- with .Values.artifacts.url -}}
{{ include "koinon.port" (dict "url" . "otherwise" (ternary 80 443 (hasSuffix "?tls=no" .))) }}
{{- end -}}
{{- end }}

{{/* Name of the Secret whose token lets Prometheus read metrics. */}}
{{- define "hub.metricsSecret" -}}
{{- .Values.monitoring.serviceMonitor.existingSecret | default (printf "%s-metrics" (include "hub.fullname" .)) -}}
{{- end }}

{{/* The part of the gateway's environment that says how it reaches database and object store. */}}
{{- define "hub.environment" -}}
{{- $name := include "hub.fullname" . -}}
{{- if .Values.postgresql.enabled -}}
- {name: KOINON_DATABASE, value: "postgresql://koinon@{{ $name }}-postgresql/koinon"}
- name: PGPASSWORD # read by PostgreSQL's library, so that no URL holds it
  valueFrom: {secretKeyRef: {name: {{ .Values.postgresql.existingSecret | default (printf "%s-postgresql" $name) | quote }}, key: password}}
{{- else -}}
- name: KOINON_DATABASE
  valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret | quote }}, key: {{ .Values.database.key | quote }}}}
- {name: PGSSLMODE, value: verify-full}
- name: PGSSLROOTCERT # the image's file, since with "system" a URL could not choose its own sslmode
  value: {{ ternary "/etc/koinon/ca/ca.crt" "/etc/ssl/certs/ca-certificates.crt" (eq (include "hub.hasCA" .) "yes") }}
{{- end }}
{{- if .Values.minio.enabled }}
{{- $secret := .Values.minio.existingSecret | default (printf "%s-minio" $name) }}
- {name: KOINON_ARTIFACTS, value: "s3://{{ $name }}-minio:9000/koinon?tls=no"}
- name: KOINON_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: access-key}}
- name: KOINON_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: secret-key}}
{{- else }}
- {name: KOINON_ARTIFACTS, value: {{ .Values.artifacts.url | quote }}}
- name: KOINON_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.artifacts.existingSecret | quote }}, key: {{ .Values.artifacts.accessKey | quote }}}}
- name: KOINON_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.artifacts.existingSecret | quote }}, key: {{ .Values.artifacts.secretKey | quote }}}}
{{- end }}
{{- if include "hub.hasCA" . }}
- {name: SSL_CERT_FILE, value: /etc/koinon/ca/ca.crt}
{{- end }}
{{- end }}
