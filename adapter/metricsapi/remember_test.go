package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	clocktesting "k8s.io/utils/clock/testing"
)

func attributes(change ...func(*authorizer.AttributesRecord)) authorizer.AttributesRecord {
	out := authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}}},
		Verb: "list", Namespace: "shop", APIGroup: "external.metrics.k8s.io", APIVersion: "v1beta1", Resource: "queue", ResourceRequest: true, Path: "/apis/x",
	}
	for _, c := range change {
		c(&out)
	}
	return out
}

func as(info *user.DefaultInfo) func(*authorizer.AttributesRecord) {
	return func(a *authorizer.AttributesRecord) { a.User = info }
}

// The answer to one question must never be another's.
func TestNoTwoQuestionsAreTheSame(t *testing.T) {
	type record = authorizer.AttributesRecord
	questions := map[string]record{
		"alice's":               attributes(),
		"bob's":                 attributes(as(&user.DefaultInfo{Name: "bob", UID: "1", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}}})),
		"nobody's":              attributes(func(a *record) { a.User = nil }),
		"an empty name's":       attributes(as(&user.DefaultInfo{})),
		"another alice's":       attributes(as(&user.DefaultInfo{Name: "alice", UID: "2", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}}})),
		"in fewer groups":       attributes(as(&user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"a"}, Extra: map[string][]string{"k": {"v"}}})),
		"in groups that join":   attributes(as(&user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"ab"}, Extra: map[string][]string{"k": {"v"}}})),
		"in a group of b's":     attributes(as(&user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"a", "b", "k"}, Extra: map[string][]string{"v": nil}})),
		"without extra":         attributes(as(&user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"a", "b"}})),
		"with more extra":       attributes(as(&user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v", "w"}}})),
		"with other extra":      attributes(as(&user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}, "l": nil}})),
		"to get":                attributes(func(a *record) { a.Verb = "get" }),
		"in another namespace":  attributes(func(a *record) { a.Namespace = "bank" }),
		"of another group":      attributes(func(a *record) { a.APIGroup = "custom.metrics.k8s.io" }),
		"of another version":    attributes(func(a *record) { a.APIVersion = "v1beta2" }),
		"of another resource":   attributes(func(a *record) { a.Resource = "other" }),
		"of a part":             attributes(func(a *record) { a.Subresource = "part" }),
		"of one":                attributes(func(a *record) { a.Name = "part" }),
		"for a path":            attributes(func(a *record) { a.ResourceRequest = false }),
		"for another path":      attributes(func(a *record) { a.ResourceRequest, a.Path = false, "/apis/y" }),
		"with a selector":       attributes(func(a *record) { a.LabelSelectorRequirements, _ = parse("a=b").Requirements() }),
		"with another selector": attributes(func(a *record) { a.LabelSelectorRequirements, _ = parse("a!=b").Requirements() }),
		"with two":              attributes(func(a *record) { a.LabelSelectorRequirements, _ = parse("a=b,c").Requirements() }),
		"with a field": attributes(func(a *record) {
			a.FieldSelectorRequirements = fields.Requirements{{Field: "a", Operator: selection.Equals, Value: "b"}}
		}),
		"without a field": attributes(func(a *record) {
			a.FieldSelectorRequirements = fields.Requirements{{Field: "a", Operator: selection.NotEquals, Value: "b"}}
		}),
	}
	seen := map[string]string{}
	for name, q := range questions {
		key, ok := questionKey(q)
		if !ok {
			t.Errorf("the question %q is not remembered", name)
		}
		if other, twice := seen[key]; twice {
			t.Errorf("the questions %q and %q are the same", name, other)
		}
		seen[key] = name
		if again, _ := questionKey(q); again != key {
			t.Errorf("the question %q is not the same as itself", name)
		}
	}
	for name, q := range map[string]record{
		"a long one":                         attributes(func(a *record) { a.Name = strings.Repeat("a", maxQuestion) }),
		"a selector that cannot be read":     attributes(func(a *record) { a.LabelSelectorParsingErr = errors.New("bad") }),
		"a field selector that can't either": attributes(func(a *record) { a.FieldSelectorParsingErr = errors.New("bad") }),
	} {
		if _, ok := questionKey(q); ok {
			t.Errorf("%s is remembered", name)
		}
	}
}

func TestAnswersAreRememberedForTheirTime(t *testing.T) {
	failed := errors.New("the API server is away")
	for name, tt := range map[string]struct {
		decision authorizer.Decision
		err      error
		asked    map[time.Duration]bool // again, so long after the first time
	}{
		"a yes":        {authorizer.DecisionAllow, nil, map[time.Duration]bool{0: false, remembered - time.Second: false, remembered + time.Second: true}},
		"a no":         {authorizer.DecisionNoOpinion, nil, map[time.Duration]bool{0: false, deniedFor - time.Second: false, deniedFor + time.Second: true}},
		"a denial":     {authorizer.DecisionDeny, nil, map[time.Duration]bool{0: false, deniedFor - time.Second: false, deniedFor + time.Second: true}},
		"no answer":    {authorizer.DecisionNoOpinion, failed, map[time.Duration]bool{0: true}},
		"both at once": {authorizer.DecisionAllow, failed, map[time.Duration]bool{0: true}},
	} {
		t.Run(name, func(t *testing.T) {
			for after, again := range tt.asked {
				clock, asked := clocktesting.NewFakePassiveClock(time.Now()), 0
				r := newRemembering(authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
					asked++
					return tt.decision, "because", tt.err
				}), clock)
				for range 2 {
					if decision, reason, err := r.Authorize(t.Context(), attributes()); decision != tt.decision || reason != "because" || !errors.Is(err, tt.err) {
						t.Errorf("decided %v, %q, %v", decision, reason, err)
					}
					clock.SetTime(clock.Now().Add(after))
				}
				if (asked == 2) != again {
					t.Errorf("asked %d times in %s", asked, after)
				}
			}
		})
	}
}

func TestAQuestionIsAskedOnceHoweverManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		var mu sync.Mutex
		answered := make(chan struct{})
		r := newRemembering(authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			mu.Lock()
			asked[a.GetNamespace()]++
			mu.Unlock()
			<-answered
			return authorizer.DecisionAllow, "", ctx.Err()
		}), clocktesting.NewFakePassiveClock(time.Now()))
		canceled, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		for i := range 100 {
			readers.Go(func() {
				ctx := t.Context()
				if i < 2 { // the first to ask may be one that goes
					ctx = canceled
				}
				namespace := func(a *authorizer.AttributesRecord) { a.Namespace = fmt.Sprint(i % 2) }
				if decision, _, err := r.Authorize(ctx, attributes(namespace)); decision != authorizer.DecisionAllow || err != nil {
					t.Errorf("decided %v, %v", decision, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		close(answered)
		readers.Wait()
		if asked["0"] != 1 || asked["1"] != 1 {
			t.Errorf("asked %v", asked)
		}
	})
}
