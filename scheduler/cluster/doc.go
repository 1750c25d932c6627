// Package cluster is a Kubernetes cluster as placement sees it: its nodes and pods as
// an inventory ([Cluster.Inventory]), and pods that are moved by eviction, one at a
// time ([Cluster.Move]). A move is the pod's own controller's and scheduler's work: an
// eviction only asks for it, and the API server refuses one that a
// PodDisruptionBudget does not allow.
//
// client-go finds and authenticates to the API server, as kubectl does. Objects are read
// as JSON into types of this package: what placement reads of a pod is a tenth of it, and
// a clientset, which registers every kind, would double the command line (ADR 0028).
package cluster
