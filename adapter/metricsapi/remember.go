package metricsapi

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
)

const (
	// remembered is how long the API server's yes to a caller counts. All requests of a caller wait while it is asked again, so
	// it is longer than the library's 10 s; kube-apiserver itself remembers such answers for 2 and 5 minutes.
	remembered = time.Minute
	// deniedFor is how long its no counts.
	deniedFor = 10 * time.Second
	// maxAnswers bounds how many answers are remembered, and maxQuestion how long in bytes the question to one may be.
	maxAnswers, maxQuestion = 2048, 2048
	// askFor is how long a question may take, and so how long a request waits for it at most.
	askFor = 15 * time.Second
)

// remembering remembers what the API server says about callers, and asks each question once at a time. The library's own
// memory has each request that finds no answer ask for itself: a thousand a second that wait for a slow API server would ask
// it a thousand times a second.
type remembering struct {
	authorizer.Authorizer // asks
	answers               *cache.LRUExpireCache
	asking                singleflight.Group
}

func newRemembering(asks authorizer.Authorizer, clock clock.PassiveClock) *remembering {
	return &remembering{Authorizer: asks, answers: cache.NewLRUExpireCacheWithClock(maxAnswers, clock)}
}

type answer struct {
	decision authorizer.Decision
	reason   string
}

// Authorize implements authorizer.Authorizer.
func (r *remembering) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	key, ok := questionKey(a)
	if !ok {
		return r.Authorizer.Authorize(ctx, a)
	}
	if known, ok := r.answers.Get(key); ok {
		return known.(answer).decision, known.(answer).reason, nil
	}
	found, err, _ := r.asking.Do(key, func() (any, error) {
		// Others may wait for the answer when this request is canceled.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askFor)
		defer cancel()
		decision, reason, err := r.Authorizer.Authorize(ctx, a)
		out := answer{decision, reason}
		if err == nil {
			lasts := deniedFor
			if decision == authorizer.DecisionAllow {
				lasts = remembered
			}
			r.answers.Add(key, out, lasts)
		}
		return out, err
	})
	got := found.(answer)
	return got.decision, got.reason, err
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (r *remembering) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(r.Authorize(ctx, a))
}

// questionKey is everything that the question has, each part with its length, so that no two questions have the same. It is
// false for those that are not remembered.
func questionKey(a authorizer.Attributes) (string, bool) {
	var memory [512]byte // on the stack
	key := memory[:0]
	part := func(texts ...string) {
		key = binary.AppendUvarint(key, uint64(len(texts)))
		for _, text := range texts {
			key = append(binary.AppendUvarint(key, uint64(len(text))), text...)
		}
	}
	if u := a.GetUser(); u != nil {
		part(u.GetName(), u.GetUID())
		part(u.GetGroups()...)
		extra := u.GetExtra()
		for _, name := range slices.Sorted(maps.Keys(extra)) {
			part(name)
			part(extra[name]...)
		}
	}
	part() // ends the extra values, and says that there may be no user
	kind := "resource"
	if !a.IsResourceRequest() {
		kind = "path"
	}
	part(kind, a.GetVerb(), a.GetNamespace(), a.GetAPIGroup(), a.GetAPIVersion(), a.GetResource(), a.GetSubresource(), a.GetName())
	if !a.IsResourceRequest() {
		part(a.GetPath())
	}
	byLabels, err := a.GetLabelSelector()
	byFields, fieldsErr := a.GetFieldSelector()
	if err != nil || fieldsErr != nil {
		return "", false
	}
	for i := range byLabels {
		part("label", byLabels[i].String())
	}
	for _, f := range byFields {
		part("field", f.Field, string(f.Operator), f.Value)
	}
	return string(key), len(key) <= maxQuestion
}
