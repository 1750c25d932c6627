package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Times of the lease, as kube-scheduler's are: whoever holds it renews it every two
// seconds, gives up after ten in which that failed, and is succeeded after fifteen.
const (
	leaseName   = "meridian-gateway-controller"
	leaseFor    = 15 * time.Second
	leaseGiveUp = 10 * time.Second
	leaseEvery  = 2 * time.Second
)

// elector holds a coordination/v1 Lease, so that of several controllers that bridge one
// cluster one writes status. Clocks of different machines are not compared: another's
// lease has run out when this process has not seen it renewed for its whole length.
type elector struct {
	c         *client
	namespace string
	identity  string
	won       func()
	report    func(error)

	until atomic.Int64 // Unix ns; holds the lease until then

	seen   leaseSpec
	seenAt time.Time
}

type leaseSpec struct {
	HolderIdentity       string `json:"holderIdentity"`
	LeaseDurationSeconds int    `json:"leaseDurationSeconds"`
	AcquireTime          string `json:"acquireTime,omitempty"`
	RenewTime            string `json:"renewTime,omitempty"`
	LeaseTransitions     int    `json:"leaseTransitions"`
}

type leaseObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name            string `json:"name"`
		Namespace       string `json:"namespace"`
		ResourceVersion string `json:"resourceVersion,omitempty"`
	} `json:"metadata"`
	Spec leaseSpec `json:"spec"`
}

// leads reports whether this process holds the lease.
func (e *elector) leads() bool { return time.Now().UnixNano() < e.until.Load() }

// run holds the lease or waits for it until ctx ends, then gives it up.
func (e *elector) run(ctx context.Context) {
	t := time.NewTicker(leaseEvery)
	defer t.Stop()
	for {
		held := e.leads()
		began := time.Now()
		mine, err := e.try(ctx, began)
		if mine && err == nil {
			e.until.Store(began.Add(leaseGiveUp).UnixNano())
			if !held {
				e.won()
			}
		}
		if ctx.Err() == nil {
			e.report(err)
		}
		select {
		case <-ctx.Done():
			e.release()
			return
		case <-t.C:
		}
	}
}

func (e *elector) path() string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + e.namespace + "/leases"
}

// try takes or renews the lease, unless it is another's.
func (e *elector) try(ctx context.Context, now time.Time) (mine bool, err error) {
	ctx, done := context.WithTimeout(ctx, leaseGiveUp/2)
	defer done()
	r, err := e.c.group(schema.GroupVersion{Group: "coordination.k8s.io", Version: "v1"})
	if err != nil {
		return false, err
	}
	var l leaseObject
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	data, err := r.Get().AbsPath(e.path(), leaseName).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		l.APIVersion, l.Kind, l.Metadata.Name, l.Metadata.Namespace = "coordination.k8s.io/v1", "Lease", leaseName, e.namespace
		l.Spec = leaseSpec{HolderIdentity: e.identity, LeaseDurationSeconds: int(leaseFor / time.Second), AcquireTime: stamp, RenewTime: stamp}
		body, err := json.Marshal(l)
		if err != nil {
			return false, err
		}
		err = r.Post().AbsPath(e.path()).Body(body).Do(ctx).Error()
		if apierrors.IsAlreadyExists(err) {
			return false, nil
		}
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return false, fmt.Errorf("lease %s/%s: %w", e.namespace, leaseName, err)
	}
	if l.Spec != e.seen {
		e.seen, e.seenAt = l.Spec, now
	}
	if l.Spec.HolderIdentity != e.identity {
		if l.Spec.HolderIdentity != "" && now.Sub(e.seenAt) < time.Duration(l.Spec.LeaseDurationSeconds)*time.Second {
			return false, nil
		}
		l.Spec.AcquireTime = stamp
		l.Spec.LeaseTransitions++
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = e.identity, int(leaseFor/time.Second), stamp
	return e.put(ctx, &l)
}

// put writes the lease unless somebody else has meanwhile.
func (e *elector) put(ctx context.Context, l *leaseObject) (bool, error) {
	r, err := e.c.group(schema.GroupVersion{Group: "coordination.k8s.io", Version: "v1"})
	if err != nil {
		return false, err
	}
	body, err := json.Marshal(l)
	if err != nil {
		return false, err
	}
	err = r.Put().AbsPath(e.path(), leaseName).Body(body).Do(ctx).Error()
	if apierrors.IsConflict(err) {
		return false, nil
	}
	if err == nil {
		e.seen, e.seenAt = l.Spec, time.Now()
	}
	return err == nil, err
}

// release lets a successor in at once.
func (e *elector) release() {
	if !e.leads() {
		return
	}
	e.until.Store(0)
	ctx, done := context.WithTimeout(context.Background(), leaseEvery)
	defer done()
	r, err := e.c.group(schema.GroupVersion{Group: "coordination.k8s.io", Version: "v1"})
	if err != nil {
		return
	}
	var l leaseObject
	data, err := r.Get().AbsPath(e.path(), leaseName).DoRaw(ctx)
	if err != nil || json.Unmarshal(data, &l) != nil || l.Spec.HolderIdentity != e.identity {
		return // it runs out by itself
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = "", 1
	if _, err := e.put(ctx, &l); err != nil {
		e.report(err)
	}
}
