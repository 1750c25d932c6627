package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// here is a cluster's place in a folder of the test.
func here(t *testing.T) *place {
	t.Helper()
	dir := t.TempDir()
	return &place{name: "test", root: dir, programs: filepath.Join(dir, "programs"), dir: filepath.Join(dir, "test")}
}

// An image is read as a runtime would: manifest, then configuration and layer, whose
// digests must be those of what is there.
func TestImage(t *testing.T) {
	p := here(t)
	program := filepath.Join(p.root, "echo")
	body := bytes.Repeat([]byte("program"), 1000)
	if err := os.WriteFile(program, body, 0o600); err != nil {
		t.Fatal(err)
	}
	file := p.file("images", "echo.tar")
	if err := writeImage(file, program, []string{"a/b:1", "c:2"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	outer := untar(t, b)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(outer["manifest.json"].body, &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest: %v: %s", err, outer["manifest.json"].body)
	}
	m := manifest[0]
	if strings.Join(m.RepoTags, " ") != "a/b:1 c:2" || len(m.Layers) != 1 {
		t.Errorf("manifest %+v", m)
	}
	config := outer[m.Config].body
	if want := fmt.Sprintf("%x.json", sha256.Sum256(config)); m.Config != want {
		t.Errorf("configuration is named %s, want %s", m.Config, want)
	}
	var c struct {
		Config struct{ Entrypoint []string }
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	layer := outer[m.Layers[0]].body
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); len(c.Rootfs.DiffIDs) != 1 || c.Rootfs.DiffIDs[0] != want {
		t.Errorf("layers %v, want %s", c.Rootfs.DiffIDs, want)
	}
	files := untar(t, layer)
	entry := strings.TrimPrefix(strings.Join(c.Config.Entrypoint, " "), "/")
	if f := files[entry]; !bytes.Equal(f.body, body) || f.mode != 0o755 {
		t.Errorf("%s: %d bytes, mode %o", entry, len(f.body), f.mode)
	}
	if files["tmp/"].mode != 0o1777 {
		t.Errorf("no /tmp for everybody: %+v", files["tmp/"])
	}
	if err := writeImage(file, filepath.Join(p.root, "nothing"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func untar(t *testing.T, b []byte) map[string]member {
	t.Helper()
	r, files := tar.NewReader(bytes.NewReader(b)), map[string]member{}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = member{h.Name, h.Mode, body}
	}
}

// Every certificate is believed for what it is for, and for nothing else.
func TestCertificates(t *testing.T) {
	p, list := here(t), nodes(2)
	if err := p.writePKI(time.Now(), 6443, list); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(p.file("pki", "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("no authority: %v", err)
	}
	leaf := func(cert, key []byte) *x509.Certificate {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	read := func(name string) *x509.Certificate {
		cert, err := os.ReadFile(p.file("pki", name+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(p.file("pki", name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return leaf(cert, key)
	}
	for name, hosts := range map[string][]string{
		"apiserver": {"127.0.0.1", controlAddress, apiClusterIP, "localhost", "kubernetes.default.svc"},
		"node-1":    {"node-1", "10.99.0.11"},
		"node-2":    {"node-2", "10.99.0.12"},
	} {
		for _, h := range append(hosts, "elsewhere") {
			_, err := read(name).Verify(x509.VerifyOptions{Roots: roots, DNSName: h, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			if (err == nil) != (h != "elsewhere") {
				t.Errorf("%s as %s: %v", name, h, err)
			}
		}
	}
	for file, who := range map[string]string{
		p.file("kubeconfig"):                    "CN=admin,O=system:masters",
		p.file("node-2", "kubeconfig"):          "CN=system:node:node-2,O=system:nodes",
		p.file("pki", "scheduler.kubeconfig"):   "CN=system:kube-scheduler",
		p.file("pki", "controllers.kubeconfig"): "CN=system:kube-controller-manager",
		p.file("pki", "proxy.kubeconfig"):       "CN=system:kube-proxy",
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Users []struct {
				User struct {
					Cert string `json:"client-certificate-data"`
					Key  string `json:"client-key-data"`
				}
			}
		}
		if err := yaml.Unmarshal(b, &c); err != nil || len(c.Users) != 1 {
			t.Fatalf("%s: %v", file, err)
		}
		plain := func(s string) []byte {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		x := leaf(plain(c.Users[0].User.Cert), plain(c.Users[0].User.Key))
		if _, err := x.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || x.Subject.String() != who {
			t.Errorf("%s: %s, want %s (%v)", file, x.Subject, who, err)
		}
		if _, err := x.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
			t.Errorf("%s can be a server's", file)
		}
	}
}

// Nodes share nothing that must be apart, and what is written can be read.
func TestConfiguration(t *testing.T) {
	p, list := here(t), nodes(maxNodes)
	if err := p.writeConfig(list); err != nil {
		t.Fatal(err)
	}
	cgroups := map[string]bool{}
	for i, n := range list {
		for _, other := range list[:i] {
			if n.Address == other.Address || n.Pods.Overlaps(other.Pods) {
				t.Errorf("%s and %s have addresses in common", n.Name, other.Name)
			}
		}
		if lan := netip.PrefixFrom(netip.MustParseAddr(controlAddress), lanBits); !lan.Contains(n.Address) {
			t.Errorf("%s is not in the network of %s", n.Address, controlAddress)
		}
		if !netip.MustParsePrefix(podsCIDR).Overlaps(n.Pods) {
			t.Errorf("%s are no pods' addresses", n.Pods)
		}
		b, err := os.ReadFile(p.file(n.Name, "kubelet.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var k struct{ CgroupRoot string }
		if err := yaml.UnmarshalStrict(b, &map[string]any{}); err != nil {
			t.Fatalf("%s\n%s", err, b)
		}
		if err := yaml.Unmarshal(b, &k); err != nil || cgroups[k.CgroupRoot] || !strings.HasPrefix(k.CgroupRoot, p.cgroup()+"/") {
			t.Errorf("%s has the cgroup %q (%v)", n.Name, k.CgroupRoot, err)
		}
		cgroups[k.CgroupRoot] = true
	}
	var d struct {
		Sites    []string
		OneWayMs [][]float64
	}
	if err := json.Unmarshal(delays(list), &d); err != nil || len(d.Sites) != maxNodes || len(d.OneWayMs) != maxNodes {
		t.Errorf("delays: %v: %s", err, delays(list))
	}
	for _, file := range []string{p.file("scheduler", "config.yaml"), p.file("node-1", "proxy.yaml"), p.file("node-1", "cni", "10-bridge.conflist")} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(b, &map[string]any{}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// The programs say of themselves what they are built from.
func TestKubernetesVersion(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "cmd", "meridian-scheduler", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "k8s.io/kubernetes "+kubernetesVersion+"\n") {
		t.Errorf("the scheduler's go.mod does not require k8s.io/kubernetes %s", kubernetesVersion)
	}
}

func TestPlace(t *testing.T) {
	if p, err := newPlace("a-1", ""); err != nil || p.dir != filepath.Join(p.root, "bin", "cluster", "a-1") || !isSource(p.root) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, x := range []struct{ name, source, want string }{
		{"", "", "--name"},
		{"a/b", "", "--name"},
		{"programs", "", "--name"},
		{"a", t.TempDir(), "no cmd/meridian-scheduler/go.mod"},
	} {
		if _, err := newPlace(x.name, x.source); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q in %q: %v, want %q", x.name, x.source, err, x.want)
		}
	}
	for _, args := range [][]string{{"fly"}, {"up", "3"}, {"exec"}, {"image", "x"}, {"up", "--nodes", "10"}, {"status", "--name", "not-there"}} {
		if err := run(args[0], args[1:]); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
}

// A cgroup's folder goes with all below it, and only folders: files make it fail.
func TestRemoveCgroup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeCgroup(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := removeCgroup(dir); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}
