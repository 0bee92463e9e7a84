// Package discovery watches HPAs and keeps the set of queries that they ask for: it tells the store and the scheduler what
// is new and what is gone, and tells people, by Events on the HPA, what cannot be read or collected. It writes nothing
// but Events, and each of them once.
package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/adapter/annotations"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// Options are what a Discovery needs. All are required unless said otherwise.
type Options struct {
	Registry *collectors.Registry
	// DefaultInterval is that of metrics without an interval annotation.
	DefaultInterval time.Duration
	// MaxAge is the greatest age of a value that is served.
	MaxAge time.Duration
	// DisregardForeign says nothing about metrics that may be another adapter's.
	DisregardForeign bool
	// Add and Remove are told which queries are to be collected and served.
	Add, Remove func(sample.Query)
	// Bar is told which series are asked for in a way that cannot be collected, and when that ends.
	Bar func(series sample.Series, barred bool)
	// Answer gives what is known of a query, to see when its fallback is served.
	Answer   func(sample.Query) sample.Answer
	Recorder record.EventRecorder
	// AwaitLead has it write no Events until Lead.
	AwaitLead bool
	Clock     clock.WithDelayedExecution
	// Registerer takes the metrics; none if nil.
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Discovery knows what the HPAs ask for.
type Discovery struct {
	Options

	mu      sync.Mutex
	objects map[types.NamespacedName]*object
	claims  map[sample.Series][]claim
	served  map[sample.Series]sample.Query // that of the first claim
	barred  map[sample.Series]int          // by how many metrics
	looks   map[sample.Series]clock.Timer  // the next look at the fallback
	leads   bool                           // this process writes the Events
	untold  []*object                      // those of which a new leader is still to tell
}

// object is one HPA.
type object struct {
	key      types.NamespacedName
	uid      types.UID
	created  time.Time
	queries  []sample.Query
	barred   []sample.Series
	fatal    map[string]bool // metrics that cannot be read
	problems map[string]bool // texts of those that are there, and whether they are fatal
	// conflicts are the texts about series that another claim is served for.
	conflicts map[sample.Series]string
	topics    map[sample.Series]*topic
	falls     map[sample.Series]*fall
}

// claim is one metric of one HPA that asks for a series.
type claim struct {
	object *object
	index  int
	query  sample.Query
}

// New returns a Discovery that knows nothing yet.
func New(o Options) *Discovery {
	d := &Discovery{Options: o, objects: map[types.NamespacedName]*object{}, claims: map[sample.Series][]claim{},
		served: map[sample.Series]sample.Query{}, barred: map[sample.Series]int{}, looks: map[sample.Series]clock.Timer{},
		leads: !o.AwaitLead}
	if o.Registerer != nil {
		o.Registerer.MustRegister(d)
	}
	return d
}

const (
	// atOnce is how many Events a new leader writes before it waits for pause: the recorder drops what exceeds its queue.
	atOnce = 100
	pause  = 2 * time.Second
)

// Lead says whether this process writes the Events from now on. When it begins to, it tells what is wrong now: nobody may have.
func (d *Discovery) Lead(leads bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	begins := leads && !d.leads
	d.leads, d.untold = leads, nil
	if begins {
		d.untold = slices.Collect(maps.Values(d.objects))
		d.catchUp()
	}
}

// catchUp tells of some objects that a new leader is still to tell of, and later of the others. d.mu is held.
func (d *Discovery) catchUp() {
	for told := 0; len(d.untold) > 0; d.untold = d.untold[1:] {
		o := d.untold[0]
		if d.objects[o.key] != o {
			continue
		}
		if told >= atOnce {
			d.Clock.AfterFunc(pause, func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.catchUp()
			})
			return
		}
		for _, w := range o.warnings() {
			d.write(o, corev1.EventTypeWarning, w.reason, w.text)
			told++
		}
	}
}

// Handler is told of the HPAs by an informer.
func (d *Discovery) Handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { d.set(obj) },
		UpdateFunc: func(before, after any) {
			a, okA := before.(*autoscalingv2.HorizontalPodAutoscaler)
			b, okB := after.(*autoscalingv2.HorizontalPodAutoscaler)
			// The HPA controller writes the status every 15 s.
			if okA && okB && a.UID == b.UID && maps.Equal(a.Annotations, b.Annotations) && equality.Semantic.DeepEqual(a.Spec, b.Spec) {
				return
			}
			d.set(after)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.drop(types.NamespacedName{Namespace: hpa.Namespace, Name: hpa.Name})
			}
		},
	}
}

