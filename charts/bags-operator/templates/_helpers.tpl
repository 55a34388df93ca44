{{- define "bags-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Of what is there once for each release. Short enough for "-consumers" to follow. */}}
{{- define "bags-operator.fullname" -}}
{{- $name := include "bags-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bags-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "bags-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "bags-operator.labels" -}}
{{ include "bags-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "bags-operator.serviceAccountName" -}}
{{- default (include "bags-operator.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "bags-operator.webhookService" -}}
{{- printf "%s-webhook" (include "bags-operator.fullname" .) -}}
{{- end -}}

{{- define "bags-operator.image" -}}
{{- $repository := required "image.repository: there is no public image yet; make one as README.md says, and set this to where it lies, for example registry.example/bags-operator" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What a schema cannot say. */}}
{{- define "bags-operator.check" -}}
{{- $fullname := include "bags-operator.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "fullnameOverride: the name of a Service begins with a letter, and %q does not; name the release otherwise, or set fullnameOverride" $fullname) -}}
{{- end -}}
{{- if and .Values.webhook.enabled (eq (int .Values.webhook.port) (int .Values.adminPort)) -}}
{{- fail "webhook.port and adminPort: two servers of one pod need two ports" -}}
{{- end -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.leaderElection.enabled) -}}
{{- fail "replicaCount: more than one pod needs leaderElection.enabled=true, since two operators must not work on one account" -}}
{{- end -}}
{{- if and .Values.allConsumerNamespaces .Values.consumerNamespaces -}}
{{- fail "consumerNamespaces and allConsumerNamespaces: write one of the two; allConsumerNamespaces=true covers every namespace" -}}
{{- end -}}
{{- include "bags-operator.checkKinds" . -}}
{{- end -}}

{{/* What a release has made and renders no more helm deletes, unless the object itself says "keep": with a kind go all of its objects. */}}
{{- define "bags-operator.checkKinds" -}}
{{- if not .Values.crds.enabled -}}
{{- if not .Values.crds.keep -}}
{{- fail "crds.enabled and crds.keep: with enabled=false nothing is rendered that could be kept or not; leave keep out. Where this release was installed with crds.keep=false, upgrade it with crds.enabled=true and crds.keep=true first, or helm deletes the kinds, every ApiKey and the record of every key" -}}
{{- end -}}
{{- range $kind := ternary (list "apikeys" "bagsaccounts") list .Release.IsUpgrade -}}
{{- $name := printf "%s.keys.bags.fm" $kind -}}
{{- $annotations := dig "metadata" "annotations" dict (lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name) -}}
{{- $ours := and (eq (dig "meta.helm.sh/release-name" "" $annotations) $.Release.Name) (eq (dig "meta.helm.sh/release-namespace" "" $annotations) $.Release.Namespace) -}}
{{- if and $ours (ne (dig "helm.sh/resource-policy" "" $annotations) "keep") -}}
{{- fail (printf "crds.enabled: this release has made %s, which is not marked to be kept: helm would delete it, with every object of it; upgrade with crds.enabled=true and crds.keep=true first" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
