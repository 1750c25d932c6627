//go:build web

package dashboard

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/nstest"
)

// chainNode is a node that carries the chain of examples/packets.yaml, in network
// namespaces: its controller, its agent, and three functions that are real processes.
type chainNode struct {
	t            *testing.T
	node, client *nstest.Namespace
	functions    map[string]*exec.Cmd
	data         string
}

// program starts one of the repository's in a namespace, until the test ends.
func (c *chainNode) program(at *nstest.Namespace, name string, args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command("../../bin/"+name, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := at.Start(cmd); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if c.t.Failed() {
			c.t.Logf("%s said\n%s", name, tail(log.String()))
		}
	})
	return cmd
}

func startChainNode(t *testing.T) *chainNode {
	t.Helper()
	c := &chainNode{t: t, node: nstest.New(t, "node"), client: nstest.New(t, "client"), functions: map[string]*exec.Cmd{}, data: filepath.Join(t.TempDir(), "site")}
	c.node.Sysctl("net.ipv4.ip_forward", "1")
	c.node.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	c.node.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	// Addresses that become usable seconds later look like another network to Chromium, which
	// then gives up what it was loading.
	c.node.Sysctl("net.ipv6.conf.all.disable_ipv6", "1")
	c.node.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	cable := func(at *nstest.Namespace, port, here, there, gateway, mac string) {
		nstest.Veth(c.node, port, at, "eth0")
		c.node.IP("addr add " + here + " dev " + port)
		if mac != "" {
			at.IP("link set eth0 address " + mac)
		}
		at.IP("addr add " + there + " dev eth0")
		at.IP("route add default via " + gateway)
	}
	cable(c.client, "users", "10.1.0.1/24", "10.1.0.2/24", "10.1.0.1", "")
	cable(nstest.New(t, "server"), "servers", "10.2.0.1/24", "10.2.0.2/24", "10.2.0.1", "")
	cable(nstest.New(t, "peer"), "underlay", "192.0.2.1/24", "192.0.2.2/24", "192.0.2.1", "")
	for i, f := range []struct {
		name string
		args []string
	}{{"firewall", []string{"--rule", "allow:icmp"}}, {"tagger", nil}, {"nat44", []string{"--public", "10.3.0.9"}}} {
		ns := nstest.New(t, f.name)
		at := fmt.Sprintf("10.9.%d", i+1)
		cable(ns, f.name, at+".1/30", at+".2/30", at+".1", fmt.Sprintf("02:00:00:09:0%d:02", i+1))
		for _, end := range []struct {
			ns   *nstest.Namespace
			port string
		}{{c.node, f.name}, {ns, "eth0"}} {
			end.ns.IP("link set " + end.port + " mtu 1600") // packets to functions carry 60 bytes more
		}
		c.functions[f.name] = c.program(ns, "meridian", append([]string{"function", f.name, "--listen", at + ".2", "--drain", "0s"}, f.args...)...)
	}
	c.program(c.node, "sitecontroller", "--site", "edge-site", "--data", c.data, "--listen", "127.0.0.1:4222", "--api", "127.0.0.1:7480")
	return c
}

// agent starts the node's, which gets its documents from the controller. In userspace: what
// the page shows is the same, and a kernel without BPF will do.
func (c *chainNode) agent() {
	c.t.Helper()
	var r siteapi.RunFile
	var err error
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if r, err = siteapi.ReadRunFile(c.data); err == nil {
			break
		}
		if time.Now().After(end) {
			c.t.Fatal(err)
		}
	}
	c.program(c.node, "chainagent", "--config", r.NATS, "--site", "edge-site", "--node", "edge", "--nats-token-file", r.TokenFile, "--trust-key", r.TrustKey,
		"--state-dir", c.t.TempDir(), "--datapath", "soft", "--admin", "127.0.0.1:15010")
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := c.node.Run(c.t.Context(), "../../bin/meridian", "--data", c.data, "chain", "apply", "-f", "../../examples/packets.yaml", "--agent", "http://127.0.0.1:15010", "--wait", "30s")
		if err == nil {
			return
		}
		if time.Now().After(end) { // until then the agent may only have begun
			c.t.Fatalf("apply: %v\n%s", err, out)
		}
	}
}

// A chain of three real functions, hop by hop: instance, node, what passes, what is
// dropped, and how long it takes; a function that is gone is seen, and so it is
// when it is back.
func TestWebChain(t *testing.T) {
	c := startChainNode(t)
	c.agent()
	// Through the chain ten times a second; what the firewall does not allow is dropped by it.
	ping := exec.Command("ping", "-i", "0.1", "-q", "10.2.0.2")
	if err := c.client.Start(ping); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ping.Process.Kill(); ping.Wait() })

	b := startBrowserIn(t, c.node.Start)
	b.size(1100, 740, "light")
	b.open("http://127.0.0.1:7480/#/chains")
	const row = `[...document.querySelectorAll("tbody tr")].find((r) => r.textContent.includes("default/web"))`
	b.until("the chain is listed and whole", row+`?.textContent.includes("ok")`)
	axe(b, "the chains")
	b.eval(row + `.querySelector("a").focus()`)
	b.key("Enter", 13)
	hop := func(way, instance string, cell int) string {
		return fmt.Sprintf(`([...document.querySelectorAll('[data-way=%q] tbody tr')].find((r) => r.querySelector("[data-hop]").textContent.startsWith(%q))?.children[%d].textContent ?? "")`, way, instance, cell)
	}
	for _, way := range []string{"there", "back"} {
		for _, instance := range []string{"firewall-1", "tagger-1", "nat-1"} {
			b.until(instance+" counts what passes, "+way, `Number(`+hop(way, instance, 3)+`) > 2`)
			b.until(instance+" is probed", hop(way, instance, 7)+`.endsWith(" ms")`)
			// What a function takes is seen by the echo that passes it.
			b.until(instance+" answers echoes, "+way, hop(way, instance, 8)+`.endsWith(" ms") && `+hop(way, instance, 9)+`.endsWith(" ms")`)
			b.until("its node is named", hop(way, instance, 2)+` === "edge"`)
		}
		b.until("the path's end answers", hop(way, "end of the path", 8)+`.endsWith(" ms")`)
	}
	axe(b, "a chain")
	b.shoot("chain")
	b.size(1100, 740, "dark")
	axe(b, "a chain, dark")
	b.size(360, 740, "light")
	b.until("it fits a phone", `document.documentElement.scrollWidth <= 360`)
	b.shoot("chain-phone")
	b.size(1100, 740, "light")

	// A function is gone: the chain, which is closed, has no path, and the page says so.
	c.functions["tagger"].Process.Signal(syscall.SIGKILL)
	b.eval(`location.hash = "#/chains"`)
	b.until("the list says that nothing is told of a path", row+`?.textContent.includes("no agent tells of it")`)
	b.eval(`location.hash = "#/check"`)
	b.until("check names the instance that is down", `document.body.innerText.includes("tagger-1")`)

	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) > 0 {
		t.Errorf("the browser complains: %v", b.faults)
	}
}
