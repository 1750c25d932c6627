// Package kube says what a Kubernetes cluster means to the mesh: the objects of a
// cluster in plain structs that hold what is used of them ([Decode]), and their
// translation into the kinds of api/mesh and into the status conditions that the
// Gateway API v1.6 asks for ([Translate]).
//
// The package is pure: objects and the time come in, values go out. Who watches
// the cluster, publishes and writes is controller/kube.
package kube
