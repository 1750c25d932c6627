//go:build kube

package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meridian-mesh/meridian/controller/kube"
)

// TestTokenReview: a real API server says of a pod's token whose it is and where the pod
// runs; any other token is refused, and so is that of a pod which is gone.
func TestTokenReview(t *testing.T) {
	c := startAPI(t)
	c.post(t, "/api/v1/nodes", `{"metadata": {"name": "n1"}}`)
	c.post(t, "/api/v1/namespaces", `{"metadata": {"name": "shop"}}`)
	c.post(t, "/api/v1/namespaces/shop/serviceaccounts", `{"metadata": {"name": "web"}}`)
	for _, p := range [][2]string{{"web-1", `"nodeName": "n1", `}, {"web-2", ""}} {
		c.post(t, "/api/v1/namespaces/shop/pods", `{"metadata": {"name": "`+p[0]+`"}, "spec": {`+p[1]+`"serviceAccountName": "web", "automountServiceAccountToken": false, "containers": [{"name": "x", "image": "x"}]}}`)
	}
	token := func(audience, pod string) string {
		t.Helper()
		spec := authenticationv1.TokenRequestSpec{}
		if audience != "" {
			spec.Audiences = []string{audience}
		}
		if pod != "" {
			spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod}
		}
		r, err := c.client.CoreV1().ServiceAccounts("shop").CreateToken(t.Context(), "web", &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status.Token
	}
	b, err := kube.New(kube.Config{Kubeconfig: c.kubeconfig(t), Site: "a"}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	review := func(token string) (string, error) {
		ctx, done := context.WithTimeout(t.Context(), 30*time.Second)
		defer done()
		namespace, account, node, err := b.Review(ctx, token)
		return namespace + "/" + account + " " + node, err
	}
	good := token(kube.TokenAudience, "web-1")
	if got, err := review(good); err != nil || got != "shop/web n1" {
		t.Fatalf("%s, %v", got, err)
	}
	changed := []byte(good)
	changed[len(changed)-10] ^= 1
	for _, x := range []struct{ name, token, want string }{
		{"for the API server", token("", "web-1"), "does not know it for audience meridian"},
		{"for somebody else", token("vault", "web-1"), "does not know it for audience meridian"},
		{"of no pod", token(kube.TokenAudience, ""), "bound to no pod"},
		{"of a pod on no node", token(kube.TokenAudience, "web-2"), "bound to no pod"},
		{"changed", string(changed), "does not know it"},
		{"the operator's own", c.cc.BearerToken, "does not know it"},
		{"nonsense", "nonsense", "does not know it"},
	} {
		if got, err := review(x.token); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %s, %v, want %q", x.name, got, err, x.want)
		}
	}
	zero := int64(0)
	if err := c.client.CoreV1().Pods("shop").Delete(t.Context(), "web-1", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token of a pod that is gone is refused", func() string {
		if got, err := review(good); err == nil {
			return got
		}
		return ""
	})
}
