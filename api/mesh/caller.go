package mesh

// KindCaller is the kind of [Caller].
const KindCaller = "Caller"

// Caller names a workload that calls services of the mesh and serves none, by the
// addresses that it calls from: who serves is known by its endpoints. It says who talks
// to whom and permits nothing; certificates do that.
type Caller struct {
	TypeMeta
	Metadata ObjectMeta `json:"metadata"`
	Spec     CallerSpec `json:"spec"`
}

// CallerSpec is the content of a Caller.
type CallerSpec struct {
	// Workload is who calls; the object's own namespace and name where it is left out.
	Workload  *Workload `json:"workload,omitempty"`
	Addresses []string  `json:"addresses"`
}

// Who is the workload that calls.
func (c *Caller) Who() Workload {
	if c.Spec.Workload != nil {
		return *c.Spec.Workload
	}
	return Workload{Namespace: c.Metadata.Namespace, Name: c.Metadata.Name}
}

// MaxCallerAddresses bounds the addresses of one Caller.
const MaxCallerAddresses = 4096
