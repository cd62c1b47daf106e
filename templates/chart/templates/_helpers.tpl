{{/* Names and labels. */}}

{{- define "warmimage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of resource names; leaves room for a model's name or a suffix. */}}
{{- define "warmimage.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "warmimage.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "warmimage.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of a resource that belongs to no model. */}}
{{- define "warmimage.labels" -}}
helm.sh/chart: {{ include "warmimage.chart" . }}
app.kubernetes.io/name: {{ include "warmimage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: warmimage
{{- end -}}

{{/* Labels that select a model's pods: (list ROOT KEY COMPONENT). Selectors are immutable, so no value and no version of the chart may change them. */}}
{{- define "warmimage.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "warmimage.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 2 }}
warmimage.dev/model: {{ index . 1 | quote }}
{{- end -}}

{{/* Labels of a model's resource: (list ROOT KEY COMPONENT). */}}
{{- define "warmimage.modelLabels" -}}
{{ include "warmimage.labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 2 }}
warmimage.dev/model: {{ index . 1 | quote }}
{{- end -}}

{{/* Labels in YAML, merged over the user's: (list LABELS MAP...). No user's label may change a selector label. */}}
{{- define "warmimage.labelsOver" -}}
{{- $all := dict -}}
{{- range rest . }}{{ include "warmimage.merge" (list $all .) }}{{ end -}}
{{- include "warmimage.merge" (list $all (fromYaml (first .))) -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Metadata of a resource: (dict root, name, labels[, ownLabels, annotations, clusterScoped]). */}}
{{- define "warmimage.metadata" -}}
name: {{ .name }}
{{- if not .clusterScoped }}
namespace: {{ include "warmimage.namespace" .root }}
{{- end }}
labels:
  {{- include "warmimage.labelsOver" (list .labels .root.Values.commonLabels (default dict .ownLabels)) | nindent 2 }}
{{- $annotations := dict }}
{{- include "warmimage.merge" (list $annotations .root.Values.commonAnnotations) }}
{{- include "warmimage.merge" (list $annotations (default dict .annotations)) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "warmimage.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "warmimage.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "warmimage.priorityClassName" -}}
{{- default (printf "%s-%s-warmer" (include "warmimage.namespace" .) (include "warmimage.fullname" .) | trunc 63 | trimSuffix "-") .Values.priorityClass.name -}}
{{- end -}}

{{/* "true" if the cluster has an API or apiVersions names it: (list ROOT API). */}}
{{- define "warmimage.hasApi" -}}
{{- $root := index . 0 -}}
{{- if or ($root.Capabilities.APIVersions.Has (index . 1)) (has (index . 1) $root.Values.apiVersions) -}}true{{- end -}}
{{- end -}}

{{/* "true" if Prometheus' resources are wanted and the cluster has their API. */}}
{{- define "warmimage.monitored" -}}
{{- $mode := .Values.monitoring.mode -}}
{{- if or (eq $mode "always") (and (eq $mode "auto") (include "warmimage.hasApi" (list . "monitoring.coreos.com/v1"))) -}}true{{- end -}}
{{- end -}}

{{- define "warmimage.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}
