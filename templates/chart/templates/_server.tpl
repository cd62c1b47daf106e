{{/* Parts of the server's pod. Each takes (dict root, key, model), unless its comment names other arguments. */}}

{{/* Security context of any pod. `writes` is true for the pod that mounts the server's writable volumes. */}}
{{- define "warmimage.podSecurityContext" -}}
{{- $security := .model.podSecurityContext -}}
{{- $ids := dict -}}
{{- range $name := list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- $id := get $security $name -}}
{{- if has (kindOf $id) (list "int" "int64" "float64") -}}{{- $_ := set $ids $name (int64 $id) -}}{{- end -}}
{{- end -}}
{{- if and .writes (include "warmimage.writesClaim" .model) (not (hasKey $ids "fsGroup")) (get $ids "runAsUser") -}}
{{- $_ := set $ids "fsGroup" $ids.runAsUser -}}
{{- end -}}
runAsNonRoot: {{ $security.runAsNonRoot }}
{{- range $name, $id := $ids }}
{{ $name }}: {{ $id }}
{{- end }}
fsGroupChangePolicy: {{ $security.fsGroupChangePolicy }}
{{- with $security.supplementalGroups }}
supplementalGroups:
  {{- range . }}
  - {{ int64 . }}
  {{- end }}
{{- end }}
seccompProfile:
  type: {{ $security.seccompProfile }}
{{- end -}}

