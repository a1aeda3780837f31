{{/* Names are fixed: a namespace holds one hospital, and operator and kubectl koinon know them. */}}

{{- define "site.name" -}}{{ .Values.site.name | default .Release.Namespace }}{{- end }}

{{- define "site.work" -}}{{ .Values.workNamespace.name | default (printf "%s-work" .Release.Namespace) }}{{- end }}

{{- define "site.hasCA" -}}{{ if or .Values.hub.ca.existingConfigMap .Values.hub.ca.existingSecret }}yes{{ end }}{{- end }}

{{/* A cluster answers: lookups tell something. */}}
{{- define "site.online" -}}{{ if lookup "v1" "Namespace" "" "kube-system" }}yes{{ end }}{{- end }}

{{/* Where the agent goes to reach the hub, as JSON {cidrs, port}. */}}
{{- define "site.outside" -}}
{{- $to := .Values.hub -}}
{{- if .Values.proxy.url }}{{ $to = .Values.proxy }}{{ end -}}
{{- $port := include "koinon.port" (dict "url" $to.url "otherwise" (ternary 443 80 (hasPrefix "https:" $to.url))) -}}
{{ dict "cidrs" $to.cidrs "port" (int $port) | toJson }}
{{- end }}

{{/* The API server's addresses and ports, as JSON {cidrs, ports}: as given, or as the cluster says. */}}
{{- define "site.apiServer" -}}
{{- $cidrs := .Values.apiServer.cidrs -}}
{{- $ports := .Values.apiServer.ports -}}
{{- if not $cidrs -}}
{{- $slice := lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes" -}}
{{- $service := lookup "v1" "Service" "default" "kubernetes" -}}
{{- if or (not $slice) (not $service) -}}
{{- fail "apiServer.cidrs is empty and there is no cluster to ask: give the API server's addresses (kubectl get endpointslice kubernetes)." -}}
{{- end -}}
{{- $addresses := list $service.spec.clusterIP -}}
{{- range $slice.endpoints }}{{ $addresses = concat $addresses .addresses }}{{ end -}}
{{- range $addresses }}{{ $cidrs = append $cidrs (printf "%s/%s" . (ternary "128" "32" (contains ":" .))) }}{{ end -}}
{{- $ports = list -}}
{{- range $service.spec.ports }}{{ $ports = append $ports (int .port) }}{{ end -}}
{{- range $slice.ports }}{{ $ports = append $ports (int .port) }}{{ end -}}
{{- end -}}
{{ dict "cidrs" ($cidrs | uniq) "ports" ($ports | uniq) | toJson }}
{{- end }}

{{/* What the agent reads; see koinon/agent/config.py. */}}
{{- define "site.settings" -}}
name: {{ include "site.name" . | quote }}
hub: {{ .Values.hub.url | quote }}
{{- if include "site.hasCA" . }}
hub_ca: /etc/koinon/hub-ca/ca.crt
{{- end }}
{{- with .Values.proxy.url }}
proxy: {{ . | quote }}
{{- end }}
datasets:
  {{- range .Values.datasets }}
  {{ .name | quote }}: {{ printf "/data/%s/%s" .name .path | quote }}
  {{- end }}
kubernetes:
  work_namespace: {{ include "site.work" . | quote }}
{{- end }}

{{/* The Site, as JSON. Its kind knows no 7.5, but "7.5". */}}
{{- define "site.object" -}}
{{- $quota := merge (dict
  "cpu" (toJson .Values.quota.cpu | trimAll "\"")
  "memory" (toJson .Values.quota.memory | trimAll "\"")) .Values.quota -}}
{{- $spec := dict
  "hub" (dict "url" .Values.hub.url "cidrs" .Values.hub.cidrs)
  "root" .Values.site.root
  "workNamespace" (include "site.work" .)
  "images" (dict "worker" (include "koinon.image" (dict "root" . "image" .Values.worker.image)))
  "datasets" .Values.datasets
  "quota" $quota
  "requestPercent" .Values.worker.requestPercent -}}
{{- $secrets := list -}}
{{- range .Values.image.pullSecrets }}{{ $secrets = append $secrets (dict "name" .) }}{{ end -}}
{{- with $secrets }}{{ $_ := set $spec "imagePullSecrets" . }}{{ end -}}
{{- with .Values.egressProbes }}{{ $_ := set $spec "egressProbes" . }}{{ end -}}
{{- with .Values.worker.nodeSelector }}{{ $_ := set $spec "nodeSelector" . }}{{ end -}}
{{- with .Values.worker.tolerations }}{{ $_ := set $spec "tolerations" . }}{{ end -}}
{{- with .Values.monitoring.namespace }}{{ $_ := set $spec "monitoringNamespace" . }}{{ end -}}
{{ dict "apiVersion" "koinon.dev/v1alpha1" "kind" "Site" "spec" $spec "metadata" (dict
  "name" (include "site.name" .) "namespace" .Release.Namespace
  "labels" (include "koinon.labels" (dict "root" . "component" "site") | fromYaml)) | toJson }}
{{- end }}
