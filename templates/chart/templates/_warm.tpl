{{/* The container that warms, in its own pod or in a server's. It runs `warm` of the server's image, or of an image for weights alone. */}}

{{/* Arguments of `warm`: (dict model, settings, targets[, once, nodeLabel, nodeBudget]). */}}
{{- define "warmimage.warmArgs" -}}
{{- $settings := .settings -}}
- warm
{{- if has "weights" .targets }}
- --dir={{ .model.weights.path }}
{{- end }}
- --targets={{ join "," .targets }}
{{- with default .nodeBudget $settings.budget }}
- --budget={{ . }}
{{- end }}
{{- with $settings.rate }}
- --rate={{ . }}
{{- end }}
- --interval={{ int64 $settings.interval }}
{{- if int64 $settings.deadline }}
- --deadline={{ int64 $settings.deadline }}
{{- end }}
{{- if $settings.lock }}
- --lock
{{- end }}
- --on-exit={{ $settings.onExit }}
{{- if .once }}
- --once
{{- else }}
- --port={{ int64 $settings.port }}
{{- end }}
{{- with .nodeLabel }}
- --node-label={{ . }}
{{- end }}
{{- end -}}

{{/* Fields that every warming container has: (dict model, settings). */}}
{{- define "warmimage.warmCommon" -}}
image: {{ .model.derived.warmImage | quote }}
imagePullPolicy: {{ .model.derived.warmPullPolicy }}
resources:
  {{- toYaml .settings.resources | nindent 2 }}
securityContext:
  {{- include "warmimage.restricted" . | nindent 2 }}
volumeMounts:
  {{- if .weights }}
  {{- with include "warmimage.weightsMount" (dict "model" .model) | trim }}{{ . | nindent 2 }}{{ end }}
  {{- end }}
  - name: warm-run
    mountPath: /run/warmimage
  - name: warm-tmp
    mountPath: /tmp
{{- end -}}

{{- define "warmimage.warmVolumes" }}
- name: warm-run
  emptyDir:
    sizeLimit: 64Mi
- name: warm-tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end -}}

{{- define "warmimage.warmPort" -}}
ports:
  - name: warm
    containerPort: {{ int64 .settings.port }}
{{- end -}}

{{- define "warmimage.warmLiveness" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: warm
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/*
The sidecar: (dict model). In modes overlap and gate it is a native sidecar, which is an init container that keeps running.
The server starts at once in mode overlap, when /readyz answers 200 in mode gate, and when this container ends in mode once.
*/}}
{{- define "warmimage.sidecar" -}}
{{- $model := .model -}}
{{- $settings := $model.sidecar -}}
{{- $once := eq $settings.mode "once" -}}
{{- $common := dict "model" $model "settings" $settings "targets" $model.derived.sidecarTargets "once" $once "weights" (has "weights" $model.derived.sidecarTargets) -}}
- name: warm
  {{- include "warmimage.warmCommon" $common | nindent 2 }}
  args:
    {{- include "warmimage.warmArgs" $common | nindent 4 }}
  env:
    - name: NVIDIA_VISIBLE_DEVICES
      value: void
  {{- if not $once }}
  restartPolicy: Always
  {{- include "warmimage.warmPort" $common | nindent 2 }}
  {{- include "warmimage.warmLiveness" $common | nindent 2 }}
  {{- end }}
  {{- if eq $settings.mode "gate" }}
  # Longer than the deadline, after which /readyz answers 200 in any case.
  startupProbe:
    httpGet:
      path: /readyz
      port: warm
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: {{ add 15 (include "warmimage.ceilDiv" (list $settings.deadline 2) | int64) }}
  {{- end }}
{{- end -}}