func (d *Discovery) set(obj any) {
	hpa, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return
	}
	parsed := annotations.Parse(hpa, d.Registry, annotations.Options{DefaultInterval: d.DefaultInterval, MaxAge: d.MaxAge})
	key := types.NamespacedName{Namespace: hpa.Namespace, Name: hpa.Name}
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.objects[key]
	if o != nil && o.uid != hpa.UID {
		d.drop(key)
		o = nil
	}
	if o == nil {
		o = &object{key: key, uid: hpa.UID, created: hpa.CreationTimestamp.Time, conflicts: map[sample.Series]string{}, topics: map[sample.Series]*topic{},
			falls: map[sample.Series]*fall{}}
		d.objects[key] = o
	}

	d.bar(o, parsed.Barred)
	affected := map[sample.Series]bool{}
	for _, q := range o.queries {
		affected[q.Series()] = true
		d.unclaim(o, q.Series())
	}
	o.queries = nil
	for _, m := range parsed.Metrics {
		series := m.Query.Series()
		if slices.ContainsFunc(d.claims[series], func(c claim) bool { return c.object == o && c.query == m.Query }) {
			continue
		}
		affected[series] = true
		o.queries = append(o.queries, m.Query)
		d.claim(series, claim{object: o, index: m.Index, query: m.Query})
	}
	asked := func(series sample.Series) bool {
		return slices.ContainsFunc(o.queries, func(q sample.Query) bool { return q.Series() == series })
	}
	maps.DeleteFunc(o.topics, func(s sample.Series, _ *topic) bool { return !asked(s) })
	maps.DeleteFunc(o.falls, func(s sample.Series, _ *fall) bool { return !asked(s) })
	maps.DeleteFunc(o.conflicts, func(s sample.Series, _ string) bool { return !asked(s) })
	d.problems(o, parsed.Problems)
	for series := range affected {
		d.settle(series)
	}
}

// drop forgets an HPA. d.mu is held.
func (d *Discovery) drop(key types.NamespacedName) {
	o := d.objects[key]
	if o == nil {
		return
	}
	delete(d.objects, key)
	d.bar(o, nil)
	for _, q := range o.queries {
		d.unclaim(o, q.Series())
	}
	for _, q := range o.queries {
		d.settle(q.Series())
	}
}

// bar replaces the series that the HPA asks for in vain. d.mu is held.
func (d *Discovery) bar(o *object, barred []sample.Series) {
	for _, s := range barred {
		if d.barred[s]++; d.barred[s] == 1 {
			d.Bar(s, true)
		}
	}
	for _, s := range o.barred {
		if d.barred[s]--; d.barred[s] == 0 {
			delete(d.barred, s)
			d.Bar(s, false)
		}
	}
	o.barred = barred
}

// claim adds to those who ask for the series. The older HPA comes first, then the name, then the place in the spec, so
// that what is served never depends on the order in which HPAs are seen.
func (d *Discovery) claim(series sample.Series, c claim) {
	claims := append(slices.Clip(d.claims[series]), c)
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Or(a.object.created.Compare(b.object.created), cmp.Compare(a.object.key.Name, b.object.key.Name), cmp.Compare(a.index, b.index))
	})
	d.claims[series] = claims
}

func (d *Discovery) unclaim(o *object, series sample.Series) {
	d.claims[series] = slices.DeleteFunc(d.claims[series], func(c claim) bool { return c.object == o })
}

// settle makes the first claim the one that is collected and served, and tells the others if they ask differently.
func (d *Discovery) settle(series sample.Series) {
	claims := d.claims[series]
	before, had := d.served[series]
	if len(claims) == 0 {
		delete(d.claims, series)
		if had {
			delete(d.served, series)
			d.forgetFallback(series)
			d.Remove(before)
		}
		return
	}
	first := claims[0]
	if !had || before != first.query {
		for _, c := range claims {
			delete(c.object.topics, series)
		}
		d.forgetFallback(series)
		d.served[series] = first.query
		d.Add(first.query)
		if had {
			d.Remove(before)
		}
	}
	for _, c := range claims[1:] {
		if c.query == first.query {
			delete(c.object.conflicts, series)
			continue
		}
		text := conflictText(series, c, first)
		if c.object.conflicts[series] != text {
			c.object.conflicts[series] = text
			d.tell(c.object, corev1.EventTypeWarning, ReasonConflict, text)
		}
	}
	delete(first.object.conflicts, series)
}

func conflictText(series sample.Series, mine, first claim) string {
	other := fmt.Sprintf("HPA %s, which is older,", first.object.key)
	if first.object == mine.object {
		other = fmt.Sprintf("spec.metrics[%d] of the same HPA", first.index)
	}
	return fmt.Sprintf("HPA %s: metric %q: %s asks for the same %s metric with other settings; a request does not say which HPA it is for, "+
		"so those settings are served to both. Give one of the two a label of its own in its metric selector, or another name",
		mine.object.key, series.Metric, other, series.Kind)
}

func trim(text string) string {
	const most = 1000 // an Event's message has at most 1024 bytes
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

func (o *object) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler", Namespace: o.key.Namespace, Name: o.key.Name, UID: o.uid}
}
