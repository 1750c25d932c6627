package controller_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/internal/bus"
)

const workloads = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
spec:
  ports: [{port: 80}]
  endpoints:
  - {address: "127.0.0.1:1", site: a, node: n1, workload: {namespace: shop, name: cart}}
  - {address: "127.0.0.1:2", site: a, node: n2, workload: {namespace: shop, name: mail}}
  - {address: "127.0.0.1:3", site: centre, node: n1, workload: {namespace: shop, name: far}}
  - {address: "127.0.0.1:4", site: a, node: n1, workload: {namespace: meridian, name: n9}}
`

// TestWorkloadIdentities: a node gets certificates of workloads that run there, for a day,
// and of nobody else; the deny list holds for them.
func TestWorkloadIdentities(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true, TrustDomain: "mesh.example"})
	a := start(t, leafConfig("a", hub.run.Leaf, hub))
	n := a.node("n1")
	hub.must(siteDoc("a", 0) + siteDoc("centre", 0.1) + "---" + workloads)
	ask := func(node string, r bus.WorkloadRequest) (string, error) {
		t.Helper()
		_, req, err := ca.Key()
		if err != nil {
			t.Fatal(err)
		}
		r.Request = req
		ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
		defer done()
		data, err := n.bus.Workload(ctx, node, &r)
		if err != nil {
			return "", err
		}
		chain, err := ca.ParseChain(data)
		if err != nil {
			t.Fatal(err)
		}
		id, err := verified(n.bundle(), chain)
		if err != nil {
			t.Fatal(err)
		}
		if life := time.Until(chain[0].NotAfter); life < 23*time.Hour || life > ca.LeafLife {
			t.Errorf("%s lives for %s", id, life)
		}
		return id.String(), nil
	}
	within(t, 20*time.Second, "an identity of shop/cart", func() bool {
		if n.bundle() == nil {
			return false
		}
		id, err := ask("n1", bus.WorkloadRequest{Namespace: "shop", Account: "cart"})
		return err == nil && id == "spiffe://mesh.example/site/a/ns/shop/sa/cart"
	})
	for _, c := range []struct {
		node, namespace, account, token, want string
	}{
		{"n1", "shop", "mail", "", `does not run on node "n1": its endpoints are on node "n2" of site a`},
		{"n1", "shop", "far", "", `does not run on node "n1": its endpoints are on node "n1" of site centre`},
		{"n1", "shop", "nobody", "", "there is no workload shop/nobody here"},
		{"n1", "meridian", "n9", "", "identities in namespace meridian are those of nodes"},
		{"n1", "shop", "a/b", "", "only letters, digits"},
		{"n1", "", "cart", "", "a name has 1 to 253 bytes"},
		{"n1", "shop", "cart", "x", "bridges no cluster"},
	} {
		id, err := ask(c.node, bus.WorkloadRequest{Namespace: c.namespace, Account: c.account, Token: c.token})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s asks for %s/%s: %s, %v, want %q", c.node, c.namespace, c.account, id, err, c.want)
		}
	}
	hub.must(fmt.Sprintf("apiVersion: mesh.meridian.dev/v1alpha1\nkind: TrustBundle\nmetadata: {name: mesh}\nspec:\n  trustDomain: mesh.example\n  roots: [%q]\n  denied: [{id: spiffe://mesh.example/site/a/ns/shop/sa/cart}]\n",
		n.snapshot.Load().Objects.Trust().Spec.Roots[0]))
	within(t, 10*time.Second, "the denial", func() bool {
		_, err := ask("n1", bus.WorkloadRequest{Namespace: "shop", Account: "cart"})
		return err != nil && strings.Contains(err.Error(), "deny list")
	})
}

// accounts stands for a cluster's API server, which cmd/meridian-scheduler's tests have.
type accounts map[string][3]string

func (a accounts) Review(_ context.Context, token string) (namespace, account, node string, err error) {
	x, ok := a[token]
	if !ok {
		return "", "", "", errors.New("the API server does not know it")
	}
	return x[0], x[1], x[2], nil
}

// TestAccountIdentities: a token says who a workload is, and on which node; what the
// cluster does not say of it nobody gets.
func TestAccountIdentities(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true}, func(s *controller.Server) {
		s.VerifyAccounts(accounts{"good": {"shop", "web", "h1"}, "far": {"shop", "web", "h2"}, "node": {"meridian", "h1", "h1"}})
	})
	n := hub.node("h1")
	hub.must(siteDoc("centre", 0))
	ask := func(namespace, account, token string) error {
		t.Helper()
		_, req, err := ca.Key()
		if err != nil {
			t.Fatal(err)
		}
		ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
		defer done()
		_, err = n.bus.Workload(ctx, "h1", &bus.WorkloadRequest{Namespace: namespace, Account: account, Token: token, Request: req})
		return err
	}
	within(t, 20*time.Second, "an identity of shop/web", func() bool { return ask("shop", "web", "good") == nil })
	for _, c := range [][4]string{
		{"shop", "web", "guess", "does not know it"},
		{"shop", "cart", "good", "is that of service account shop/web, not shop/cart"},
		{"shop", "web", "far", `for a pod on node "h2", this is node "h1"`},
		{"meridian", "h1", "node", "those of nodes"},
		{"shop", "web", "", "there is no workload shop/web here"},
	} {
		if err := ask(c[0], c[1], c[2]); err == nil || !strings.Contains(err.Error(), c[3]) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
