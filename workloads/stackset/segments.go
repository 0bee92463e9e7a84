package stackset

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/traffic"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
	"github.com/kubetide/kubetide/workloads/stackset/segment"
)

// kind is one of the kinds of objects that carry segments. Routers read all objects of a kind at once, and each kind at another time.
type kind struct {
	reason string
	// live is the segment that the Stack's object has; one that is missing, or cannot be read, has no width.
	live func(v *version) traffic.Segment
	// write brings the Stack's object to what it should be with the segment, and removes one that should not be.
	write func(ctx context.Context, r *round, v *version, s traffic.Segment) error
	// has tells whether the Stack should have such an object.
	has func(r *round, v *version) bool
	// object is an empty one.
	object func() client.Object
}

var kinds = []kind{
	{
		reason: "FailedManageIngressSegment",
		live: func(v *version) traffic.Segment {
			if o := own(v.Stack, v.live.ingressSegment); o != nil {
				if s, _, err := generate.LiveIngress(o); err == nil {
					return s
				}
			}
			return traffic.Segment{}
		},
		write: func(ctx context.Context, r *round, v *version, s traffic.Segment) (err error) {
			v.live.ingressSegment, err = keep(ctx, r, v, v.live.ingressSegment, v.IngressSegment(s))
			return err
		},
		has:    func(_ *round, v *version) bool { return v.IngressSegment(traffic.Segment{}) != nil },
		object: func() client.Object { return &networkingv1.Ingress{} },
	},
	{
		reason: "FailedManageRouteGroupSegment",
		live: func(v *version) traffic.Segment {
			if o := own(v.Stack, v.live.routeGroupSegment); o != nil {
				if s, _, err := generate.LiveRouteGroup(o); err == nil {
					return s
				}
			}
			return traffic.Segment{}
		},
		write: func(ctx context.Context, r *round, v *version, s traffic.Segment) error {
			if !r.options.RouteGroups {
				return nil
			}
			want, err := v.RouteGroupSegment(s)
			if err != nil {
				return err
			}
			v.live.routeGroupSegment, err = keep(ctx, r, v, v.live.routeGroupSegment, want)
			return err
		},
		has: func(r *round, v *version) bool {
			want, err := v.RouteGroupSegment(traffic.Segment{})
			return r.options.RouteGroups && (want != nil || err != nil)
		},
		object: func() client.Object { return &zalando.RouteGroup{} },
	},
}

// route writes the segments of all Stacks for the weights decided, in the order in which each request finds one, up to the first failure.
func (r *round) route(ctx context.Context) error {
	weights := map[string]int{}
	byName := map[string]*version{}
	for _, v := range r.versions {
		weights[v.Stack.Name], byName[v.Stack.Name] = v.outcome.Actual, v
	}
	var used []kind
	var lives []segment.Live
	alike := true
	for _, k := range kinds {
		live, of := segment.Live{}, 0
		for _, v := range r.versions {
			if k.has(r, v) {
				of++
			}
			if s := k.live(v); s.Width() > 0 {
				live[v.Stack.Name] = s
			}
		}
		if of > 0 {
			used, lives = append(used, k), append(lives, live)
			alike = alike && of == len(r.versions)
		}
	}
	if len(used) == 0 {
		return nil
	}
	layout, err := segment.Layout(weights, lives...)
	if err != nil {
		return err
	}
	for _, p := range layout {
		byName[p.Stack].segment = p.Segment
	}
	if alike {
		for i, k := range used {
			for _, p := range segment.Writes(lives[i], layout) {
				if err := k.write(ctx, r, byName[p.Stack], p.Segment); err != nil {
					return fmt.Errorf("segment of Stack %s: %w", p.Stack, err)
				}
			}
		}
		return nil
	}
	// While Stacks come in by different kinds, it takes all kinds together to cover everything: each write is one of all kinds of a Stack,
	// of which what they have in common counts.
	for _, p := range segment.Writes(r.common(used), layout) {
		for _, k := range used {
			if v := byName[p.Stack]; k.has(r, v) {
				if err := k.write(ctx, r, v, p.Segment); err != nil {
					return fmt.Errorf("segment of Stack %s: %w", p.Stack, err)
				}
			}
		}
	}
	return nil
}

func (r *round) common(used []kind) segment.Live {
	live := segment.Live{}
	for _, v := range r.versions {
		both, found := traffic.All, false
		for _, k := range used {
			if k.has(r, v) {
				both, found = both.Intersect(k.live(v)), true
			}
		}
		if found && both.Width() > 0 {
			live[v.Stack.Name] = both
		}
	}
	return live
}

// forget deletes the segments of Stacks that had traffic and are gone, now that others have it: the garbage collector may take their pods
// first.
func (r *round) forget(ctx context.Context) error {
	for _, t := range r.set.Status.Traffic {
		if _, lives := r.before[t.StackName]; lives || t.Weight <= 0 {
			continue
		}
		key := types.NamespacedName{Namespace: r.set.Namespace, Name: t.StackName}
		if err := r.direct.Get(ctx, key, &zalando.Stack{}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("read Stack %s: %w", t.StackName, err)
		} else if err == nil {
			continue // it is being deleted, or left without its StackSet
		}
		for i, k := range kinds {
			if i == 1 && !r.options.RouteGroups {
				continue
			}
			o, err := find(ctx, r.client, types.NamespacedName{Namespace: key.Namespace, Name: key.Name + generate.SegmentSuffix}, k.object())
			if err != nil {
				return fmt.Errorf("read the segment of Stack %s: %w", t.StackName, err)
			}
			if isNil(o) || len(o.GetOwnerReferences()) == 0 || o.GetLabels()[generate.StackSetLabel] == "" {
				continue
			}
			if err := r.remove(ctx, o); err != nil {
				return err
			}
			r.recorder.Eventf(r.set, corev1.EventTypeNormal, "Deleted"+kindOf(o), "Deleted %s %s", kindOf(o), o.GetName())
		}
	}
	return nil
}
