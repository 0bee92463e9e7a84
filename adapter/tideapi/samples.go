package tideapi

import (
	"context"
	"fmt"
	"math/big"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
)

// maxCause bounds the text of an error, in bytes; sources choose it.
const maxCause = 1024

type samples struct {
	resource
	source Samples
	clock  clock.PassiveClock
}

var (
	_ rest.Getter               = (*samples)(nil)
	_ rest.Lister               = (*samples)(nil)
	_ rest.Scoper               = (*samples)(nil)
	_ rest.SingularNameProvider = (*samples)(nil)
)

// New implements rest.Storage.
func (*samples) New() runtime.Object { return &tide.Sample{} }

// NewList implements rest.Lister.
func (*samples) NewList() runtime.Object { return &tide.SampleList{} }

// GetSingularName implements rest.SingularNameProvider.
func (*samples) GetSingularName() string { return "sample" }

type known struct {
	query  sample.Query
	answer sample.Answer
}

// of returns the samples of the request's namespace, or of all, by their address.
func (s *samples) of(ctx context.Context) (all []item, by map[item]known) {
	namespace := request.NamespaceValue(ctx)
	by = map[item]known{}
	s.source.Each(func(q sample.Query, a sample.Answer) {
		if namespace == "" || q.Namespace == namespace {
			i := item{q.Namespace, q.ID()}
			all, by[i] = append(all, i), known{q, a}
		}
	})
	return all, by
}

// Get implements rest.Getter.
func (s *samples) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	_, by := s.of(ctx)
	k, ok := by[item{request.NamespaceValue(ctx), name}]
	if !ok {
		return nil, apierrors.NewNotFound(tide.SchemeGroupVersion.WithResource("samples").GroupResource(), name)
	}
	return new(k.api(name, s.clock.Now())), nil
}

// List implements rest.Lister.
func (s *samples) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	all, by := s.of(ctx)
	items, meta, err := page(ctx, all, options)
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	out := &tide.SampleList{ListMeta: meta, Items: make([]tide.Sample, 0, len(items))}
	for _, i := range items {
		out.Items = append(out.Items, by[i].api(i.name, now))
	}
	return out, nil
}

func (k known) api(name string, now time.Time) tide.Sample {
	q, a := k.query, k.answer
	out := tide.Sample{
		Query: tide.SampleQuery{Type: string(q.Kind), Metric: q.Metric, Selector: q.Selector, Object: reference(q.Object), Target: reference(q.Target),
			Collector: q.Collector, Interval: metav1.Duration{Duration: q.Interval}},
		State: a.State.String(), MaxAge: metav1.Duration{Duration: a.MaxAge},
	}
	out.Namespace, out.Name = q.Namespace, name
	if !a.Taken.IsZero() && a.State != sample.Missing {
		out.CreationTimestamp = metav1.NewTime(a.Taken.Truncate(time.Second))
		age := now.Sub(a.Taken)
		for _, p := range a.Points {
			age = max(age, now.Sub(a.Taken)+p.Age)
		}
		out.Age = &metav1.Duration{Duration: max(0, age).Round(time.Millisecond)}
	}
	if len(a.Points) > 0 {
		sum := new(big.Int)
		for _, p := range a.Points {
			sum.Add(sum, big.NewInt(p.Milli))
		}
		out.Value = apiresource.NewMilliQuantity(sum.Quo(sum, big.NewInt(int64(len(a.Points)))).Int64(), apiresource.DecimalSI).String()
	}
	if q.Kind == sample.Pods || q.Kind == sample.Resource {
		pods := map[string]struct{}{}
		for _, p := range a.Points {
			pods[p.Pod] = struct{}{}
		}
		out.Pods = new(int32(len(pods)))
	}
	if a.Cause != nil {
		out.Cause = cut(a.Cause)
	}
	if a.Instead != nil {
		out.Fallback = a.Instead.Stage.String()
	}
	return out
}

func reference(r sample.ObjectRef) string {
	if r == (sample.ObjectRef{}) {
		return ""
	}
	return r.String()
}

// cut bounds an error's text.
func cut(err error) string {
	text := err.Error()
	if len(text) > maxCause {
		text = text[:maxCause] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// ConvertToTable implements rest.TableConvertor.
func (s *samples) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	columns := []metav1.TableColumnDefinition{
		{Name: "Metric", Type: "string", Description: "The name of the metric"},
		{Name: "Type", Type: "string", Description: "The type of the metric"},
		{Name: "Collector", Type: "string", Description: "Who is asked"},
		{Name: "Value", Type: "string", Description: "The value, or the average over the pods"},
		{Name: "State", Type: "string", Description: "Fresh, Stale or Missing"},
		{Name: "Age", Type: "string", Description: "How old the value is"},
		{Name: "Cause", Type: "string", Description: "Why there is no value"},
		{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: "The name of the sample"},
		{Name: "Pods", Type: "string", Priority: 1, Description: "How many pods have a value"},
		{Name: "Selector", Type: "string", Priority: 1, Description: "The metric's label selector"},
	}
	var meta metav1.ListMeta
	var items []tide.Sample
	switch o := object.(type) {
	case *tide.Sample:
		items = []tide.Sample{*o}
	case *tide.SampleList:
		meta, items = o.ListMeta, o.Items
	default:
		return nil, fmt.Errorf("a table of samples out of %T", object)
	}
	rows := make([]metav1.TableRow, 0, len(items))
	for i := range items {
		o := &items[i]
		age, pods := "-", "-"
		if o.Age != nil {
			age = duration.HumanDuration(o.Age.Duration)
		}
		if o.Pods != nil {
			pods = fmt.Sprint(*o.Pods)
		}
		rows = append(rows, row(o, o.Query.Metric, o.Query.Type, o.Query.Collector, dash(o.Value), o.State, age, dash(o.Cause), o.Name, pods, dash(o.Query.Selector)))
	}
	return table(options, meta, columns, rows)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
