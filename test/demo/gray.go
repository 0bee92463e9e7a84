package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// gray shows a gray run: pods are cut off from traffic, observed, and only then deleted.
type gray struct{}

const (
	grayFrom = 5
	grayTo   = 1
	// grayObserved is how long cut pods are observed; manifests/gray.yaml has the same. It begins when they are unready, and the
	// endpoints follow that: so they are out of them for a little less.
	grayObserved = 15 * time.Second
	grayLeast    = 10 * time.Second
)

func (*gray) about() about {
	return about{
		name: "gray", title: "an IHPA goes down in gray steps", bound: 2 * time.Minute,
		look:  "cut pods leave the endpoints at once, and are deleted only after they have been observed",
		after: []string{"-n", "gray", "describe", "ihpa", "nginx"},
	}
}

func (*gray) setUp(ctx context.Context, l *lab) error {
	if err := l.apply(ctx, "gray", "gray.yaml"); err != nil {
		return err
	}
	if err := l.waitReady(ctx, "gray", "nginx", grayFrom); err != nil {
		return err
	}
	return until(ctx, time.Minute, func(ctx context.Context) error {
		if p, err := l.profile(ctx); err != nil || p.online != grayFrom {
			return errors.Join(err, fmt.Errorf("the IHPA has %d pods online, want %d", p.online, grayFrom))
		}
		return nil
	})
}

func (c *gray) run(ctx context.Context, l *lab, s *screen) (string, error) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	h := &history{}
	if err := h.followPods(watching, l, "gray"); err != nil {
		return "", err
	}
	if err := until(ctx, 30*time.Second, func(context.Context) error {
		if n := len(h.serving()); n != grayFrom {
			return fmt.Errorf("%d pods are in the endpoints, want %d", n, grayFrom)
		}
		return nil
	}); err != nil {
		return "", err
	}
	s.say("%d pods, all in the endpoints; the IHPA's portrait falls to %d: half of the pods every 10 s, then %s of observation",
		grayFrom, grayTo, seconds(grayObserved))
	var ihpa kapacity.IntelligentHorizontalPodAutoscaler
	if err := l.client.Get(ctx, client.ObjectKey{Namespace: "gray", Name: "nginx"}, &ihpa); err != nil {
		return "", err
	}
	before := ihpa.DeepCopy()
	ihpa.Spec.PortraitProviders[0].Static.Replicas = grayTo
	began := time.Now()
	if err := l.client.Patch(ctx, &ihpa, client.MergeFrom(before)); err != nil {
		return "", err
	}
	var seen string
	err := until(ctx, 90*time.Second, func(ctx context.Context) error {
		p, err := l.profile(ctx)
		if err != nil {
			return err
		}
		_, pods, err := l.readyPods(ctx, "gray", "nginx")
		if err != nil {
			return err
		}
		now := fmt.Sprintf("%d pods: %d online, %d cut; %d in the endpoints", pods, p.online, p.cutoff, len(h.serving()))
		s.doing("%s", now)
		if now != seen {
			s.say("%s", now)
			seen = now
		}
		if pods != grayTo || p.online != grayTo || p.cutoff != 0 {
			return fmt.Errorf("%s; want %d online and no other", now, grayTo)
		}
		return nil
	})
	took := time.Since(began)
	// Whatever came of it: what was deleted while it served is worse than a run that did not end.
	gaps, broken := h.deletions()
	if broken != nil {
		return "", broken
	}
	if err != nil {
		return "", err
	}
	if len(gaps) != grayFrom-grayTo {
		return "", fmt.Errorf("%d pods were cut and deleted, want %d", len(gaps), grayFrom-grayTo)
	}
	least := slices.Min(gaps)
	if least < grayLeast {
		return "", fmt.Errorf("a pod was deleted %s after it had left the endpoints, want at least %s", seconds(least), grayLeast)
	}
	return fmt.Sprintf("%d → %d in %s; %d pods cut, each out of the endpoints for at least %s when it was deleted; deleted while serving: 0",
		grayFrom, grayTo, seconds(took), len(gaps), seconds(least)), nil
}

// profile is how many pods the IHPA has online and cut.
type profile struct{ online, cutoff int32 }

func (l *lab) profile(ctx context.Context) (profile, error) {
	var p kapacity.ReplicaProfile
	err := l.client.Get(ctx, client.ObjectKey{Namespace: "gray", Name: "nginx"}, &p)
	return profile{p.Spec.OnlineReplicas, p.Spec.CutoffReplicas}, client.IgnoreNotFound(err)
}

// followPods puts into the history which pods serve, and which are deleted, until the context ends.
func (h *history) followPods(ctx context.Context, l *lab, namespace string) error {
	err := l.follow(ctx, namespace, &discoveryv1.EndpointSliceList{}, func(_ watch.EventType, o client.Object) {
		slice := o.(*discoveryv1.EndpointSlice)
		serving := []string{}
		for _, e := range slice.Endpoints {
			if e.TargetRef != nil && e.Conditions.Ready != nil && *e.Conditions.Ready {
				serving = append(serving, e.TargetRef.Name)
			}
		}
		h.add(change{revision: revision(o), at: time.Now(), source: slice.Name, serving: serving})
	})
	if err != nil {
		return err
	}
	return l.follow(ctx, namespace, &corev1.PodList{}, func(e watch.EventType, o client.Object) {
		if e == watch.Deleted || o.GetDeletionTimestamp() != nil {
			h.add(change{revision: revision(o), at: time.Now(), deleted: o.GetName()})
		}
	})
}

// serving are the pods that are in the endpoints now.
func (h *history) serving() []string {
	live := map[string][]string{}
	for _, c := range h.ordered() {
		if c.source != "" {
			live[c.source] = c.serving
		}
	}
	var pods []string
	for _, of := range live {
		pods = append(pods, of...)
	}
	return pods
}

// deletions returns for each pod that was deleted for how long it had been out of the endpoints. A pod that was deleted while it
// was in them is an error.
func (h *history) deletions() (gaps []time.Duration, err error) {
	live := map[string][]string{} // by EndpointSlice
	left := map[string]time.Time{}
	gone := map[string]bool{}
	var wrong []string
	serves := func(pod string) bool {
		for _, pods := range live {
			if slices.Contains(pods, pod) {
				return true
			}
		}
		return false
	}
	for _, c := range h.ordered() {
		switch {
		case c.source != "":
			before := live[c.source]
			live[c.source] = c.serving
			for _, pod := range before {
				if !serves(pod) {
					left[pod] = c.at
				}
			}
		case c.deleted != "" && !gone[c.deleted]:
			gone[c.deleted] = true
			if serves(c.deleted) {
				wrong = append(wrong, c.deleted)
			} else if at, served := left[c.deleted]; served {
				gaps = append(gaps, c.at.Sub(at))
			}
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("deleted while in the endpoints: %s", strings.Join(wrong, ", "))
	}
	return gaps, nil
}
