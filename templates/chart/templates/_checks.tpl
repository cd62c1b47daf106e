{{/* Checks before anything is rendered. Each message has the key, the problem, the value and the fix. */}}

{{/* Checks of one model's values: (list ROOT NAME MODEL). */}}
{{- define "warmimage.check" -}}
{{- $root := index . 0 -}}
{{- $at := printf "models.%s" (index . 1) -}}
{{- $model := index . 2 -}}
{{- $derived := $model.derived -}}
{{- $weights := $model.weights -}}
{{- $volume := $weights.volume -}}

{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $derived.name) -}}
{{- fail (printf "%s: its resources would be called %q, but a Service's name must begin with a letter and contain only lower-case letters, digits and dashes; fix: set fullnameOverride" $at $derived.name) -}}
{{- end -}}
{{- if not $model.image.repository -}}
{{- fail (printf "%s.image.repository: no image to run; fix: -f values.generated.yaml, which warmimage build writes, or set it" $at) -}}
{{- end -}}
{{- range $which := list "image" "warmImage" -}}
{{- $image := get $model $which -}}
{{- if and $image.repository (not $image.digest) (has $image.tag (list "" "latest")) -}}
{{- fail (printf "%s.%s: got tag %q and no digest, which may be a different image on each node; fix: set %s.%s.digest" $at $which $image.tag $at $which) -}}
{{- end -}}
{{- end -}}

{{- if and (not $weights.bytes) (not (int64 $model.startup.seconds)) -}}
{{- fail (printf "%s.weights.bytes: the size of the weights is unknown, so the start-up time cannot be computed; fix: set it, such as 16Gi, or %s.startup.seconds" $at $at) -}}
{{- end -}}
{{- if not (include "warmimage.bytes" $model.startup.readRate | int64) -}}
{{- fail (printf "%s.startup.readRate: got %q, expected bytes per second above 0, such as 100Mi" $at $model.startup.readRate) -}}
{{- end -}}
{{- if ne $weights.strategy "bake" -}}
{{- include "warmimage.checkVolume" (list $root $at $model) -}}
{{- end -}}

{{- include "warmimage.checkSecrets" (list $at $model) -}}
{{- if and $model.snapshot.required (not $model.snapshot.inImage) -}}
{{- fail (printf "%s.snapshot.required: the image holds no snapshot (snapshot.inImage is false); fix: warmimage build --snapshot require, or set %s.snapshot.required to false" $at $at) -}}
{{- end -}}
{{- if and $model.snapshot.required (not $derived.restores) -}}
{{- fail (printf "%s.snapshot.required: the server would not start from its snapshot: start is %q; fix: set %s.start to auto, or %s.snapshot.required to false" $at $model.start $at $at) -}}
{{- end -}}

{{- if and (has $model.sidecar.mode (list "gate" "once")) (not (int64 $model.sidecar.deadline)) -}}
{{- fail (printf "%s.sidecar.mode: %s holds the server back and needs a deadline; got sidecar.deadline 0; fix: set %s.sidecar.deadline to the seconds after which the server starts anyway" $at $model.sidecar.mode $at) -}}
{{- end -}}
{{- if and (has $model.sidecar.mode (list "gate" "once")) (eq $model.weights.strategy "download") (has "weights" $derived.sidecarTargets) -}}
{{- fail (printf "%s.sidecar.mode: %s holds the server back until the weights are in memory, but the server itself downloads them; fix: mode overlap, or %s.sidecar.targets without weights, such as [image]" $at $model.sidecar.mode $at) -}}
{{- end -}}
{{- range $who := list "sidecar" "warmer" -}}
{{- $settings := get $model $who -}}
{{- $on := eq $who "warmer" | ternary $model.warmer.enabled (ne $model.sidecar.mode "none") -}}
{{- if $on -}}
{{- $bytes := get $derived (printf "%sBytes" $who) | int64 -}}
{{- $limit := dig "limits" "memory" "" $settings.resources -}}
{{- if and $limit (lt (include "warmimage.bytes" $limit | int64) $bytes) -}}
{{- fail (printf "%s.%s.resources.limits.memory: got %s for %d bytes to warm; the bytes that it reads count against its limit, so they would never all be in memory; fix: remove the limit, or set it above the weights" $at $who (toString $limit) $bytes) -}}
{{- end -}}
{{- $targets := get $derived (printf "%sTargets" $who) -}}
{{- if and $model.warmImage.repository (ne (toJson $targets) (toJson (list "weights"))) -}}
{{- fail (printf "%s.warmImage: a separate image can warm only weights; got %s.targets %s; fix: leave warmImage empty, or %s" $at $who (toJson $targets) (ternary (printf "set %s.warmer.enabled to false" $at) "name targets: [weights]" (empty $targets))) -}}
{{- end -}}
{{- if and $settings.lock (not $settings.budget) -}}
{{- fail (printf "%s.%s.lock: pinned memory needs a limit of its own; fix: set %s.%s.budget" $at $who $at $who) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (ne $model.sidecar.mode "none") (eq (int64 $model.sidecar.port) (int64 $model.port)) -}}
{{- fail (printf "%s.sidecar.port: got %d, which is the server's port; containers of one pod share their ports" $at (int64 $model.port)) -}}
{{- end -}}
{{- if and (has "weights" $derived.warmerTargets) (not (include "warmimage.shared" $model)) $model.warmer.enabled -}}
{{- fail (printf "%s.warmer.targets: a DaemonSet cannot warm weights on a volume that only one node can mount; fix: set %s.weights.volume.pvc.shared if many nodes may mount it, or leave weights out" $at $at) -}}
{{- end -}}

