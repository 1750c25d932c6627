//go:build install

package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var services = []string{"edgeproxy", "sitecontroller", "chainagent"}

// guide is the commands of docs/guide/install.md that say they are run here, block by block.
func guide(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/guide/install.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)<!-- shown: make test-packages runs it[^>]*-->\n```sh\n(.*?)```")
	var out []string
	for _, m := range block.FindAllSubmatch(page, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// packed makes packages of the binaries in bin/ for this machine and puts them into /srv
// of a root, in place of what was there. The version has a suffix.
func packed(t *testing.T, root, suffix string) {
	t.Helper()
	srv := filepath.Join(root, "srv")
	old, err := filepath.Glob(filepath.Join(srv, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	version, when, err := fromGit("../..")
	if err != nil {
		t.Fatal(err)
	}
	doc := t.TempDir()
	if err := documents("../..", "../../bin/meridian", doc, when); err != nil {
		t.Fatal(err)
	}
	configs, err := filepath.Glob("meridian*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range configs {
		p := pack{root: "../..", bin: filepath.Join("../../bin", runtime.GOARCH), doc: doc, version: version + suffix, arch: runtime.GOARCH, when: when}
		if _, err := p.write(config, srv); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInstall is the life of the packages on a fresh Debian with systemd: what the guide
// says, hangs, an upgrade under requests, and removal.
func TestInstall(t *testing.T) {
	blocks := guide(t)
	if len(blocks) != 3 {
		t.Fatalf("docs/guide/install.md has %d blocks for this test, want 3: first site, documents, upgrade", len(blocks))
	}
	root := debian(t)
	packed(t, root, "")
	m := boot(t, root)

	m.run("set -x; " + blocks[0])
	m.run("dpkg -i meridian-chainagent_*.deb")
	if got := m.run("dpkg --verify | grep -v /etc/meridian/edgeproxy.env || true; dpkg --audit; stat -c '%U:%a' /var/lib/meridian/site /var/lib/meridian/edgeproxy /etc/meridian/node.token"); got != "meridian:700\nmeridian:700\nroot:640" {
		t.Errorf("what is installed:\n%s", got)
	}
	m.units()

	m.run(blocks[1])
	var answer string
	within(t, 30*time.Second, "an answer at port 80", func() bool { answer, _ = m.get("http://127.0.0.1/"); return answer == "hello from north\n" })
	if got := m.run("cd /proc/$(systemctl show --value -p MainPID meridian-edgeproxy) && stat -c %U . && grep CapEff status"); !strings.HasPrefix(got, "meridian\n") || !strings.HasSuffix(got, "0000000000000400") {
		t.Errorf("the proxy runs as %s, want meridian with CAP_NET_BIND_SERVICE (0x400)", got)
	}
	m.run("meridian --data /var/lib/meridian/site check >&2")

	m.chains()
	m.hangs()
	m.upgrade(blocks[2])
	m.removal()
}

// units: they are right by systemd's own judgement, and off until somebody wants them.
func (m *machine) units() {
	m.t.Helper()
	for _, s := range services {
		unit := "/usr/lib/systemd/system/meridian-" + s + ".service"
		if said := m.run("systemd-analyze verify --man=no " + unit); said != "" {
			m.t.Errorf("systemd-analyze verify %s:\n%s", s, said)
		}
		score := m.run("systemd-analyze security --offline=yes " + unit + " | tail -n 1")
		f := regexp.MustCompile(`: ([0-9.]+) `).FindStringSubmatch(score)
		if f == nil {
			m.t.Fatalf("no score in %q", score)
		}
		if n, err := strconv.ParseFloat(f[1], 64); err != nil || n > 3 {
			m.t.Errorf("%s is exposed: want 3 at most", score)
		}
		m.t.Log(score)
	}
	if got, _ := m.try("systemctl is-enabled meridian-chainagent"); got != "disabled\n" {
		m.t.Errorf("the chain agent is %s after its installation", got)
	}
}

// chains: the agent forwards in userspace with the capabilities that its unit leaves it.
func (m *machine) chains() {
	m.t.Helper()
	m.run(`cat >/etc/meridian/chains.d/node.yaml <<'EOF'
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec: {ports: [{interface: lo}]}
EOF
sed -i 's|^FLAGS=.*|FLAGS=--config /etc/meridian/chains.d --node edge --datapath soft|' /etc/meridian/chainagent.env
systemctl start meridian-chainagent`)
	if got, err := m.get("http://127.0.0.1:15010/healthz"); err != nil {
		m.t.Errorf("chain agent: %v: %s", err, got)
	}
	m.run("systemctl reload meridian-chainagent && systemctl is-active meridian-chainagent")
}

// hangs: a process that does not turn is ended by systemd's watchdog and started again.
func (m *machine) hangs() {
	m.t.Helper()
	for _, s := range services {
		m.run(fmt.Sprintf("mkdir -p /run/systemd/system/meridian-%[1]s.service.d && printf '[Service]\\nWatchdogSec=3\\n' >/run/systemd/system/meridian-%[1]s.service.d/soon.conf", s))
	}
	m.run("systemctl daemon-reload && systemctl restart meridian-sitecontroller meridian-edgeproxy meridian-chainagent")
	time.Sleep(4 * time.Second) // longer than the watchdog: who is fed lives
	for _, s := range services {
		if n := m.property(s, "NRestarts"); n != "0" {
			m.t.Errorf("%s was started again %s times though it does not hang", s, n)
		}
		m.run("systemctl kill --kill-whom=main --signal=STOP meridian-" + s)
	}
	for _, s := range services {
		within(m.t, time.Minute, s+" is started again", func() bool {
			return m.property(s, "NRestarts") == "1" && m.property(s, "ActiveState") == "active"
		})
	}
	m.run("rm -r /run/systemd/system/meridian-*.d && systemctl daemon-reload && systemctl restart meridian-sitecontroller meridian-edgeproxy meridian-chainagent")
}

// upgrade: the proxy's sockets go from one process to the next while requests come.
func (m *machine) upgrade(commands string) {
	m.t.Helper()
	before := map[string]string{}
	for _, s := range services {
		before[s] = m.property(s, "MainPID")
	}
	packed(m.t, m.root, "+1")
	var asked, failed atomic.Int64
	var why atomic.Value
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			asked.Add(1)
			if text, err := m.get("http://127.0.0.1/"); err != nil {
				failed.Add(1)
				why.Store(text)
			}
		}
	}()
	m.run(commands)
	within(m.t, time.Minute, "another process serves", func() bool { return m.property("edgeproxy", "MainPID") != before["edgeproxy"] })
	n := asked.Load()
	within(m.t, time.Minute, "requests after the change", func() bool { return asked.Load() > n+3 })
	close(stop)
	<-stopped
	if failed.Load() > 0 {
		m.t.Errorf("of %d requests while the proxy was upgraded %d failed: %s", asked.Load(), failed.Load(), why.Load())
	}
	m.t.Logf("the proxy was upgraded while %d requests came", asked.Load())
	m.run("dpkg -i meridian_*.deb meridian-sitecontroller_*.deb meridian-chainagent_*.deb")
	for _, s := range services {
		if m.property(s, "ActiveState") != "active" || m.property(s, "MainPID") == before[s] {
			m.t.Errorf("%s: state %s, process %s, before %s", s, m.property(s, "ActiveState"), m.property(s, "MainPID"), before[s])
		}
	}
	if got := m.run("grep -c '^FLAGS=.*127.0.0.1:4222' /etc/meridian/edgeproxy.env"); got != "1" {
		m.t.Error("the upgrade changed the operator's flags")
	}
}

// removal: what was configured stays until the purge, and keys stay even then.
func (m *machine) removal() {
	m.t.Helper()
	m.run("dpkg --remove meridian-edgeproxy meridian-chainagent meridian-sitecontroller")
	for _, s := range services {
		if got := m.property(s, "LoadState"); got != "not-found" {
			m.t.Errorf("%s is %s after its removal", s, got)
		}
	}
	m.run("test -f /etc/meridian/edgeproxy.env -a -d /var/lib/meridian/edgeproxy")
	if got := m.run("find /etc/systemd/system -name 'meridian*'"); got != "" {
		m.t.Errorf("left behind: %s", got)
	}
	said := m.run("dpkg --purge meridian-edgeproxy meridian-chainagent meridian-sitecontroller meridian")
	if !strings.Contains(said, "/var/lib/meridian/site is kept") {
		m.t.Errorf("the purge says\n%s", said)
	}
	if got := m.run("ls -d /etc/meridian/* /var/lib/meridian/*"); got != "/etc/meridian/chains.d\n/etc/meridian/node.token\n/etc/meridian/site.pub\n/var/lib/meridian/site" {
		m.t.Errorf("after the purge there is\n%s", got)
	}
	m.run("test -f /var/lib/meridian/site/site.key && getent passwd meridian")
}

// TestPrograms: each architecture's programs are static, of that architecture, and run:
// those of another one under qemu-user.
func TestPrograms(t *testing.T) {
	archs := strings.Fields(os.Getenv("MERIDIAN_ARCHS"))
	if len(archs) == 0 {
		t.Fatal("MERIDIAN_ARCHS names no architecture")
	}
	for _, arch := range archs {
		machine, ok := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
		if !ok {
			t.Fatalf("architecture %s: want amd64 or arm64", arch)
		}
		for _, program := range []string{"meridian", "edgeproxy", "sitecontroller", "chainagent"} {
			debs, err := filepath.Glob(fmt.Sprintf("../../bin/packages/*_%s.deb", arch))
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			for _, deb := range debs {
				if strings.HasPrefix(filepath.Base(deb), "meridian-"+program+"_") || program == "meridian" && strings.HasPrefix(filepath.Base(deb), "meridian_") {
					dpkgDeb(t, "-x", deb, root)
				}
			}
			path := filepath.Join(root, "usr/bin", program)
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			libraries, err := f.ImportedLibraries()
			if err != nil || f.Machine != machine || len(libraries) > 0 || f.Section(".symtab") != nil {
				t.Errorf("%s %s is for %s, needs %s, symbols: %v, %v", arch, program, f.Machine, libraries, f.Section(".symtab") != nil, err)
			}
			_ = f.Close()
			command := []string{path}
			if arch != runtime.GOARCH {
				command = []string{"qemu-" + map[string]string{"arm64": "aarch64", "amd64": "x86_64"}[arch] + "-static", path}
			}
			flag := "--version"
			if program == "meridian" {
				flag = "version"
			}
			var out bytes.Buffer
			cmd := exec.Command(command[0], append(command[1:], flag)...)
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Errorf("%s: %v: %s", command, err, &out)
			}
			t.Logf("%s: %s", arch, strings.TrimSpace(out.String()))
			if program == "edgeproxy" {
				text, err := exec.Command(command[0], append(command[1:], "--config", "../../examples/single-node.yaml", "--check")...).CombinedOutput()
				if err != nil {
					t.Errorf("%s --check: %v: %s", command, err, text)
				}
			}
		}
	}
}
