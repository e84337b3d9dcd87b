{{- define "streamjob-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "streamjob-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else }}
{{- $name := include "streamjob-operator.name" . }}
{{- if contains .Release.Name $name }}
{{- $name }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "streamjob-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "streamjob-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "streamjob-operator.labels" -}}
{{ include "streamjob-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "streamjob-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "streamjob-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image: a dict of `image` and `version`, the tag if none is set. */}}
{{- define "streamjob-operator.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .version .image.tag }}
{{- end }}
{{- end }}

{{/* What the operator may do where it looks after jobs: the same rules in a ClusterRole or in a Role of each namespace. */}}
{{- define "streamjob-operator.rules" -}}
# The jobs and savepoints that people ask for; patch sets and removes the finalizer.
- apiGroups: [streamjob.dev]
  resources: [streamjobs, savepoints]
  verbs: [get, list, watch, patch]
# What is observed of them, and the record of the operation under way.
- apiGroups: [streamjob.dev]
  resources: [streamjobs/status, savepoints/status]
  verbs: [get, update, patch]
# Where the API server asks for it of whoever sets an owner reference (admission plugin OwnerReferencesPermissionEnforcement).
- apiGroups: [streamjob.dev]
  resources: [streamjobs/finalizers, savepoints/finalizers]
  verbs: [update]
# Savepoints by schedule, and the end of those that retention lets go.
- apiGroups: [streamjob.dev]
  resources: [savepoints]
  verbs: [create, delete]
# Coordinators and workers of a revision; deleted when another one has taken over.
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# The spec that each revision was made from, for rollback and for rendering it again.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
# The job file of a revision, and how its processes find each other.
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
# The identity of a job's pods; it has no rights.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Claims of jobs with storage.persistentVolumeClaim.template. delete: with deletion.policy Discard.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
# At most one of a job's pods is evicted at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Why pods do not start; pods that delete a job's files; pods on lost nodes, which nobody else removes.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The secret with each job's token. Nothing but create: the operator sees no Secret in the namespaces of jobs, not even its name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
# Why pods do not start: quota, scheduling, volumes, images.
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
# What happens to a job, for `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