{{- $scaling := $model.autoscaling -}}
{{- if and (ne $scaling.type "none") (gt (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas %d is above maxReplicas %d" $at (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $scaling.type "hpa") (not (int64 $scaling.minReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas: got 0, which needs type keda" $at) -}}
{{- end -}}
{{- if and (eq $scaling.type "hpa") (not $scaling.hpa.metrics) -}}
{{- fail (printf "%s.autoscaling.hpa.metrics: no metric to scale by; fix: name one, such as the engine's number of waiting requests" $at) -}}
{{- end -}}
{{- if and (eq $scaling.type "keda") (not $scaling.keda.triggers) -}}
{{- fail (printf "%s.autoscaling.keda.triggers: no trigger to scale by" $at) -}}
{{- end -}}
{{- $strategy := $model.strategy -}}
{{- if and (eq $strategy.type "RollingUpdate") (has (toString $strategy.maxSurge) (list "0" "0%")) (has (toString $strategy.maxUnavailable) (list "0" "0%")) -}}
{{- fail (printf "%s.strategy: with maxSurge and maxUnavailable both 0 no server could ever be replaced" $at) -}}
{{- end -}}
{{- $paths := dict -}}
{{- range $folder, $settings := $model.writable -}}
{{- if dig "enabled" true $settings -}}
{{- $path := dig "path" "" $settings -}}
{{- if not $path -}}{{- fail (printf "%s.writable.%s.path: which directory of the container?" $at $folder) -}}{{- end -}}
{{- if or (hasKey $paths $path) (eq $path $weights.path) -}}
{{- fail (printf "%s.writable.%s.path: got %s, which is mounted already" $at $folder $path) -}}
{{- end -}}
{{- $_ := set $paths $path true -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses variables of a server that look like secrets: (list WHERE MODEL). Values that only switch something pass. */}}
{{- define "warmimage.checkSecrets" -}}
{{- $at := index . 0 -}}
{{- $model := index . 1 -}}
{{- $given := list -}}
{{- range $name, $value := $model.env -}}
{{- $given = append $given (dict "at" (printf "env.%s" $name) "name" $name "value" $value) -}}
{{- end -}}
{{- range $model.extraEnv -}}
{{- $name := dig "name" "" . -}}
{{- $given = append $given (dict "at" (printf "extraEnv, %s" $name) "name" $name "value" (dig "value" "" .)) -}}
{{- end -}}
{{- range $given -}}
{{- $value := toString .value -}}
{{- $switch := regexMatch "(?i)^(|[0-9]{1,6}|true|false|yes|no|on|off|none|empty|<nil>|\\$\\([A-Za-z_][A-Za-z0-9_.-]*\\))$" $value -}}
{{- if and (regexMatch "(?i)(^|_)(TOKEN|API_?KEY|PASSWORD|SECRET)$" .name) (not $switch) -}}
{{- fail (printf "%s.%s: a secret as a plain value, which everyone who can read the release or the pods can read; fix: %s.extraEnv with valueFrom.secretKeyRef, or %s.envFrom with secretRef" $at .at $at $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Checks of the weights' volume: (list ROOT WHERE MODEL). */}}
{{- define "warmimage.checkVolume" -}}
{{- $root := index . 0 -}}
{{- $at := printf "%s.weights.volume" (index . 1) -}}
{{- $model := index . 2 -}}
{{- $volume := $model.weights.volume -}}
{{- $download := eq $model.weights.strategy "download" -}}
{{- if eq $volume.type "pvc" -}}
{{- if and (not $volume.pvc.create) (not $volume.pvc.claimName) -}}
{{- fail (printf "%s.pvc.claimName: which claim holds the model? fix: set it, or %s.pvc.create, or another %s.type" $at $at $at) -}}
{{- end -}}
{{- if and $volume.pvc.create (not $volume.pvc.size) -}}
{{- fail (printf "%s.pvc.size: a created claim needs a size" $at) -}}
{{- end -}}
{{- if and $volume.pvc.create $volume.pvc.size (lt (include "warmimage.bytes" $volume.pvc.size | int64) (int64 $model.derived.weightBytes)) -}}
{{- fail (printf "%s.pvc.size: got %s for %d bytes of weights" $at $volume.pvc.size (int64 $model.derived.weightBytes)) -}}
{{- end -}}
{{- else if eq $volume.type "image" -}}
{{- if not $volume.image.reference -}}
{{- fail (printf "%s.image.reference: which image holds the model?" $at) -}}
{{- end -}}
{{- if semverCompare "<1.31.0-0" $root.Capabilities.KubeVersion.Version -}}
{{- fail (printf "%s.type: image volumes need Kubernetes 1.31, got %s; fix: pvc or hostPath" $at $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $volume.subPath (semverCompare "<1.33.0-0" $root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "%s.subPath: for an image volume it needs Kubernetes 1.33, got %s" $at $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if $download -}}{{- fail (printf "%s.type: nothing can be downloaded into an image volume; fix: pvc or emptyDir" $at) -}}{{- end -}}
{{- else if eq $volume.type "hostPath" -}}
{{- $path := clean $volume.hostPath.path -}}
{{- if $download -}}{{- fail (printf "%s.type: hostPath is read-only; fix: pvc or emptyDir to download into" $at) -}}{{- end -}}
{{- if not (regexMatch "^/[^/]+/[^/]+" $path) -}}
{{- fail (printf "%s.hostPath.path: got %q, expected the model's own directory, at least two levels below /" $at $volume.hostPath.path) -}}
{{- end -}}
{{- if regexMatch "^/(etc|proc|sys|dev|run|root|boot|usr|bin|sbin|lib|lib64|var/(lib/(kubelet|containerd|docker|containers|etcd|rancher)|run|log))(/|$)" $path -}}
{{- fail (printf "%s.hostPath.path: got %s, a system directory; fix: keep models in a separate directory, such as /var/lib/models/NAME" $at $path) -}}
{{- end -}}
{{- else if not $download -}}
{{- fail (printf "%s.type: an emptyDir contains no model; it is only for weights.strategy download" $at) -}}
{{- end -}}
{{- end -}}

{{/* Checks that the warmers on one node fit nodeBudget: (list ROOT MODELS). Models with equal selectors share nodes. */}}
{{- define "warmimage.checkNodes" -}}
{{- $root := index . 0 -}}
{{- $budget := include "warmimage.bytes" $root.Values.nodeBudget | int64 -}}
{{- $totals := dict -}}
{{- $members := dict -}}
{{- range $key, $model := index . 1 -}}
{{- if and $budget $model.warmer.enabled -}}
{{- $nodes := list $model.arch $model.nodeSelector $model.warmer.nodeSelector (include "warmimage.requiredNodes" $model) | toJson -}}
{{- $total := add (default 0 (get $totals $nodes) | int64) $model.derived.warmerBytes -}}
{{- $_ := set $totals $nodes $total -}}
{{- $_ := set $members $nodes (append (default list (get $members $nodes)) $key) -}}
{{- if gt $total $budget -}}
{{- fail (printf "nodeBudget: got %s for the %d bytes that the warmers of %s would keep on one node; fix: raise it, give the models separate nodes (nodeSelector), or set warmer.enabled to false for some" $root.Values.nodeBudget $total (join ", " (get $members $nodes))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Checks of node labels: (list ROOT MODELS). Two warmers with the same label would remove it from each other's nodes. */}}
{{- define "warmimage.checkLabels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict -}}
{{- range $key, $model := index . 1 -}}
{{- if and $model.warmer.enabled $model.warmer.nodeLabel.enabled -}}
{{- $label := include "warmimage.nodeLabel" (dict "root" $root "model" $model) -}}
{{- if hasKey $labels $label -}}
{{- fail (printf "warmer.nodeLabel.key: the warmers of %s and %s would both set %s; fix: leave it empty, or set a different one for each model" (get $labels $label) $key $label) -}}
{{- end -}}
{{- $_ := set $labels $label $key -}}
{{- end -}}
{{- end -}}
{{- end -}}
