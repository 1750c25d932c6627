// Command meridian-scheduler is kube-scheduler with the plugins TrafficAffinity and TrafficSort.
// It takes kube-scheduler's flags and KubeSchedulerConfiguration; examples and
// manifests stand in deploy/scheduler.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	os.Exit(cli.Run(app.NewSchedulerCommand(plugins()...)))
}
