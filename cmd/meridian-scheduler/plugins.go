package main

import (
	"context"

	apiruntime "k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/pkg/features"

	"github.com/meridian-mesh/meridian/scheduler/plugin"
)

// plugins adds ours to kube-scheduler's.
func plugins() []app.Option {
	return []app.Option{
		app.WithPlugin(plugin.Name, trafficAffinity),
		app.WithPlugin(plugin.SortName, plugin.NewSort),
	}
}

// trafficAffinity makes the plugin, which happens after the flags are read: it scores
// placements of pod groups only where the scheduler makes any (alpha in 1.36, and the
// gate cannot be on without GenericWorkload). Elsewhere a configuration that enables
// it under placementScore is refused by name.
func trafficAffinity(ctx context.Context, args apiruntime.Object, h fwk.Handle) (fwk.Plugin, error) {
	if utilfeature.DefaultFeatureGate.Enabled(features.TopologyAwareWorkloadScheduling) {
		return plugin.NewGroup(ctx, args, h)
	}
	return plugin.New(ctx, args, h)
}
