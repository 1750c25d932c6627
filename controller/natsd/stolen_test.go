package natsd_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// thief is a NATS server of somebody who has a site's key and the hub's CA, and nothing
// of ours that would hold it back: what it may is the hub's to say.
func thief(t *testing.T, hub *site, seedFile string) *nats.Conn {
	t.Helper()
	pem, err := os.ReadFile(hub.dir.Path("hub", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(seedFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	remote := &server.RemoteLeafOpts{
		URLs: []*url.URL{{Scheme: "tls", Host: hub.srv.LeafAddr()}}, Nkey: strings.TrimSpace(string(seed)),
		TLS: true, TLSConfig: &tls.Config{RootCAs: roots, ServerName: join.HubName, MinVersion: tls.VersionTLS13}, TLSHandshakeFirst: true, TLSTimeout: 5,
	}
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, ServerName: "thief", LeafNode: server.LeafNodeOpts{Remotes: []*server.RemoteLeafOpts{remote}, ReconnectInterval: 100 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	within(t, 10*time.Second, "the thief's link", func() bool { return srv.NumLeafNodes() == 1 })
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// TestStolenSiteKey: who has a site's NKey can neither read what is another site's, nor
// speak for it, nor write what the hub or others have written.
func TestStolenSiteKey(t *testing.T) {
	hub := startHub(t)
	b := startLeaf(t, "b", hub.srv.LeafAddr(), hub.dir)
	secret, err := b.conn.OpenSiteConfig(short(t), "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Put(short(t), key(1), []byte("secret"), bus.AnyRevision); err != nil {
		t.Fatal(err)
	}
	snaps, err := b.conn.OpenSnapshots(short(t), "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := snaps.Put(short(t), sealed(t, "b", 1)); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "link", func() bool { return hub.srv.Links() == 1 })
	folder := open(t, t.TempDir())
	nc := thief(t, hub, admit(t, "a", folder, hub.dir))

	// It is site a, and as such heard.
	heard, at := make(chan *nats.Msg, 64), make(chan *nats.Msg, 64)
	for conn, into := range map[*nats.Conn]chan *nats.Msg{raw(t, hub): heard, raw(t, b): at} {
		for _, subject := range []string{"mesh.>", "$KV.>"} {
			if _, err := conn.ChanSubscribe(subject, into); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 10*time.Second, "its own report at the hub", func() bool {
		_ = nc.Publish(bus.ReportSubject("a"), []byte("{}"))
		select {
		case m := <-heard:
			return m.Subject == bus.ReportSubject("a")
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	time.Sleep(200 * time.Millisecond) // what was sent more than once comes
	for len(heard)+len(at) > 0 {
		select {
		case <-heard:
		case <-at:
		}
	}
	// Prices and weights of b, reports of its nodes, its configuration and snapshots.
	for _, subject := range []string{
		bus.ReportSubject("b"), bus.TrafficSubject("b"), bus.WeightsSubject("b"), bus.NodeSubject("b", "n1"), bus.LeafSubject("b", "n1"), bus.IssuerSubject("b"),
		"$KV." + bus.SnapshotBucket("b") + "." + bus.Token("b"), "$KV." + bus.SiteBucket("b") + ".Site.default.s_2e1", "$KV." + bus.HubBucket + ".Site.default.s_2e1",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	// What is b's alone cannot be asked for, in whatever domain.
	for _, domain := range []string{bus.Domain("b"), bus.HubDomain, ""} {
		api := "$JS.API."
		if domain != "" {
			api = "$JS." + domain + ".API."
		}
		for _, bucket := range []string{bus.SiteBucket("b"), bus.SnapshotBucket("b")} {
			for _, ask := range []string{"DIRECT.GET.KV_" + bucket + ".$KV." + bucket + ".>", "STREAM.MSG.GET.KV_" + bucket, "STREAM.INFO.KV_" + bucket, "STREAM.DELETE.KV_" + bucket, "STREAM.PURGE.KV_" + bucket} {
				if m, err := nc.Request(api+ask, []byte(`{"last_by_subj":"$KV.`+bucket+`.>"}`), 100*time.Millisecond); err == nil && !strings.Contains(string(m.Data), "not enabled") {
					t.Errorf("%s%s is answered: %s", api, ask, m.Data)
				}
			}
		}
	}
	// Nor overheard: who issues, what nodes are told, what others are answered.
	sub, err := nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	own := raw(t, b)
	for _, subject := range []string{bus.IssuerSubject("b"), bus.LeafSubject("b", "n1"), bus.NodeSubject("b", "n1"), bus.WeightsSubject("b")} {
		if err := own.Publish(subject, []byte("for the hub alone")); err != nil {
			t.Fatal(err)
		}
	}
	if err := raw(t, hub).Publish("$KV."+bus.SiteBucket("centre")+".Site.default.x", []byte("for the hub alone")); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(500 * time.Millisecond)
	for {
		m, err := sub.NextMsg(time.Until(end))
		if err != nil {
			break
		}
		if strings.Contains(string(m.Data), "for the hub alone") {
			t.Errorf("it overhears %s", m.Subject)
		}
	}
	for len(heard)+len(at) > 0 {
		var m *nats.Msg
		select {
		case m = <-heard:
		case m = <-at:
		}
		if string(m.Data) == "{}" && m.Subject != bus.ReportSubject("a") {
			t.Errorf("%s is taken from it", m.Subject)
		}
	}
	js, err := jetstream.New(raw(t, b))
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{bus.SiteBucket("b"), bus.SnapshotBucket("b")} {
		if stream, err := js.Stream(short(t), "KV_"+bucket); err != nil || stream.CachedInfo().State.LastSeq != 1 {
			t.Errorf("bucket %s: %v", bucket, err)
		}
	}
	// The key opens the way of sites, not that of clients.
	if c, err := nats.Connect(hub.srv.ClientURL(), seedOption(t, folder.Path("site.nk"))); err == nil {
		c.Close()
		t.Error("it is let in as a client")
	}
}

func seedOption(t *testing.T, file string) nats.Option {
	t.Helper()
	seed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return nats.Nkey(public, pair.Sign)
}
