// Package kube brings a Kubernetes cluster into a site's mesh: it watches the
// cluster, has api/kube say what that means, hands the objects to the controller and
// writes status conditions back, while it holds the lease for that.
//
// It reads with types of its own, which hold what the mesh uses, instead of
// k8s.io/api and its clientset: those register every kind of Kubernetes at the start
// of the process, bridge or not (docs/adr/0028). It is the only importer of client-go.
package kube
