package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TokenAudience is for whom a service account's token has to be made so that it says who a
// workload is: one for the API server itself is not taken, and one for the mesh opens
// nothing else.
const TokenAudience = "meridian"

// nodeClaim is where the API server says on which node the pod of a token runs.
const nodeClaim = "authentication.kubernetes.io/node-name"

var reviewGroup = schema.GroupVersion{Group: "authentication.k8s.io", Version: "v1"}

// Review asks the cluster whose a token is: the service account, and the node of the pod
// that it is bound to. A token that is not for [TokenAudience], is bound to no pod, or
// whose pod is gone is an error.
func (b *Bridge) Review(ctx context.Context, token string) (namespace, account, node string, err error) {
	r, err := b.c.group(reviewGroup)
	if err != nil {
		return "", "", "", err
	}
	type spec struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": reviewGroup.String(), "kind": "TokenReview", "spec": spec{token, []string{TokenAudience}},
	})
	if err != nil {
		return "", "", "", err
	}
	data, err := r.Post().Resource("tokenreviews").SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Raw()
	if err != nil {
		return "", "", "", fmt.Errorf("the API server does not review it: %w", err)
	}
	var out struct {
		Status struct {
			Authenticated bool     `json:"authenticated"`
			Audiences     []string `json:"audiences"`
			Error         string   `json:"error"`
			User          struct {
				Username string              `json:"username"`
				Extra    map[string][]string `json:"extra"`
			} `json:"user"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return "", "", "", fmt.Errorf("the API server's review: %w", err)
	}
	s := &out.Status
	switch {
	case !s.Authenticated:
		if s.Error == "" {
			s.Error = "it gives no reason"
		}
		return "", "", "", fmt.Errorf("the API server does not know it for audience %s: %s", TokenAudience, s.Error)
	case !slices.Contains(s.Audiences, TokenAudience):
		return "", "", "", fmt.Errorf("it is not for audience %s", TokenAudience)
	}
	rest, ok := strings.CutPrefix(s.User.Username, "system:serviceaccount:")
	namespace, account, whole := strings.Cut(rest, ":")
	if !ok || !whole || namespace == "" || account == "" {
		return "", "", "", errors.New("it is not that of a service account")
	}
	if at := s.User.Extra[nodeClaim]; len(at) == 1 && at[0] != "" {
		return namespace, account, at[0], nil
	}
	return "", "", "", errors.New("it is bound to no pod on a node: project it into the pod (serviceAccountToken with audience " + TokenAudience + "), on Kubernetes 1.32 or later")
}
