//go:build kube

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"

	"github.com/meridian-mesh/meridian/scheduler/args"
)

// TestChart applies what the chart renders for each file of values to a real API server:
// nothing may be unknown to it, nothing draws a warning, and its admission takes all pods
// where nothing privileged is allowed, but the chain agent's.
func TestChart(t *testing.T) {
	c := startAPI(t)
	c.installCRDs(t)
	warned := &warnings{}
	cc := rest.CopyConfig(c.cc)
	cc.WarningHandler = warned
	client, err := dynamic.NewForConfig(cc)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(c.client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	put := func(t *testing.T, o *unstructured.Unstructured, dryRun bool) error {
		t.Helper()
		m, err := mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		if err != nil {
			t.Fatal(err)
		}
		body, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		force := true
		options := metav1.PatchOptions{FieldManager: "test", Force: &force, FieldValidation: metav1.FieldValidationStrict}
		if dryRun {
			options.DryRun = []string{metav1.DryRunAll}
		}
		_, err = client.Resource(m.Resource).Namespace(o.GetNamespace()).Patch(t.Context(), o.GetName(), types.ApplyPatchType, body, options)
		return err
	}
	remove := func(t *testing.T, o *unstructured.Unstructured) {
		m, err := mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		if err == nil && o.GetKind() != "Namespace" {
			err = client.Resource(m.Resource).Namespace(o.GetNamespace()).Delete(t.Context(), o.GetName(), metav1.DeleteOptions{})
		}
		if err != nil {
			t.Errorf("delete %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	folders, err := filepath.Glob("../../deploy/kustomize/*/meridian.yaml")
	if err != nil || len(folders) < 4 {
		t.Fatal(folders, err)
	}
	for _, o := range documents(t, "../../deploy/kustomize/namespace/namespace.yaml") {
		if err := put(t, o, false); err != nil {
			t.Fatal(err)
		}
	}
	agents := 0
	for _, file := range folders {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			for _, o := range documents(t, file) {
				// The next values are another installation, not a change of this one.
				defer remove(t, o)
				if err := put(t, o, false); err != nil {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
				for _, w := range warned.take() {
					t.Errorf("%s %s: the API server warns: %s", o.GetKind(), o.GetName(), w)
				}
				if o.GetKind() == "ConfigMap" {
					readScheduler(t, o)
				}
				pod := podOf(t, o)
				if pod == nil {
					continue
				}
				if err := put(t, pod, true); err != nil {
					t.Errorf("pod of %s %s: %v", o.GetKind(), o.GetName(), err)
				}
				_ = warned.take()
				if o.GetName() != "meridian-chainagent" {
					if pod.GetNamespace() != "meridian" {
						t.Errorf("%s %s is in namespace %s, where privileges are not looked at", o.GetKind(), o.GetName(), pod.GetNamespace())
					}
					continue
				}
				agents++
				pod.SetNamespace("meridian")
				if err := put(t, pod, true); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
					t.Errorf("the chain agent's pod beside the others: %v, want a refusal", err)
				}
			}
		})
	}
	if agents == 0 {
		t.Error("no values have chain agents: nothing shows that admission works")
	}
}

// warnings are what the API server said beside its answers.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.text
	w.text = nil
	return text
}

func documents(t *testing.T, file string) (out []*unstructured.Unstructured) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decoder := utilyaml.NewYAMLToJSONDecoder(f)
	for {
		var o unstructured.Unstructured
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(o.Object) > 0 {
			out = append(out, &o)
		}
	}
}

// podOf is the pod that a workload's controller would create, nil of others.
func podOf(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	template, found, err := unstructured.NestedMap(o.Object, "spec", "template")
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		return nil
	}
	pod := &unstructured.Unstructured{Object: template}
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetName(o.GetName())
	pod.SetNamespace(o.GetNamespace())
	claims, _, err := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
	if err != nil {
		t.Fatal(err)
	}
	volumes, _, err := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range claims {
		name, _, err := unstructured.NestedString(claim.(map[string]any), "metadata", "name")
		if err != nil {
			t.Fatal(err)
		}
		volumes = append(volumes, map[string]any{"name": name, "persistentVolumeClaim": map[string]any{"claimName": name}})
	}
	if err := unstructured.SetNestedSlice(pod.Object, volumes, "spec", "volumes"); err != nil {
		t.Fatal(err)
	}
	return pod
}

// readScheduler reads the scheduler's configuration as it does at its start.
func readScheduler(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	text, _, err := unstructured.NestedString(o.Object, "data", "scheduler.yaml")
	if err != nil || text == "" {
		t.Fatalf("ConfigMap %s has no scheduler.yaml: %v", o.GetName(), err)
	}
	obj, _, err := scheme.Codecs.UniversalDecoder().Decode([]byte(text), nil, nil)
	if err != nil {
		t.Errorf("scheduler.yaml: %v", err)
		return
	}
	ours := 0
	for _, p := range obj.(*config.KubeSchedulerConfiguration).Profiles {
		for _, a := range p.PluginConfig {
			if !strings.HasPrefix(a.Name, "Traffic") {
				continue
			}
			ours++
			if _, err := args.Read(a.Args); err != nil {
				t.Errorf("scheduler.yaml: %s: %v", a.Name, err)
			}
		}
	}
	if ours != 2 {
		t.Errorf("scheduler.yaml has arguments for %d of our plugins, want 2", ours)
	}
}
