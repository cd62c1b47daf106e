{{/* Arithmetic and merging that sprig lacks. */}}

{{/* Merges the map SOURCE over TARGET: (list TARGET SOURCE). Sprig's merge would drop false, 0 and "". */}}
{{- define "warmimage.merge" -}}
{{- $target := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $target $key)) -}}
{{- include "warmimage.merge" (list (get $target $key) $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $target $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a quantity such as 20Gi, rounded up; 0 for an empty one. */}}
{{- define "warmimage.bytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[kMGTP]i?$" $text -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000
    "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $number := trimSuffix $unit $text -}}
{{- if $number -}}
{{- mulf (float64 $number) (float64 (get $factors $unit)) | ceil | int64 -}}
{{- else -}}0{{- end -}}
{{- end -}}

{{/* NUMBER divided by BY, rounded up: (list NUMBER BY). */}}
{{- define "warmimage.ceilDiv" -}}
{{- $by := int64 (index . 1) -}}
{{- div (sub (add (int64 (index . 0)) $by) 1) $by -}}
{{- end -}}

{{/* Number of pods in a share such as 1 or 25%, rounded down: (list SHARE PODS). */}}
{{- define "warmimage.share" -}}
{{- $share := toString (index . 0) -}}
{{- if hasSuffix "%" $share -}}
{{- div (mul (trimSuffix "%" $share | int64) (int64 (index . 1))) 100 -}}
{{- else -}}{{- int64 $share -}}{{- end -}}
{{- end -}}

{{/* Number of rounds that replace all pods, a share such as 25% at a time. For a plain number it is 1, because the number of pods is unknown. */}}
{{- define "warmimage.rounds" -}}
{{- $share := toString . -}}
{{- if hasSuffix "%" $share -}}
{{- include "warmimage.ceilDiv" (list 100 (trimSuffix "%" $share | int64 | max 1)) -}}
{{- else -}}1{{- end -}}
{{- end -}}

{{/* A share in Kubernetes' form: a number, or a string with %. */}}
{{- define "warmimage.intOrPercent" -}}
{{- if kindIs "string" . -}}{{- . | quote -}}{{- else -}}{{- int64 . -}}{{- end -}}
{{- end -}}

{{/* Reference of an image: (list ROOT IMAGE). */}}
{{- define "warmimage.image" -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry (index . 0).Values.global.imageRegistry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag }}{{ end -}}
{{- end -}}
