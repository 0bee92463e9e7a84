package tideapi

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
)

// retryAfter is when a reader may ask again who asked a replica that does not lead, in seconds.
const retryAfter = 1

type decisions struct {
	resource
	source Decisions
	clock  clock.PassiveClock
}

var (
	_ rest.Getter               = (*decisions)(nil)
	_ rest.Lister               = (*decisions)(nil)
	_ rest.Scoper               = (*decisions)(nil)
	_ rest.SingularNameProvider = (*decisions)(nil)
	_ rest.GetterWithOptions    = (*history)(nil)
	_ rest.TableConvertor       = (*history)(nil)
)

// New implements rest.Storage.
func (*decisions) New() runtime.Object { return &tide.Decision{} }

// NewList implements rest.Lister.
func (*decisions) NewList() runtime.Object { return &tide.DecisionList{} }

// GetSingularName implements rest.SingularNameProvider.
func (*decisions) GetSingularName() string { return "decision" }

// leads is nil in the process that takes the decisions; in others it says who does.
func (d *decisions) leads(ctx context.Context) error {
	if d.source.Leads() {
		return nil
	}
	leader, err := d.source.Leader(ctx)
	text := "this replica takes no decisions and has no records of them; the one that leads is " + leader
	switch {
	case err != nil:
		text = fmt.Sprintf("this replica takes no decisions and has no records of them; which one does can't be read: %v", err)
	case leader == "":
		text = "no replica takes decisions now: nobody holds the Lease"
	}
	out := apierrors.NewServiceUnavailable(text)
	out.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
	return out
}

// records returns what is known about one object, oldest first, at least one.
func (d *decisions) records(ctx context.Context, name string) ([]decision.Record, error) {
	if err := d.leads(ctx); err != nil {
		return nil, err
	}
	key := decision.Object{Kind: kapacity.IHPAKind, Namespace: request.NamespaceValue(ctx), Name: name}
	records := d.source.Log.Of(key)
	if len(records) == 0 {
		out := apierrors.NewNotFound(tide.SchemeGroupVersion.WithResource("decisions").GroupResource(), name)
		out.ErrStatus.Message = fmt.Sprintf("nothing has been decided about %s since this leader began, or there is no such object", key)
		return nil, out
	}
	return records, nil
}

// Get implements rest.Getter.
func (d *decisions) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	records, err := d.records(ctx, name)
	if err != nil {
		return nil, err
	}
	return new(decision.Explain(records[len(records)-1], d.source.Portraits)), nil
}

// List implements rest.Lister.
func (d *decisions) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if err := d.leads(ctx); err != nil {
		return nil, err
	}
	var all []item
	for _, o := range d.source.Log.Objects() {
		if o.Kind == kapacity.IHPAKind {
			all = append(all, item{o.Namespace, o.Name})
		}
	}
	items, meta, err := page(ctx, all, options)
	if err != nil {
		return nil, err
	}
	out := &tide.DecisionList{ListMeta: meta, Items: make([]tide.Decision, 0, len(items))}
	for _, i := range items {
		last, ok := d.source.Log.Last(decision.Object{Kind: kapacity.IHPAKind, Namespace: i.namespace, Name: i.name})
		if ok { // it may just have been deleted
			out.Items = append(out.Items, decision.Explain(last, d.source.Portraits))
		}
	}
	return out, nil
}

// ConvertToTable implements rest.TableConvertor.
func (d *decisions) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	columns := []metav1.TableColumnDefinition{
		{Name: "Object", Type: "string", Format: "name", Description: "The object that was decided about"},
		{Name: "Result", Type: "string", Description: "What came out"},
		{Name: "Age", Type: "string", Description: "How long ago"},
		{Name: "Reason", Type: "string", Description: "Why: the last stage that said so"},
		{Name: "Trigger", Type: "string", Priority: 1, Description: "What made the controller look"},
		{Name: "Next", Type: "string", Priority: 1, Description: "When the object is looked at again"},
	}
	var meta metav1.ListMeta
	var items []tide.Decision
	switch o := object.(type) {
	case *tide.Decision:
		items = []tide.Decision{*o}
	case *tide.DecisionList:
		meta, items = o.ListMeta, o.Items
	default:
		return nil, fmt.Errorf("a table of decisions out of %T", object)
	}
	now := d.clock.Now()
	rows := make([]metav1.TableRow, 0, len(items))
	for i := range items {
		r := items[i].Decision
		next := "-"
		if r.Next != nil {
			next = r.Next.UTC().Format(time.TimeOnly)
		}
		rows = append(rows, row(&items[i], items[i].Name, r.Result, duration.HumanDuration(now.Sub(r.Time.Time)), reason(r), r.Trigger, next))
	}
	return table(options, meta, columns, rows)
}

// reason is that of the last stage that changed the number, else of the first one.
func reason(r tide.Record) string {
	for i := len(r.Steps) - 1; i > 0; i-- {
		if r.Steps[i].Replicas != r.Steps[i-1].Replicas {
			return r.Steps[i].Stage + ": " + r.Steps[i].Reason
		}
	}
	if len(r.Steps) > 0 {
		return r.Steps[0].Stage + ": " + r.Steps[0].Reason
	}
	return ""
}

// history is the subresource with the last records.
type history struct {
	resource
	of *decisions
}

// New implements rest.Storage.
func (*history) New() runtime.Object { return &tide.DecisionHistory{} }

// NewGetOptions implements rest.GetterWithOptions.
func (*history) NewGetOptions() (runtime.Object, bool, string) {
	return &tide.HistoryOptions{}, false, ""
}

// Get implements rest.GetterWithOptions.
func (h *history) Get(ctx context.Context, name string, options runtime.Object) (runtime.Object, error) {
	records, err := h.of.records(ctx, name)
	if err != nil {
		return nil, err
	}
	if o, ok := options.(*tide.HistoryOptions); ok && o.Limit > 0 {
		records = records[max(0, len(records)-int(o.Limit)):]
	}
	out := &tide.DecisionHistory{ObjectKind: kapacity.IHPAKind, Decisions: make([]tide.Record, 0, len(records))}
	out.Namespace, out.Name = request.NamespaceValue(ctx), name
	for _, r := range records {
		out.Decisions = append(out.Decisions, r.API())
	}
	return out, nil
}

// ConvertToTable implements rest.TableConvertor.
func (h *history) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	o, ok := object.(*tide.DecisionHistory)
	if !ok {
		return nil, fmt.Errorf("a table of a history out of %T", object)
	}
	now := h.of.clock.Now()
	rows := make([]metav1.TableRow, 0, len(o.Decisions))
	for _, r := range o.Decisions {
		rows = append(rows, row(&tide.Decision{ObjectMeta: o.ObjectMeta},
			r.Time.UTC().Format(time.RFC3339), duration.HumanDuration(now.Sub(r.Time.Time)), r.Result, r.Trigger, reason(r)))
	}
	return table(options, metav1.ListMeta{}, []metav1.TableColumnDefinition{
		{Name: "Time", Type: "string"}, {Name: "Age", Type: "string"}, {Name: "Result", Type: "string"}, {Name: "Trigger", Type: "string"}, {Name: "Reason", Type: "string"},
	}, rows)
}
