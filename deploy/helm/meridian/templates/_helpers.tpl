{{/* Labels of an object; its part is given beside the root. */}}
{{- define "meridian.labels" -}}
app.kubernetes.io/name: meridian-{{ .part }}
app.kubernetes.io/part-of: meridian
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- define "meridian.image" -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}meridian-{{ .part }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "meridian.site" -}}
{{ required "site.name is missing: the name of this cluster's site in the mesh" .Values.site.name }}
{{- end }}

{{/* What Pod Security calls restricted. */}}
{{- define "meridian.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "meridian.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "meridian.pull" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The pod of a proxy: of the daemon set, or of the gateway. node is what its name comes from. */}}
{{- define "meridian.proxyPod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 45 # longer than --drain-timeout
{{- include "meridian.pull" .root }}
securityContext:
  {{- include "meridian.podSecurity" . | nindent 2 }}
  # Ports below 1024 without a capability.
  sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "0"}]
containers:
- name: edgeproxy
  image: {{ include "meridian.image" (dict "root" .root "part" "edgeproxy") }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
  - --config=nats://meridian-sitecontroller.{{ .root.Release.Namespace }}.svc:4222
  - --site={{ include "meridian.site" .root }}
  - --node=$(NODE)
  - --nats-token-file=/etc/meridian/token
  - --state-dir=/var/lib/meridian
  # Probes come from outside the pod; the NetworkPolicy keeps others away.
  - --admin=0.0.0.0:15000
  - --admin-allow-remote
  {{- range .root.Values.edgeproxy.extraArgs }}
  - {{ . | quote }}
  {{- end }}
  env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: {{ .node }}}}}]
  ports: [{name: admin, containerPort: 15000}]
  livenessProbe: {httpGet: {path: /healthz, port: admin}, periodSeconds: 10, failureThreshold: 3}
  readinessProbe: {httpGet: {path: /readyz, port: admin}, periodSeconds: 2}
  resources: {{- toYaml .resources | nindent 4 }}
  securityContext: {{- include "meridian.containerSecurity" . | nindent 4 }}
  volumeMounts:
  - {name: state, mountPath: /var/lib/meridian}
  - {name: token, mountPath: /etc/meridian, readOnly: true}
volumes:
# It outlives the container, so that a proxy whose controller is away starts again with what it had.
- {name: state, emptyDir: {sizeLimit: 64Mi}}
- {name: token, secret: {secretName: {{ .root.Values.nodeToken.secretName }}, defaultMode: 0440}}
{{- end }}

{{/* Ports of a service, the same number in the pod. */}}
{{- define "meridian.servicePorts" -}}
{{- range . }}
- {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .port }}, protocol: {{ get . "protocol" | default "TCP" }}{{ with get . "nodePort" }}, nodePort: {{ . }}{{ end }}}
{{- end }}
{{- end }}