{{/* Security context of every container. No tier needs a privilege, so all meet Pod Security level restricted. */}}
{{- define "warmimage.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "warmimage.serverEnv" -}}
{{- $model := .model -}}
{{- $own := dict -}}
{{- if ne $model.start "auto" }}{{ $_ := set $own "WARMIMAGE_START" $model.start }}{{ end -}}
{{- if or (eq $model.prefetch "never") (and (eq $model.prefetch "auto") (ne $model.sidecar.mode "none")) -}}
{{- $_ := set $own "WARMIMAGE_PREFETCH" "off" -}}
{{- end -}}
{{- include "warmimage.merge" (list $own $model.env) -}}
{{- range $name, $value := $own }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- with $model.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* "true" if the server writes to a claim. A new claim's file system belongs to root. */}}
{{- define "warmimage.writesClaim" -}}
{{- $writes := and (eq .weights.strategy "download") (eq .weights.volume.type "pvc") -}}
{{- range .writable -}}
{{- if and (dig "enabled" true .) (dig "claimName" "" .) -}}{{- $writes = true -}}{{- end -}}
{{- end -}}
{{- if $writes -}}true{{- end -}}
{{- end -}}

{{/* The volume with the weights; nothing if the image contains them. The volume itself is read-only, so that no driver changes its group. */}}
{{- define "warmimage.weightsVolume" -}}
{{- $model := .model -}}
{{- $volume := $model.weights.volume -}}
{{- if ne $model.weights.strategy "bake" }}
- name: weights
  {{- if eq $volume.type "pvc" }}
  persistentVolumeClaim:
    claimName: {{ include "warmimage.claim" $model | quote }}
    {{- if ne $model.weights.strategy "download" }}
    readOnly: true
    {{- end }}
  {{- else if eq $volume.type "image" }}
  image:
    reference: {{ $volume.image.reference | quote }}
    pullPolicy: {{ $volume.image.pullPolicy }}
  {{- else if eq $volume.type "hostPath" }}
  hostPath:
    path: {{ clean $volume.hostPath.path | quote }}
    type: Directory
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The mount of the weights: (dict model, write). Only a server that downloads them writes. */}}
{{- define "warmimage.weightsMount" -}}
{{- $model := .model -}}
{{- if ne $model.weights.strategy "bake" }}
- name: weights
  mountPath: {{ $model.weights.path | quote }}
  {{- with $model.weights.volume.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: {{ not (and .write (eq $model.weights.strategy "download")) }}
{{- end }}
{{- end -}}

{{/* Directories that the server may write to. A claim has one directory for each image. */}}
{{- define "warmimage.writableMounts" -}}
{{- $model := .model -}}
{{- range $name, $folder := $model.writable }}
{{- if dig "enabled" true $folder }}
- name: writable-{{ $name }}
  mountPath: {{ $folder.path | quote }}
  {{- include "warmimage.imageFolder" (dict "folder" $folder "model" $model) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "warmimage.imageFolder" -}}
{{- if dig "claimName" "" .folder }}
  subPath: {{ .model.derived.image | sha256sum | trunc 16 | quote }}
{{- end }}
{{- end -}}

{{- define "warmimage.writableVolumes" -}}
{{- range $name, $folder := .model.writable }}
{{- if dig "enabled" true $folder }}
- name: writable-{{ $name }}
  {{- if dig "claimName" "" $folder }}
  persistentVolumeClaim:
    claimName: {{ $folder.claimName | quote }}
  {{- else }}
  emptyDir:
    {{- with dig "sizeLimit" "" $folder }}
    sizeLimit: {{ . }}
    {{- else }} {}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* An init container that copies the image's content into empty directories. If the copy fails, the start is only slower. */}}
{{- define "warmimage.seed" -}}
{{- $model := .model -}}
{{- $seeded := dict -}}
{{- range $name, $folder := $model.writable -}}
{{- if and (dig "enabled" true $folder) (dig "seed" true $folder) -}}{{- $_ := set $seeded $name $folder -}}{{- end -}}
{{- end -}}
{{- if $seeded }}
- name: seed
  image: {{ $model.derived.image | quote }}
  imagePullPolicy: {{ $model.image.pullPolicy }}
  command:
    - sh
    - -c
    - |
      while [ $# -gt 1 ]; do
        if [ -d "$1" ] && cd "$1"; then
          find . -mindepth 1 -maxdepth 1 -exec cp -au -t "$2" {} + || echo "not all of $1 was copied" >&2
        fi
        shift 2
      done
    - seed
    {{- range $name, $folder := $seeded }}
    - {{ $folder.path | quote }}
    - /seed/{{ $name }}
    {{- end }}
  env:
    # Without this, the NVIDIA runtime would give it GPUs because of the image's own variable.
    - name: NVIDIA_VISIBLE_DEVICES
      value: void
  resources:
    requests:
      cpu: 50m
      memory: 64Mi
  securityContext:
    {{- include "warmimage.restricted" . | nindent 4 }}
  volumeMounts:
    {{- range $name, $folder := $seeded }}
    - name: writable-{{ $name }}
      mountPath: /seed/{{ $name }}
      {{- with include "warmimage.imageFolder" (dict "folder" $folder "model" $model) | trim }}{{ . | nindent 6 }}{{ end }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "warmimage.serverContainer" -}}
{{- $model := .model -}}
{{- $probes := $model.probes -}}
{{- $ask := dict "httpGet" (dict "path" $model.healthPath "port" "http") -}}
- name: server
  image: {{ $model.derived.image | quote }}
  imagePullPolicy: {{ $model.image.pullPolicy }}
  {{- with $model.args }}
  args:
    {{- range . }}
    - {{ toString . | quote }}
    {{- end }}
  {{- end }}
  {{- with include "warmimage.serverEnv" . | trim }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with $model.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: http
      containerPort: {{ int64 $model.port }}
  # {{ $model.derived.seconds }} seconds to read {{ $model.derived.bytes }} bytes and start
  startupProbe:
    {{- toYaml $ask | nindent 4 }}
    periodSeconds: {{ int64 $probes.startup.periodSeconds }}
    timeoutSeconds: {{ int64 $probes.startup.timeoutSeconds }}
    failureThreshold: {{ add 1 (include "warmimage.ceilDiv" (list $model.derived.seconds $probes.startup.periodSeconds) | int64) }}
  readinessProbe:
    {{- toYaml $ask | nindent 4 }}
    periodSeconds: {{ int64 $probes.readiness.periodSeconds }}
    timeoutSeconds: {{ int64 $probes.readiness.timeoutSeconds }}
    failureThreshold: {{ int64 $probes.readiness.failureThreshold }}
  {{- if $probes.liveness.enabled }}
  livenessProbe:
    {{- toYaml $ask | nindent 4 }}
    periodSeconds: {{ int64 $probes.liveness.periodSeconds }}
    timeoutSeconds: {{ int64 $probes.liveness.timeoutSeconds }}
    failureThreshold: {{ int64 $probes.liveness.failureThreshold }}
  {{- end }}
  {{- if int64 $model.preStopSeconds }}
  lifecycle:
    preStop:
      exec:
        command: [sleep, {{ int64 $model.preStopSeconds | quote }}]
  {{- end }}
  resources:
    {{- include "warmimage.serverResources" $model | nindent 4 }}
  securityContext:
    {{- include "warmimage.restricted" . | nindent 4 }}
  volumeMounts:
    {{- with include "warmimage.weightsMount" (dict "model" $model "write" true) | trim }}{{ . | nindent 4 }}{{ end }}
    {{- with include "warmimage.writableMounts" . | trim }}{{ . | nindent 4 }}{{ end }}
    {{- if $model.sharedMemory }}
    - name: shared-memory
      mountPath: /dev/shm
    {{- end }}
    {{- with $model.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The server's resources. GPUs are limits, because for them Kubernetes takes the limit as the request. */}}
{{- define "warmimage.serverResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if int64 .gpus.count -}}
{{- $limits := default dict (get $resources "limits") -}}
{{- $_ := set $limits .gpus.resource (int64 .gpus.count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Node labels that the model's pods require. */}}
{{- define "warmimage.nodeSelector" -}}
{{- $labels := dict "kubernetes.io/os" "linux" -}}
{{- with .model.arch }}{{ $_ := set $labels "kubernetes.io/arch" . }}{{ end -}}
{{- include "warmimage.merge" (list $labels .model.nodeSelector) -}}
{{- if .warmer }}{{ include "warmimage.merge" (list $labels .model.warmer.nodeSelector) }}{{ end -}}
{{- toYaml $labels -}}
{{- end -}}

{{/* The user's tolerations, in addition to the one for the model's GPUs. */}}
{{- define "warmimage.tolerations" -}}
{{- $model := .model -}}
{{- $all := list -}}
{{- if int64 $model.gpus.count -}}
{{- /* Nodes that offer parts of GPUs, such as nvidia.com/mig-1g.5gb, still have the taint for whole GPUs. */ -}}
{{- $keys := list $model.gpus.resource -}}
{{- if hasPrefix "nvidia.com/" $model.gpus.resource -}}{{- $keys = append $keys "nvidia.com/gpu" | uniq -}}{{- end -}}
{{- range $keys -}}
{{- $all = append $all (dict "key" . "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- end -}}
{{- $all = concat $all $model.tolerations -}}
{{- if .warmer }}{{ $all = concat $all $model.warmer.tolerations }}{{ end -}}
{{- with $all }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The user's affinity, and a preference for warm nodes. */}}
{{- define "warmimage.affinity" -}}
{{- $affinity := deepCopy .model.affinity -}}
{{- if and .model.warmer.enabled .model.warmer.nodeLabel.enabled -}}
{{- $node := default dict (get $affinity "nodeAffinity") -}}
{{- $warm := dict "weight" 100 "preference" (dict "matchExpressions" (list (dict "key" (include "warmimage.nodeLabel" .) "operator" "Exists"))) -}}
{{- $preferred := default list (get $node "preferredDuringSchedulingIgnoredDuringExecution") -}}
{{- $_ := set $node "preferredDuringSchedulingIgnoredDuringExecution" (append $preferred $warm) -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "warmimage.nodeLabel" -}}
{{- default (printf "%s.warm.warmimage.dev/%s" (include "warmimage.namespace" .root) .model.derived.name) .model.warmer.nodeLabel.key -}}
{{- end -}}

{{/* The model's required node affinity as YAML; empty if there is none. */}}
{{- define "warmimage.requiredNodes" -}}
{{- with dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" dict .affinity -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* The warmer's affinity: the model's required node affinity; else, for NVIDIA GPUs without a selector, nodes with such GPUs. */}}
{{- define "warmimage.warmerAffinity" -}}
{{- $model := .model -}}
{{- $required := include "warmimage.requiredNodes" $model | fromYaml -}}
{{- $nvidia := and (int64 $model.gpus.count) (hasPrefix "nvidia.com/" $model.gpus.resource) -}}
{{- if and (not $required) $nvidia (not $model.nodeSelector) (not $model.warmer.nodeSelector) $model.warmer.gpuNodeLabels -}}
{{- $terms := list -}}
{{- range $model.warmer.gpuNodeLabels -}}
{{- $terms = append $terms (dict "matchExpressions" (list (dict "key" . "operator" "Exists"))) -}}
{{- end -}}
{{- $required = dict "nodeSelectorTerms" $terms -}}
{{- end -}}
{{- with $required }}
# Without it, nodes that cannot serve the image would pull it.
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- end -}}
