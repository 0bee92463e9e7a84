package skipper

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/kubetide/kubetide/adapter/annotations"
	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/collectors/externalrps"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

// thousand answers as Prometheus does whose hosts get 1,000 requests a second.
type thousand struct{}

var weightOf = regexp.MustCompile(`\* ([0-9.]+)\)$`)

func (thousand) Instant(_ context.Context, _, query string) (float64, time.Duration, error) {
	match := weightOf.FindStringSubmatch(query)
	if match == nil {
		return 0, 0, fmt.Errorf("no weight in %s", query)
	}
	weight, err := strconv.ParseFloat(match[1], 64)
	return 1000 * weight, 0, err
}

// routed is a StackSet with a way in of each kind and a metric of each type, in one Stack for each version.
func routed(t interface{ Fatal(...any) }, versions ...string) map[string]generate.Source {
	out := map[string]generate.Source{}
	for _, version := range versions {
		set := &zalandov1.StackSet{}
		err := yaml.UnmarshalStrict([]byte(`
metadata: {name: shop, namespace: shop}
spec:
  ingress: {hosts: [shop.example.org], backendPort: 80, metadata: {annotations: {zalando.org/skipper-predicate: 'Method("GET")'}}}
  routegroup: {hosts: [shop.example.org], backendPort: 80, additionalBackends: [{name: away, type: shunt}],
    routes: [{pathSubtree: /, predicates: [Weight(2)]}, {path: /health, backends: [{backendName: away, weight: 1}]}]}
  stackLifecycle: {}
  stackTemplate:
    spec:
      version: `+version+`
      podTemplate: {spec: {containers: []}}
      autoscaler: {maxReplicas: 200, metrics: [{type: Ingress, average: 10}, {type: RouteGroup, average: 10},
        {type: RequestsPerSecond, average: 10, requestsPerSecond: {hostnames: [shop.example.org]}}]}
`), set)
		if err != nil {
			t.Fatal(err)
		}
		stack, err := generate.Stack(set, generate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		out[stack.Name] = generate.Source{StackSet: set, Stack: stack}
	}
	return out
}

// demand is what a Stack's HPA sees of each of its metrics, by the type that it has in the StackSet.
func demand(s generate.Source, weight int, place segment.Place) (map[string]float64, error) {
	group, err := s.RouteGroupSegment(place.Segment)
	if err != nil {
		return nil, err
	}
	hpa, err := s.Autoscaler(weight, prescale.State{}, false)
	if err != nil {
		return nil, err
	}
	registry := collectors.NewRegistry()
	New(Config{Routes: objects{ingress: s.IngressSegment(place.Segment), group: group}, Prometheus: thousand{}, Ingresses: true, RouteGroups: true,
		BackendsAnnotations: []string{weights1}}).Register(registry)
	registry.Register(sample.External, externalrps.New(externalrps.Config{Prometheus: thousand{}}), externalrps.Name)
	parsed := annotations.Parse(hpa, registry, annotations.Options{DefaultInterval: time.Minute})
	if len(parsed.Problems) > 0 {
		return nil, fmt.Errorf("problems: %v", parsed.Problems)
	}
	out := map[string]float64{}
	for _, m := range parsed.Metrics {
		source, err := registry.Named(m.Query.Kind, m.Query.Collector)
		if err != nil {
			return nil, err
		}
		collector, err := source.Open(m.Query)
		if err != nil {
			return nil, err
		}
		points, err := collector.Collect(context.Background())
		if err != nil || len(points) != 1 {
			return nil, fmt.Errorf("%s: points %v: %w", m.Query.Metric, points, err)
		}
		out[cmp.Or(m.Query.Object.Kind, "RequestsPerSecond")] = float64(points[0].Milli) / 1000
	}
	return out, nil
}

// Upstream's autoscalers count all requests of the hosts for each Stack since traffic is split by segments.
func TestEachMetricOfAStackCountsItsShareOfTheRequests(t *testing.T) {
	stacks := routed(t, "v1", "v2", "v3")
	for name, weights := range map[string]map[string]int{
		"all to one":           {"shop-v1": 100, "shop-v2": 0, "shop-v3": 0},
		"a canary":             {"shop-v1": 90, "shop-v2": 10, "shop-v3": 0},
		"a thin slice":         {"shop-v1": 0, "shop-v2": 99, "shop-v3": 1},
		"three ways":           {"shop-v1": 34, "shop-v2": 33, "shop-v3": 33},
		"all to the last made": {"shop-v1": 0, "shop-v2": 0, "shop-v3": 100},
	} {
		t.Run(name, func(t *testing.T) {
			layout, err := segment.Layout(weights)
			if err != nil {
				t.Fatal(err)
			}
			for _, place := range layout {
				got, err := demand(stacks[place.Stack], weights[place.Stack], place)
				if err != nil {
					t.Fatal(err)
				}
				want := float64(10 * weights[place.Stack])
				if len(got) != 3 {
					t.Errorf("%s has the metrics %v, want 3", place.Stack, got)
				}
				for metric, value := range got {
					if math.Abs(value-want) > 0.001 {
						t.Errorf("%s of %s is %v of 1,000 requests a second at %d %%, want %v", metric, place.Stack, value, weights[place.Stack], want)
					}
				}
			}
		})
	}
}

// Whatever the switches before, the Stacks together count each request once.
func TestStacksTogetherCountEachRequestOnce(t *testing.T) {
	stacks := routed(t, "v1", "v2", "v3", "v4")
	names := slices.Sorted(maps.Keys(stacks))
	rapid.Check(t, func(t *rapid.T) {
		live := segment.Live{}
		for range rapid.IntRange(1, 4).Draw(t, "switches") {
			weights, left := map[string]int{}, 100
			for _, stack := range names[1:] {
				weights[stack] = rapid.IntRange(0, left).Draw(t, stack)
				left -= weights[stack]
			}
			weights[names[0]] = left
			layout, err := segment.Layout(weights, live)
			if err != nil {
				t.Fatal(err)
			}
			total := map[string]float64{}
			for _, place := range layout {
				live[place.Stack] = place.Segment
				got, err := demand(stacks[place.Stack], weights[place.Stack], place)
				if err != nil {
					t.Fatal(err)
				}
				for metric, value := range got {
					total[metric] += value
				}
			}
			for metric, value := range total {
				if math.Abs(value-1000) > 0.01 {
					t.Fatalf("the Stacks' %s is %v together, want 1,000: %v", metric, value, layout)
				}
			}
			if len(total) != 3 {
				t.Fatalf("metrics %v, want 3", total)
			}
		}
	})
}
