package main

import (
	"fmt"
	"os"
	"strings"
)

// kernelSettings are what the kubelet insists on and would set for the whole
// machine: it is shown these instead.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// writeConfig writes the configuration of every part.
func (p *place) writeConfig(list []node) error {
	files := map[string][]byte{
		p.file("scheduler", "config.yaml"): p.schedulerConfig(),
		p.file("scheduler", "matrix.json"): []byte(`{"edges": []}` + "\n"),
		p.file("scheduler", "delays.json"): delays(list),
	}
	for key, value := range kernelSettings {
		files[p.kernelSetting(key)] = []byte(value + "\n")
	}
	for _, n := range list {
		files[p.file(n.Name, "containerd.toml")] = p.containerdConfig(n)
		files[p.file(n.Name, "cni", "10-bridge.conflist")] = p.cniConfig(n)
		files[p.file(n.Name, "kubelet.yaml")] = p.kubeletConfig(n)
		files[p.file(n.Name, "proxy.yaml")] = p.proxyConfig(n)
		for _, dir := range []string{"var-lib", "var-log", "kubelet", "containerd"} {
			if err := os.MkdirAll(p.file(n.Name, dir), 0o755); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(p.file("logs"), 0o755); err != nil {
		return err
	}
	return writeFiles(files)
}

func (p *place) kernelSetting(key string) string {
	return p.file("kernel", strings.ReplaceAll(key, "/", "."))
}

// delays say that nodes are 8 ms apart, each being a site (its zone).
func delays(list []node) []byte {
	var names, rows []string
	for i, a := range list {
		names = append(names, fmt.Sprintf("%q", a.Name))
		var row []string
		for j := range list {
			if i == j {
				row = append(row, "0.1")
			} else {
				row = append(row, "8")
			}
		}
		rows = append(rows, "["+strings.Join(row, ", ")+"]")
	}
	return fmt.Appendf(nil, "{\"sites\": [%s], \"oneWayMs\": [%s]}\n", strings.Join(names, ", "), strings.Join(rows, ", "))
}

// schedulerConfig makes meridian-scheduler the cluster's only scheduler.
func (p *place) schedulerConfig() []byte {
	return fmt.Appendf(nil, `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %[1]q}
percentageOfNodesToScore: 100
profiles:
- schedulerName: default-scheduler
  plugins:
    queueSort:
      disabled: [{name: "*"}]
      enabled: [{name: TrafficSort}]
    multiPoint:
      enabled: [{name: TrafficAffinity, weight: 10}]
  pluginConfig:
  - name: TrafficSort
    args: {matrixFile: %[2]q, maxAge: 24h}
  - name: TrafficAffinity
    args: {matrixFile: %[2]q, delaysFile: %[3]q, maxAge: 24h}
`, p.file("pki", "scheduler.kubeconfig"), p.file("scheduler", "matrix.json"), p.file("scheduler", "delays.json"))
}

// containerdSocket is at its default place, in the node's own /run.
const containerdSocket = "/run/containerd/containerd.sock"

func (p *place) containerdConfig(n node) []byte {
	return fmt.Appendf(nil, `version = 2
root = %q
state = "/run/containerd"
# Storage of other kinds, of which each start would say that it is not there.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  # Where the machine does not let go below a process' own value.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, p.file(n.Name, "containerd"), containerdSocket, pauseImage, cniPrograms, p.file(n.Name, "cni"))
}

// cniPrograms is where Debian's containernetworking-plugins are.
const cniPrograms = "/usr/lib/cni"

func (p *place) cniConfig(n node) []byte {
	return fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
`, n.Pods)
}

// kubeletConfig has a node say how it is more often than by default, so that the
// loss of one is noticed in seconds (with nodeGrace): tests wait for it.
func (p *place) kubeletConfig(n node) []byte {
	return fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: %q
containerRuntimeEndpoint: unix://%s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: %q}
authorization: {mode: AlwaysAllow}
tlsCertFile: %q
tlsPrivateKeyFile: %q
resolvConf: ""
oomScoreAdj: 0
maxPods: 200
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
volumePluginDir: %q
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
clusterDomain: cluster.local
`, p.cgroup()+"/"+n.Name, containerdSocket, p.file("pki", "ca.crt"), p.file("pki", n.Name+".crt"), p.file("pki", n.Name+".key"), p.file(n.Name, "volume-plugins"))
}

func (p *place) proxyConfig(n node) []byte {
	return fmt.Appendf(nil, `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %q}
hostnameOverride: %q
clusterCIDR: %s
# Limits of connection tracking are the machine's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, p.file("pki", "proxy.kubeconfig"), n.Name, podsCIDR)
}

// nodeGrace is after how long without a word a node counts as lost.
const nodeGrace = "10s"

// etcd keeps nothing that must survive, so it waits for no disk.
func (p *place) etcd() []string {
	return []string{
		"etcd", "--data-dir", p.file("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
	}
}

func (p *place) apiserver(port int) []string {
	pki := func(name string) string { return p.file("pki", name) }
	return []string{
		"kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range=" + servicesCIDR,
		fmt.Sprintf("--secure-port=%d", port), "--advertise-address=" + controlAddress,
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"), "--client-ca-file=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("apiserver-to-kubelet.crt"), "--kubelet-client-key=" + pki("apiserver-to-kubelet.key"),
		"--kubelet-certificate-authority=" + pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + pki("tokens.key"), "--service-account-key-file=" + pki("tokens.key"),
		"--authorization-mode=Node,RBAC", "--allow-privileged",
		// Nobody stands before the API server and vouches for others; without an authority
		// for such the others complain that it is missing.
		"--requestheader-client-ca-file=" + pki("ca.crt"), "--requestheader-allowed-names=nobody",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
	}
}

func (p *place) controllers() []string {
	as := p.file("pki", "controllers.kubeconfig")
	return []string{
		"kube-controller-manager", "--kubeconfig=" + as, "--authentication-kubeconfig=" + as, "--authorization-kubeconfig=" + as,
		"--service-account-private-key-file=" + p.file("pki", "tokens.key"), "--root-ca-file=" + p.file("pki", "ca.crt"),
		"--use-service-account-credentials", "--leader-elect=false", "--bind-address=127.0.0.1",
		"--node-monitor-period=1s", "--node-monitor-grace-period=" + nodeGrace,
	}
}

func (p *place) scheduler() []string {
	as := p.file("pki", "scheduler.kubeconfig")
	return []string{"--config=" + p.file("scheduler", "config.yaml"), "--authentication-kubeconfig=" + as, "--authorization-kubeconfig=" + as, "--bind-address=127.0.0.1"}
}

func (p *place) kubelet(n node) []string {
	return []string{
		"kubelet", "--config", p.file(n.Name, "kubelet.yaml"), "--kubeconfig", p.file(n.Name, "kubeconfig"), "--root-dir", p.file(n.Name, "kubelet"),
		"--hostname-override", n.Name, "--node-ip", n.Address.String(), "--node-labels", "topology.kubernetes.io/zone=" + n.Name,
	}
}
