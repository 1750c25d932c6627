// Package conformance runs the Gateway API's conformance suite, unmodified, against
// the cluster that KUBECONFIG names; its flags are the suite's. The module is apart so
// that the suite runs with the versions that its authors chose.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) { conformance.RunConformance(t) }
