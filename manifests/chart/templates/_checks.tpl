{{- /* Faults that the values' schema cannot name, or shows as a pattern only: one sentence for each. */ -}}
{{- define "checks" -}}
{{- range $name := list "image" "offerBy" "hami" "cdi" "cdiDir" "containerRuntime" "visibleDevices" "monitoringResource" "hostPath" "managementLibrary" "nodeLabels" "serviceMonitor" "openshift" "kubeletRoot" "devicePluginsDir" "logLevel" -}}
  {{- if kindIs "invalid" (index $.Values $name) -}}
    {{- fail (printf "%s is null: give a value, or leave it out for the default" $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.config -}}
  {{- if not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" $name) -}}
    {{- fail (printf "config %q: give the name of a node, or default" $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name := list "kubeletRoot" "devicePluginsDir" "cdiDir" -}}
  {{- $value := index $.Values $name -}}
  {{- if or (not (hasPrefix "/" $value)) (eq (trimAll "/" $value) "") -}}
    {{- fail (printf "%s %q: give an absolute path of a directory, such as %s" $name $value (get (dict "kubeletRoot" "/var/lib/kubelet" "devicePluginsDir" "/var/lib/kubelet/device-plugins" "cdiDir" "/etc/cdi") $name)) -}}
  {{- end -}}
{{- end -}}
{{- range .Values.extraArgs -}}
  {{- if not (regexMatch "^--[a-z]" .) -}}
    {{- fail (printf "extraArgs %q: give flags of the daemon with their values, such as --pulse=300" .) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.image.digest -}}
  {{- if not (regexMatch "^sha256:[0-9a-f]{64}$" .) -}}
    {{- fail (printf "image.digest %q: give sha256: and 64 hexadecimal digits" .) -}}
  {{- end -}}
{{- end -}}
{{- $variables := list -}}
{{- range include "env" . | fromYamlArray -}}
  {{- if has .name $variables -}}
    {{- fail (printf "env: the chart or an earlier entry already sets %s; use the chart's value for it" .name) -}}
  {{- end -}}
  {{- $variables = append $variables .name -}}
{{- end -}}
{{- if eq .Values.containerRuntime "kata" -}}
  {{- if .Values.cdi -}}
    {{- fail "cdi=true and containerRuntime=kata: virtual machines get VFIO groups, which have no CDI names; choose one of the two" -}}
  {{- end -}}
  {{- if .Values.hostPath -}}
    {{- fail "hostPath=true and containerRuntime=kata: a virtual machine cannot use the host's library; choose one of the two" -}}
  {{- end -}}
{{- end -}}
{{- if eq .Values.offerBy "dra" -}}
  {{- if semverCompare "<1.34-0" .Capabilities.KubeVersion.Version -}}
    {{- fail (printf "offerBy=dra needs Kubernetes 1.34, and this is %s: it does not serve resource.k8s.io/v1" .Capabilities.KubeVersion.Version) -}}
  {{- end -}}
  {{- if .Values.cdi -}}
    {{- fail "cdi=true and offerBy=dra: a claim has a CDI file of its own, and the file of all cards is not used; choose one of the two" -}}
  {{- end -}}
  {{- if eq .Values.serviceAccountName "default" -}}
    {{- fail "serviceAccountName=default and offerBy=dra: the driver's rights would be those of every pod in the namespace; leave it empty, or give an account of its own" -}}
  {{- end -}}
{{- end -}}
{{- if .Values.hami -}}
  {{- if eq .Values.offerBy "dra" -}}
    {{- fail "hami=true and offerBy=dra: HAMi places no pods with resource claims; choose one of the two" -}}
  {{- end -}}
  {{- if eq .Values.containerRuntime "kata" -}}
    {{- fail "hami=true and containerRuntime=kata: HAMi counts the driver's cards, not VFIO groups; choose one of the two" -}}
  {{- end -}}
  {{- if eq .Values.serviceAccountName "default" -}}
    {{- fail "serviceAccountName=default and hami=true: the plugin's rights would be those of every pod in the namespace; leave it empty, or give an account of its own" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.cdi (semverCompare "<1.28-0" .Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "cdi=true needs Kubernetes 1.28, and this is %s: its kubelets drop CDI names, and pods would get no device" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}

{{- define "config" -}}
{{- range $name, $settings := merge (deepCopy .Values.config) (dict "default" dict) }}
{{ $name }}.yaml: |
  {{- $settings | default dict | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "serviceAccountName" -}}
{{- $own := ternary "br-gpu-device-plugin" "default" .Values.openshift -}}
{{- $own = ternary "br-gpu-hami" $own .Values.hami -}}
{{- .Values.serviceAccountName | default (ternary "br-gpu-dra" $own (eq .Values.offerBy "dra")) -}}
{{- end -}}

{{- define "kubeletRoot" -}}
{{- trimSuffix "/" .Values.kubeletRoot -}}
{{- end -}}

{{- define "env" -}}
- name: BR_GPU_HOST_ROOT
  value: /host
{{- if .Values.cdi }}
- name: BR_GPU_CDI_FEATURE
  value: "true"
- name: BR_GPU_OVERWRITE_CDI_CONFIG
  value: "true"
{{- if ne .Values.cdiDir "/etc/cdi" }}
- name: BR_GPU_CDI_DIR
  value: {{ .Values.cdiDir | quote }}
{{- end }}
{{- end }}
{{- if ne .Values.containerRuntime "runc" }}
- name: BR_GPU_CONTAINER_RUNTIME
  value: {{ .Values.containerRuntime | quote }}
{{- end }}
{{- if eq .Values.offerBy "dra" }}
- name: BR_GPU_OFFER_BY
  value: dra
{{- if ne (include "kubeletRoot" .) "/var/lib/kubelet" }}
- name: BR_GPU_KUBELET_ROOT
  value: {{ include "kubeletRoot" . | quote }}
{{- end }}
{{- end }}
{{- if .Values.hami }}
- name: BR_GPU_HAMI
  value: "true"
{{- end }}
{{- if .Values.config }}
- name: BR_GPU_CONFIG_DIR
  value: /etc/br-gpu-device-plugin
{{- end }}
{{- if or .Values.hami .Values.config }}
- name: BR_GPU_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- if .Values.monitoringResource }}
- name: BR_GPU_MONITORING_RESOURCE
  value: "true"
{{- end }}
{{- if ne .Values.visibleDevices "none" }}
- name: BR_GPU_VISIBLE_DEVICES
  value: {{ .Values.visibleDevices | quote }}
{{- end }}
{{- with .Values.probes }}
{{- $words := list }}
{{- range $name, $mode := . }}
{{- $words = append $words (printf "%s=%s" $name (ternary "off" $mode (eq (toString $mode) "false"))) }}
{{- end }}
- name: BR_GPU_PROBE
  value: {{ join "," $words | quote }}
{{- end }}
{{- with .Values.exclude }}
- name: BR_GPU_EXCLUDE
  value: {{ join "," . | quote }}
{{- end }}
{{- if .Values.hostPath }}
- name: BR_GPU_MOUNT_HOST_PATH
  value: "true"
{{- end }}
{{- if .Values.nodeLabels }}
- name: BR_GPU_NFD_FEATURES_DIR
  value: /etc/kubernetes/node-feature-discovery/features.d
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}
