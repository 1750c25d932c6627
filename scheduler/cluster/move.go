package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// lookEvery is how often a pod that moves is looked at.
const lookEvery = 500 * time.Millisecond

// Moved is where a pod came back.
type Moved struct {
	// Pod is its successor, as namespace/name, and Node where that runs.
	Pod, Node string
	Took      time.Duration
}

// MoveOptions say how patient a move is.
type MoveOptions struct {
	// Within bounds the whole move: the time until budgets allow it, and until the
	// successor is ready.
	Within time.Duration
	// Waiting hears why nothing happens yet, each reason once; nil does not.
	Waiting func(reason string)
}

// May asks the API server whether it would evict a pod now, and evicts nothing. The
// reason is empty where it would.
func (c *Cluster) May(ctx context.Context, name string) (reason string, err error) {
	p, err := c.pod(ctx, name)
	if err != nil {
		return "", err
	}
	err = c.evict(ctx, p, true)
	var s *StatusError
	if errors.As(err, &s) && s.Code == http.StatusTooManyRequests {
		return s.Message, nil
	}
	return "", err
}

// Move evicts a pod and waits until its controller's pods are as many and as ready as
// they were. The error is why they are not; nothing else is done then. A pod whose
// siblings are not all ready is not evicted.
func (c *Cluster) Move(ctx context.Context, name string, o MoveOptions) (*Moved, error) {
	began := time.Now()
	ctx, done := context.WithTimeoutCause(ctx, o.Within, errTooLong)
	defer done()
	p, err := c.pod(ctx, name)
	if err != nil {
		return nil, err
	}
	of := p.Metadata.controller()
	if of.UID == "" {
		return nil, fmt.Errorf("pod %s: no controller would make it again", name)
	}
	before, err := c.siblings(ctx, p.Metadata.Namespace, of.UID)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for i := range before {
		if known[before[i].Metadata.UID] = true; !before[i].ready() {
			return nil, fmt.Errorf("pod %s is not ready: %s; pod %s of the same %s stays", before[i].key(), troubles(&before[i]), name, of.Kind)
		}
	}
	said := map[string]bool{}
	waiting := func(reason string) {
		if o.Waiting != nil && !said[reason] {
			said[reason] = true
			o.Waiting(reason)
		}
	}
	for {
		err := c.evict(ctx, p, false)
		var s *StatusError
		if err == nil {
			break
		}
		if !errors.As(err, &s) || s.Code != http.StatusTooManyRequests {
			return nil, fmt.Errorf("pod %s is not evicted: %w", name, err)
		}
		waiting(s.Message)
		if pause(ctx) != nil {
			return nil, fmt.Errorf("pod %s is not evicted within %s: %s", name, o.Within, s.Message)
		}
	}
	last := fmt.Sprintf("%s %s has made no new pod", of.Kind, of.Name)
	for {
		now, err := c.siblings(ctx, p.Metadata.Namespace, of.UID)
		if err != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("pod %s is evicted, what became of it is not known: %w", name, err)
		}
		ready := 0
		var successor *pod
		for i := range now {
			if now[i].Metadata.UID == p.Metadata.UID {
				continue
			}
			if now[i].ready() {
				ready++
			}
			if !known[now[i].Metadata.UID] {
				successor = &now[i]
			}
		}
		switch {
		case successor != nil && successor.ready() && ready >= len(before):
			return &Moved{Pod: successor.key(), Node: successor.Spec.NodeName, Took: time.Since(began)}, nil
		case successor != nil:
			last = fmt.Sprintf("pod %s is not ready: %s", successor.key(), troubles(successor))
		}
		if err == nil {
			waiting(last)
		}
		if pause(ctx) != nil {
			return nil, fmt.Errorf("pod %s is evicted, but %d of %d are ready after %s: %s", name, ready, len(before), time.Since(began).Round(time.Second), last)
		}
	}
}

var errTooLong = errors.New("it took too long")

func pause(ctx context.Context) error {
	t := time.NewTimer(lookEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// troubles says why a pod is not ready, in the cluster's own words.
func troubles(p *pod) string {
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil && w.Reason != "" {
			return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", s.Name, w.Reason, w.Message), ": ")
		}
	}
	for _, kind := range []string{"PodScheduled", "Ready"} {
		for _, c := range p.Status.Conditions {
			if c.Type == kind && c.Status != "True" && c.Reason+c.Message != "" {
				return strings.Trim(c.Reason+": "+c.Message, ": ")
			}
		}
	}
	switch {
	case p.Spec.NodeName == "":
		return "it has no node yet"
	case p.Metadata.DeletionTimestamp != "":
		return "it is ending"
	}
	return "it runs on " + p.Spec.NodeName + " and does not say why"
}

func (c *Cluster) pod(ctx context.Context, name string) (*pod, error) {
	namespace, short, ok := strings.Cut(name, "/")
	if !ok {
		return nil, fmt.Errorf("pod %q: want namespace/name", name)
	}
	p := new(pod)
	if err := c.do(ctx, http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods/"+short, nil, p); err != nil {
		return nil, fmt.Errorf("pod %s: %w", name, err)
	}
	return p, nil
}

// siblings are the pods of a controller that have not ended.
func (c *Cluster) siblings(ctx context.Context, namespace, controller string) ([]pod, error) {
	var all, of []pod
	if err := list(ctx, c, "/api/v1/namespaces/"+namespace+"/pods", &all); err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Metadata.controller().UID == controller && !all[i].over() {
			of = append(of, all[i])
		}
	}
	return of, nil
}

// evict asks for one eviction (policy/v1) of this very pod, not of one that has its
// name since.
func (c *Cluster) evict(ctx context.Context, p *pod, dryRun bool) error {
	options := map[string]any{"preconditions": map[string]string{"uid": p.Metadata.UID}}
	if dryRun {
		options["dryRun"] = []string{"All"}
	}
	return c.do(ctx, http.MethodPost, "/api/v1/namespaces/"+p.Metadata.Namespace+"/pods/"+p.Metadata.Name+"/eviction", map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata":      map[string]string{"name": p.Metadata.Name, "namespace": p.Metadata.Namespace},
		"deleteOptions": options,
	}, nil)
}
