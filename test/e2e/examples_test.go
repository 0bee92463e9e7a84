package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// The API server takes every example as it stands, with all of its fields, and Kubetide's webhook finds nothing wrong.
func TestEveryExampleIsAccepted(t *testing.T) {
	files, err := filepath.Glob("../../deploy/examples/*.yaml")
	must(t, err)
	if len(files) < 15 {
		t.Errorf("only %d examples", len(files))
	}
	ns := newNamespace(t)
	for _, file := range files {
		if out, err := cluster.Kubectl(t.Context(), "-n", ns, "apply", "--dry-run=server", "--validate=strict", "-f", file); err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(file), err, out)
		}
	}
}

// The example of a Piko cluster goes from 3 nodes to 5 and back, and the Service that clients use has let go of each node before it leaves.
func TestThePikoExampleDrainsItsNodes(t *testing.T) {
	ns := newNamespace(t)
	text, err := os.ReadFile("../../deploy/examples/piko.yaml")
	must(t, err)
	// The portrait of the evening goes, so that it is the same at every hour.
	before, rest, found := strings.Cut(string(text), "    - type: Cron\n")
	_, behavior, ended := strings.Cut(rest, "  behavior:\n")
	if !found || !ended {
		t.Fatal("the example has no cron portrait")
	}
	create(t, ns, "%s", strings.NewReplacer("changeIntervalSeconds: 60", "changeIntervalSeconds: 5", "observationSeconds: 60", "observationSeconds: 5").
		Replace(before+"  behavior:\n"+behavior))
	ordinals := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("piko-%d", i))
		}
		return names
	}
	serving := func(n int) func() error {
		return func() error {
			if got := endpoints(t, ns, "piko-proxy"); !slices.Equal(got, ordinals(n)) {
				return fmt.Errorf("%v serve, want %d", got, n)
			}
			if got := podNames(pods(t, ns, "piko")); !slices.Equal(got, ordinals(n)) {
				return fmt.Errorf("%v are there, want %d", got, n)
			}
			return nil
		}
	}
	eventually(t, 60*time.Second, serving(3))
	setStatic(t, ns, "piko", 5)
	eventually(t, 60*time.Second, serving(5))

	endpointSlices, leaving := watching(t, ns, &discoveryv1.EndpointSliceList{}), watching(t, ns, &corev1.PodList{})
	setStatic(t, ns, "piko", 3)
	eventually(t, 90*time.Second, serving(3))
	for _, name := range ordinals(5)[3:] {
		var out, left uint64
		for _, e := range endpointSlices.all() {
			s, ok := e.Object.(*discoveryv1.EndpointSlice)
			if ok && s.Labels[discoveryv1.LabelServiceName] == "piko-proxy" && !serves(s, name) && out == 0 {
				out = revision(t, s)
			}
		}
		for _, e := range leaving.all() {
			p, ok := e.Object.(*corev1.Pod)
			if ok && p.Name == name && (p.DeletionTimestamp != nil || e.Type == watch.Deleted) && left == 0 {
				left = revision(t, p)
			}
		}
		if out == 0 || left == 0 || out >= left {
			t.Errorf("%s: out of the endpoints at revision %d, deleted at %d", name, out, left)
		}
	}
}

func serves(s *discoveryv1.EndpointSlice, pod string) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
		return e.TargetRef != nil && e.TargetRef.Name == pod && e.Conditions.Ready != nil && *e.Conditions.Ready
	})
}
