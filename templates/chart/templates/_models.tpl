{{/*
All models to serve, merged and checked: (list ROOT RESULT). RESULT is a dict that gets each model by its key. A model is
`defaults`, overridden by the model's own values. Its `derived` has what follows from them:
  name             name of its resources
  image, warmImage, warmPullPolicy  references of the server's image and of the warmer's image, and when to pull the latter
  bytes            bytes to read at a start: the snapshot and the weights, twice if they are downloaded first
  restores         whether the server starts from the image's snapshot
  costly           names of variables that its values set and that may cost it the snapshot
  seconds          longest time of a start, once the container runs
  progressSeconds  longest time until a rollout makes one more server available
  rolloutSeconds   longest time of a whole rollout
  timeoutSeconds   longest time of `helm --wait`, which also waits for the warmers
  sidecarTargets, warmerTargets, sidecarBytes, warmerBytes  what the sidecar and the warmer warm
*/}}
{{- define "warmimage.models" -}}
{{- $root := index . 0 -}}
{{- $result := index . 1 -}}
{{- $names := dict -}}
{{- range $name, $own := $root.Values.models -}}
{{- $model := deepCopy $root.Values.defaults -}}
{{- include "warmimage.merge" (list $model (default dict $own)) -}}
{{- if $model.enabled -}}
{{- $key := regexReplaceAll "[^a-z0-9]+" (lower $name) "-" | trimAll "-" -}}
{{- $resource := printf "%s-%s" (include "warmimage.fullname" $root) $key | trunc 52 | trimSuffix "-" -}}
{{- if hasKey $names $resource -}}
{{- fail (printf "two models with one name: models.%s and models.%s would both be %q; fix: rename one of them" (get $names $resource) $name $resource) -}}
{{- end -}}
{{- $_ := set $names $resource $name -}}
{{- $derived := dict "name" $resource -}}
{{- $_ := set $model "derived" $derived -}}
{{- include "warmimage.derive" (list $root $name $model) -}}
{{- include "warmimage.check" (list $root $name $model) -}}
{{- $_ := set $result ($key | trunc 63 | trimSuffix "-") $model -}}
{{- end -}}
{{- end -}}
{{- include "warmimage.checkNodes" (list $root $result) -}}
{{- include "warmimage.checkLabels" (list $root $result) -}}
{{- end -}}

{{/* Computes `derived` from a model's values: (list ROOT NAME MODEL). */}}
{{- define "warmimage.derive" -}}
{{- $root := index . 0 -}}
{{- $model := index . 2 -}}
{{- $derived := $model.derived -}}
{{- $_ := set $derived "image" (include "warmimage.image" (list $root $model.image)) -}}
{{- $apart := not (empty $model.warmImage.repository) -}}
{{- $_ := set $derived "warmImage" (include "warmimage.image" (list $root (ternary $model.warmImage $model.image $apart))) -}}
{{- $_ := set $derived "warmPullPolicy" (ternary $model.warmImage.pullPolicy $model.image.pullPolicy $apart) -}}
{{- $weights := include "warmimage.bytes" $model.weights.bytes | int64 -}}
{{- $snapshot := include "warmimage.bytes" $model.snapshot.bytes | int64 -}}
{{- $_ := set $derived "weightBytes" $weights -}}
{{- $_ := set $derived "bytes" (add $weights (ternary $weights 0 (eq $model.weights.strategy "download")) $snapshot) -}}
{{- $_ := set $derived "restores" (and $model.snapshot.inImage (has $model.start (list "auto" "snapshot"))) -}}
{{- $given := keys $model.env -}}
{{- range $model.extraEnv -}}{{- $given = append $given .name -}}{{- end -}}
{{- $costly := list -}}
{{- range $given | uniq | sortAlpha -}}
{{- $name := . -}}
{{- range $model.snapshot.variables -}}
{{- if or (eq . $name) (and (hasSuffix "*" .) (hasPrefix (trimSuffix "*" .) $name)) -}}{{- $costly = append $costly $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $derived "costly" (uniq $costly) -}}

