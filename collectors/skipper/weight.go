package skipper

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
)

// predicateAnnotation holds predicates that skipper adds to all routes of an Ingress.
const predicateAnnotation = "zalando.org/skipper-predicate"

// maxShares bounds the work for one RouteGroup.
const maxShares = 1000

// errNoBackend has kube-metrics-adapter's words.
var errNoBackend = errors.New("backend name must be specified for requests-per-second when traffic switching is used")

// ingressWeight is the share of the requests to an Ingress's hosts that the backend gets, from 0 to 1: the greatest that one
// of the annotations says, times the width of the traffic segment.
func ingressWeight(ingress *networkingv1.Ingress, backend string, annotations []string) (float64, error) {
	segment, found, err := traffic.Find(ingress.Annotations[predicateAnnotation])
	if err != nil {
		return 0, fmt.Errorf("annotation %s: %w", predicateAnnotation, err)
	}
	if !found {
		segment = traffic.All
	}
	weight, split := 0.0, false
	for _, name := range annotations {
		text, set := ingress.Annotations[name]
		if !set {
			continue
		}
		split = true
		var weights map[string]float64
		if err := json.Unmarshal([]byte(text), &weights); err != nil {
			return 0, fmt.Errorf(`annotation %s does not hold weights such as {"web-v1": 80, "web-v2": 20}: %w`, name, err)
		}
		if weights[backend] < 0 {
			return 0, fmt.Errorf("annotation %s: the weight %v of backend %q is negative", name, weights[backend], backend)
		}
		weight = max(weight, percent(weights[backend]))
	}
	switch {
	case !split:
		return segment.Width(), nil
	case backend == "":
		return 0, errNoBackend
	}
	return weight * segment.Width(), nil
}

// routeGroupWeight is the same for a RouteGroup. Where none of its routes has a traffic segment, the default backends alone
// say it, as with kube-metrics-adapter. Otherwise it is the share of the backend in each route that leads to it, summed over
// the segments. Prometheus does not tell the requests of one route from those of another, so where several routes of a
// backend share a part of the traffic, that part counts once, with the greatest share: right if the routes agree (as
// StackSets' do) or exclude each other, and never too little.
func routeGroupWeight(spec *zalandov1.RouteGroupSpec, backend string, bySum bool) (float64, error) {
	segments, anySegment := make([]traffic.Segment, len(spec.Routes)), false
	for i, route := range spec.Routes {
		segment, found, err := traffic.Find(route.Predicates...)
		if err != nil {
			return 0, fmt.Errorf("spec.routes[%d]: %w", i, err)
		}
		if !found {
			segment = traffic.All
		}
		segments[i], anySegment = segment, anySegment || found
	}
	if !anySegment {
		if len(spec.DefaultBackends) <= 1 {
			return 1, nil
		}
		weight, err := referenceWeight(spec.DefaultBackends, backend, bySum)
		if err != nil {
			return 0, fmt.Errorf("spec.defaultBackends: %w", err)
		}
		return weight, nil
	}
	shares := map[share]bool{}
	for i, route := range spec.Routes {
		references := route.Backends
		if len(references) == 0 {
			references = spec.DefaultBackends
		}
		weight, err := referenceWeight(references, backend, bySum)
		if err != nil {
			return 0, fmt.Errorf("spec.routes[%d]: %w", i, err)
		}
		if shares[share{segments[i], weight}] = true; len(shares) > maxShares {
			return 0, fmt.Errorf("its routes have more than %d different shares", maxShares)
		}
	}
	return sum(shares), nil
}

// referenceWeight is the backend's share among the references, from 0 to 1. The only one gets everything, whatever its weight.
func referenceWeight(references []zalandov1.RouteGroupBackendReference, backend string, bySum bool) (float64, error) {
	if len(references) == 0 || len(references) == 1 && (backend == "" || references[0].BackendName == backend) {
		return 1, nil
	}
	if backend == "" {
		return 0, errNoBackend
	}
	own, all, count := 0.0, 0.0, 0.0
	for _, r := range references {
		if r.Weight < 0 {
			return 0, fmt.Errorf("the weight %d of backend %q is negative", r.Weight, r.BackendName)
		}
		all += float64(r.Weight)
		if r.BackendName == backend {
			own += float64(r.Weight)
			count++
		}
	}
	switch {
	case !bySum:
		return percent(own), nil
	case all == 0:
		return count / float64(len(references)), nil
	}
	return own / all, nil
}

// percent is the share that a weight stands for. Nobody gets more than everything.
func percent(weight float64) float64 { return min(weight, 100) / 100 }

// share is what a backend gets of the requests in one segment.
type share struct {
	segment traffic.Segment
	weight  float64
}

// sum adds up the greatest share at each point.
func sum(shares map[share]bool) float64 {
	var ends []float64
	for s := range shares {
		ends = append(ends, s.segment.Lo, s.segment.Hi)
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	total := 0.0
	for i := 1; i < len(ends); i++ {
		lo, hi, greatest := ends[i-1], ends[i], 0.0
		for s := range shares {
			if s.segment.Lo <= lo && hi <= s.segment.Hi {
				greatest = max(greatest, s.weight)
			}
		}
		total += greatest * (hi - lo)
	}
	return min(total, 1)
}
