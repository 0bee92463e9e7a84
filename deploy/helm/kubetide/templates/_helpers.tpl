{{/* Names do not follow the release's: there is one owner of the metrics APIs, so one installation, in a cluster. */}}

{{- define "kubetide.labels" -}}
app.kubernetes.io/name: kubetide
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "kubetide.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What runs, as a list: the name of its Service and workload, its account, its modules, its Leases. */}}
{{- define "kubetide.components" -}}
{{- $account := .Values.serviceAccount.name -}}
{{- if .Values.engine.separate -}}
- name: kubetide
  component: server
  account: {{ $account }}
  modules: [adapter]
  leases: [kubetide-adapter]
- name: kubetide-engine
  component: engine
  account: {{ $account }}-engine
  modules: [{{ without .Values.modules "adapter" | join ", " }}]
  leases: [kapacity-manager.kapacitystack.io, kubetide-step, kubetide-stackset]
{{- else -}}
- name: kubetide
  component: server
  account: {{ $account }}
  modules: [{{ join ", " .Values.modules }}]
  leases: [kapacity-manager.kapacitystack.io, kubetide-adapter, kubetide-step, kubetide-stackset]
{{- end -}}
{{- end }}

{{/* The account and the Service of what runs the engine. */}}
{{- define "kubetide.engine.account" -}}
{{ (include "kubetide.components" . | fromYamlArray | last).account }}
{{- end }}
{{- define "kubetide.engine.service" -}}
{{ (include "kubetide.components" . | fromYamlArray | last).name }}
{{- end }}

{{- define "kubetide.webhooks" -}}
{{- if and .Values.webhooks.enabled (has "engine" .Values.modules) }}true{{ end -}}
{{- end }}

{{- define "kubetide.injectCA" -}}
{{- if eq .Values.certificates.source "cert-manager" }}
  annotations: {cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/kubetide}
{{- end }}
{{- end }}

{{/* The server's file: what the chart knows, below what config says. */}}
{{- define "kubetide.config" -}}
{{- $v := .Values -}}
{{- $own := dict
  "namespace" "${POD_NAMESPACE}"
  "identity" "${POD_NAME}_${POD_UID}"
  "modules" $v.modules
  "shutdown_delay" (printf "%ds" (int $v.shutdownDelaySeconds))
  "grace_period" (printf "%ds" (int $v.gracePeriodSeconds))
  "serving" (dict "bind_address" "${POD_IP}" "secure_port" (int $v.ports.https))
  "admin" (dict "port" (int $v.ports.admin))
  "webhook" (dict "port" (int $v.ports.webhook))
  "engine" (dict "validation" $v.engine.validation)
  "adapter" (dict "enable_custom_metrics_api" $v.metricsAPIs.custom "enable_external_metrics_api" $v.metricsAPIs.external) -}}
{{- if $v.cluster.enabled -}}
{{- $gossip := dict
  "bind_addr" (printf ":%d" (int $v.ports.gossip)) -}}
{{- if $v.cluster.gossipSecret }}{{ $_ := set $gossip "secret_key_file" "/etc/kubetide-gossip/keys" }}{{ end -}}
{{- $_ := set $own "cluster" (dict
  "name" $v.cluster.name
  "sharding" (ternary $v.cluster.sharding "off" (has "adapter" $v.modules))
  "node_id_prefix" "${POD_NAME}-"
  "join" (list "kubetide-headless")
  "gossip" $gossip
  "stream" (dict "bind_addr" (printf ":%d" (int $v.ports.stream)))) -}}
{{- end -}}
{{- if $v.engine.separate -}}
{{- $_ := set $own.serving "service_name" (list "kubetide" "kubetide-engine") -}}
{{- if $v.cluster.enabled }}{{ $_ := set $own.cluster "join" (list "kubetide-headless" "kubetide-engine-headless") }}{{ end -}}
{{- end -}}
{{- if eq $v.certificates.source "cert-manager" -}}
{{- $_ := set $own.serving "tls_cert_file" "/etc/kubetide-tls/tls.crt" -}}
{{- $_ := set $own.serving "tls_private_key_file" "/etc/kubetide-tls/tls.key" -}}
{{- if $v.cluster.enabled }}{{ $_ := set $own.cluster.stream "ca_file" "/etc/kubetide-tls/ca.crt" }}{{ end -}}
{{- end -}}
{{- mergeOverwrite $own (deepCopy $v.config) | toYaml -}}
{{- end }}

{{/* The pod template of one component: root, and the component. */}}
{{- define "kubetide.pod" -}}
{{- $v := .root.Values -}}
{{- $component := .component -}}
metadata:
  labels:
    app.kubernetes.io/name: kubetide
    app.kubernetes.io/component: {{ $component.component }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "kubetide.config" .root | sha256sum }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ $component.account }}
  # Else the Services of the namespace would set variables that begin with KUBETIDE_.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $v.gracePeriodSeconds 15 }}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- toYaml . | nindent 6 }}
      labelSelector:
        matchLabels: {app.kubernetes.io/name: kubetide, app.kubernetes.io/component: {{ $component.component }}}
    {{- end }}
  {{- end }}
  {{- include "kubetide.podSecurity" . | nindent 2 }}
  containers:
    - name: kubetide
      image: {{ include "kubetide.image" .root }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        - server
        - --config.path=/etc/kubetide/server.yaml
        - --config.expand-env
        {{- if $v.engine.separate }}
        - --modules={{ join "," $component.modules }}
        {{- end }}
        {{- range $v.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_UID
          valueFrom: {fieldRef: {fieldPath: metadata.uid}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        # Near it, memory is collected sooner instead of ending the process.
        - {name: GOMEMLIMIT, value: {{ $v.goMemLimit }}}
        {{- with $v.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: https, containerPort: {{ $v.ports.https }}}
        - {name: admin, containerPort: {{ $v.ports.admin }}}
        - {name: webhook, containerPort: {{ $v.ports.webhook }}}
        - {name: gossip, containerPort: {{ $v.ports.gossip }}}
        - {name: gossip-udp, containerPort: {{ $v.ports.gossip }}, protocol: UDP}
        - {name: stream, containerPort: {{ $v.ports.stream }}}
      livenessProbe:
        httpGet: {path: /health, port: admin}
        initialDelaySeconds: 10
        periodSeconds: 10
        timeoutSeconds: 2
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /ready, port: admin}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      {{- with ternary $v.engine.resources $v.resources (eq $component.component "engine") }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- include "kubetide.containerSecurity" . | nindent 6 }}
      volumeMounts:
        - {name: config, mountPath: /etc/kubetide, readOnly: true}
        {{- if eq $v.certificates.source "cert-manager" }}
        - {name: tls, mountPath: /etc/kubetide-tls, readOnly: true}
        {{- end }}
        {{- if and $v.cluster.enabled $v.cluster.gossipSecret }}
        - {name: gossip, mountPath: /etc/kubetide-gossip, readOnly: true}
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: kubetide-config}
    {{- if eq $v.certificates.source "cert-manager" }}
    - name: tls
      secret: {secretName: kubetide-tls}
    {{- end }}
    {{- if and $v.cluster.enabled $v.cluster.gossipSecret }}
    - name: gossip
      secret: {secretName: {{ $v.cluster.gossipSecret }}}
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "kubetide.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kubetide.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Weights order the hooks. */}}
{{- define "kubetide.cleanup.metadata" }}
  labels: {app.kubernetes.io/part-of: kubetide}
  annotations:
    helm.sh/hook: post-delete
    helm.sh/hook-weight: {{ . | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
