package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/meridian-mesh/meridian/api/kube"
)

var discovery = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}

// fieldManager is who has written the EndpointSlices, for the API server.
const fieldManager = "meridian-gateway-controller"

// redirects writes the EndpointSlices that have Services lead to Gateways, and removes
// those that are not to be. What was written it does not write again.
func (w *statusWriter) redirects(ctx context.Context, list []kube.Redirect, stale []kube.Meta) error {
	if len(list)+len(stale) == 0 {
		return nil
	}
	r, err := w.bridge.c.group(discovery)
	if err != nil {
		return err
	}
	var faults []error
	for i := range list {
		if ctx.Err() != nil || len(w.next) > 0 || !w.lease.leads() {
			return errors.Join(faults...)
		}
		faults = append(faults, w.redirect(ctx, r, &list[i]))
	}
	for _, m := range stale {
		call, done := context.WithTimeout(ctx, statusTimeout)
		version := m.Version
		err := r.Delete().Resource("endpointslices").Namespace(m.Namespace).Name(m.Name).
			Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}}).Do(call).Error()
		done()
		delete(w.redirected, m.Namespace+"/"+m.Name)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			faults = append(faults, fmt.Errorf("remove EndpointSlice %s/%s: %w", m.Namespace, m.Name, err))
		}
	}
	return errors.Join(faults...)
}

func (w *statusWriter) redirect(ctx context.Context, c *rest.RESTClient, r *kube.Redirect) error {
	type endpoint struct {
		Addresses  []string        `json:"addresses"`
		Conditions map[string]bool `json:"conditions"`
	}
	type port struct {
		Name     string `json:"name"`
		Port     int    `json:"port"`
		Protocol string `json:"protocol"`
	}
	o := struct {
		APIVersion  string         `json:"apiVersion"`
		Kind        string         `json:"kind"`
		Metadata    map[string]any `json:"metadata"`
		AddressType string         `json:"addressType"`
		Endpoints   []endpoint     `json:"endpoints"`
		Ports       []port         `json:"ports"`
	}{
		APIVersion: discovery.String(), Kind: kube.KindEndpointSlice, AddressType: r.Family,
		Metadata: map[string]any{"name": r.Name, "namespace": r.Namespace, "labels": r.Labels()},
	}
	for _, a := range r.Addresses {
		o.Endpoints = append(o.Endpoints, endpoint{[]string{a}, map[string]bool{"ready": true}})
	}
	for _, p := range r.Ports {
		o.Ports = append(o.Ports, port{p.Name, p.Port, "TCP"})
	}
	body, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("kube: encode EndpointSlice: %w", err)
	}
	key, text := r.Namespace+"/"+r.Name, r.Version+" "+string(body)
	if was := w.redirected[key]; was.text == text && time.Since(was.at) < retryAfter {
		// The watch has yet to bring it. Should it not, because somebody has taken it
		// away at once, it is written again.
		time.AfterFunc(retryAfter, w.bridge.poke)
		return nil
	}
	call, done := context.WithTimeout(ctx, statusTimeout)
	defer done()
	err = c.Patch(types.ApplyPatchType).Resource("endpointslices").Namespace(r.Namespace).Name(r.Name).
		Param("fieldManager", fieldManager).Param("force", "true").Body(body).Do(call).Error()
	if err != nil {
		return fmt.Errorf("EndpointSlice %s, which has Service %s lead to its Gateway: %w", key, r.Service, err)
	}
	w.redirected[key] = redirected{text, time.Now()}
	return nil
}

// redirected is an EndpointSlice that was written, and over which version.
type redirected struct {
	text string
	at   time.Time
}
