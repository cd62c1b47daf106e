{{/* Arithmetic and merging, which sprig does not have in the form that is needed here. */}}

{{/* Put the values of one map over those of another: (list TARGET SOURCE). Sprig's merge would drop false, 0 and "". */}}
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

{{/* Whole number of times that one number goes into another, rounded up: (list NUMBER BY). */}}
{{- define "warmimage.ceilDiv" -}}
{{- $by := int64 (index . 1) -}}
{{- div (sub (add (int64 (index . 0)) $by) 1) $by -}}
{{- end -}}

{{/* How many of a number of pods a share such as 1 or 25% is, rounded down: (list SHARE PODS). */}}
{{- define "warmimage.share" -}}
{{- $share := toString (index . 0) -}}
{{- if hasSuffix "%" $share -}}
{{- div (mul (trimSuffix "%" $share | int64) (int64 (index . 1))) 100 -}}
{{- else -}}{{- int64 $share -}}{{- end -}}
{{- end -}}

{{/* Rounds in which a share such as 25% of all pods replaces them; of a plain number one, for nobody knows of how many. */}}
{{- define "warmimage.rounds" -}}
{{- $share := toString . -}}
{{- if hasSuffix "%" $share -}}
{{- include "warmimage.ceilDiv" (list 100 (trimSuffix "%" $share | int64 | max 1)) -}}
{{- else -}}1{{- end -}}
{{- end -}}

{{/* A share as Kubernetes takes it: a number, or a text with %. */}}
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