{{- $seconds := int64 $model.startup.seconds -}}
{{- if not $seconds -}}
{{- $reading := include "warmimage.ceilDiv" (list $derived.bytes (include "warmimage.bytes" $model.startup.readRate | int64 | max 1)) | int64 -}}
{{- $seconds = add (int64 $model.startup.overheadSeconds) $reading -}}
{{- end -}}
{{- $_ := set $derived "seconds" $seconds -}}
{{- $gate := 0 -}}
{{- if has $model.sidecar.mode (list "gate" "once") -}}{{- $gate = int64 $model.sidecar.deadline -}}{{- end -}}
{{- $progress := add $seconds $gate (int64 $model.startup.pullSeconds) 60 -}}
{{- $_ := set $derived "progressSeconds" $progress -}}
{{- $replicas := int64 $model.replicas -}}
{{- if ne $model.autoscaling.type "none" -}}{{- $replicas = int64 $model.autoscaling.maxReplicas -}}{{- end -}}
{{- $_ := set $derived "replicas" $replicas -}}
{{- $rounds := 1 -}}
{{- if and (eq $model.strategy.type "RollingUpdate") (gt $replicas 0) -}}
{{- $moving := add (include "warmimage.share" (list $model.strategy.maxSurge $replicas) | int64) (include "warmimage.share" (list $model.strategy.maxUnavailable $replicas) | int64) -}}
{{- $rounds = include "warmimage.ceilDiv" (list $replicas (max 1 $moving)) | int64 -}}
{{- end -}}
{{- $timeout := mul $progress $rounds -}}
{{- $_ := set $derived "rolloutSeconds" $timeout -}}
{{- if $model.warmer.enabled -}}
{{- $round := add (int64 $model.warmer.deadline) (int64 $model.startup.pullSeconds) 60 -}}
{{- $timeout = max $timeout (mul $round (include "warmimage.rounds" $model.warmer.maxUnavailable | int64)) -}}
{{- end -}}
{{- $_ := set $derived "timeoutSeconds" $timeout -}}

{{- /* A sidecar can warm everything. The DaemonSet can warm only files that pods on a node share. */ -}}
{{- $image := list -}}
{{- if $model.snapshot.inImage -}}{{- $image = append $image "snapshot" -}}{{- end -}}
{{- $image = append $image "image" -}}
{{- if $apart -}}{{- $image = list -}}{{- end -}}
{{- $_ := set $derived "sidecarTargets" (default (append $image "weights") $model.sidecar.targets) -}}
{{- $shared := include "warmimage.shared" $model -}}
{{- $_ := set $derived "warmerTargets" (default (ternary (append $image "weights") $image (not (empty $shared))) $model.warmer.targets) -}}
{{- range $who := list "sidecar" "warmer" -}}
{{- $bytes := 0 -}}
{{- $targets := get $derived (printf "%sTargets" $who) -}}
{{- if has "weights" $targets -}}{{- $bytes = add $bytes $weights -}}{{- end -}}
{{- if has "snapshot" $targets -}}{{- $bytes = add $bytes $snapshot -}}{{- end -}}
{{- $budget := include "warmimage.bytes" (get $model $who).budget | int64 -}}
{{- $_ := set $derived (printf "%sBytes" $who) (ternary (min $bytes $budget) $bytes (gt $budget 0)) -}}
{{- end -}}
{{- end -}}

{{/* "true" if all pods of a node share the weights' files. */}}
{{- define "warmimage.shared" -}}
{{- $volume := .weights.volume -}}
{{- if eq .weights.strategy "bake" -}}true
{{- else if eq .weights.strategy "mount" -}}
{{- if or (has $volume.type (list "image" "hostPath")) (and (eq $volume.type "pvc") $volume.pvc.shared) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of a model's claim. */}}
{{- define "warmimage.claim" -}}
{{- default (printf "%s-weights" .derived.name) .weights.volume.pvc.claimName -}}
{{- end -}}
