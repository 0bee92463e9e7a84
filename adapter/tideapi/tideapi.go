// Package tideapi is the storage of the read-only API group tide.kubetide.io: decisions, from the engine's records, and
// samples, from the adapter's store. It reads memory only and writes nothing; who may read is asked by the server that it is
// installed in.
package tideapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/utils/clock"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
)

// Scheme knows the kinds of the group, for the OpenAPI documents of the server.
var Scheme = runtime.NewScheme()

var codecs = serializer.NewCodecFactory(Scheme)

func init() {
	utilruntime.Must(tide.AddToScheme(Scheme))
	utilruntime.Must(Scheme.AddConversionFunc((*url.Values)(nil), (*tide.HistoryOptions)(nil), func(a, b any, scope conversion.Scope) error {
		return tide.ConvertURLValues(a.(*url.Values), b.(*tide.HistoryOptions), scope)
	}))
	metav1.AddToGroupVersion(Scheme, schema.GroupVersion{Version: "v1"}) // the library's own options and errors
	Scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
}

// Decisions are the records that this process has. Only the leader has any that are current.
type Decisions struct {
	Log       *decision.Log
	Portraits *decision.Portraits
	// Leads says whether this process takes the decisions.
	Leads func() bool
	// Leader names the process that does, as its Lease has it; empty if nobody does. It may ask the API server.
	Leader func(ctx context.Context) (string, error)
}

// Samples gives all that is asked for, as adapter/store.Store does.
type Samples interface {
	Each(f func(sample.Query, sample.Answer))
}

// Options are what the group is made of. What is nil is not served.
type Options struct {
	Decisions *Decisions
	Samples   Samples
	// Clock is the one that the samples' times are of.
	Clock clock.PassiveClock
}

// Group returns what a generic API server installs.
func Group(o Options) *genericapiserver.APIGroupInfo {
	info := genericapiserver.NewDefaultAPIGroupInfo(tide.SchemeGroupVersion.Group, Scheme, runtime.NewParameterCodec(Scheme), codecs)
	storage := map[string]rest.Storage{}
	if o.Decisions != nil {
		d := &decisions{source: *o.Decisions, clock: o.Clock}
		storage["decisions"], storage["decisions/history"] = d, &history{of: d}
	}
	if o.Samples != nil {
		storage["samples"] = &samples{source: o.Samples, clock: o.Clock}
	}
	info.VersionedResourcesStorageMap[tide.SchemeGroupVersion.Version] = storage
	return &info
}

// item is one object of a list by its address.
type item struct{ namespace, name string }

func compare(a, b item) int {
	return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.name, b.name))
}

func (i item) String() string { return i.namespace + "/" + i.name }

// page sorts the items and returns those that a list asks for: of the request's namespace, selected, from its continue token
// on, at most its limit. What is installed here has no labels.
func page(ctx context.Context, all []item, o *internalversion.ListOptions) (items []item, meta metav1.ListMeta, err error) {
	if o == nil {
		o = &internalversion.ListOptions{}
	}
	var from item
	if o.Continue != "" {
		raw, err := base64.RawURLEncoding.DecodeString(o.Continue)
		namespace, name, ok := strings.Cut(string(raw), "/")
		if err != nil || !ok {
			return nil, meta, apierrors.NewBadRequest("the continue token is none that this API gave")
		}
		from = item{namespace, name}
	}
	namespace := request.NamespaceValue(ctx)
	for _, i := range all {
		switch {
		case namespace != "" && i.namespace != namespace, compare(i, from) < 0,
			o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set{}),
			o.FieldSelector != nil && !o.FieldSelector.Matches(fields.Set{"metadata.name": i.name, "metadata.namespace": i.namespace}):
		default:
			items = append(items, i)
		}
	}
	slices.SortFunc(items, compare)
	if limit := int(o.Limit); limit > 0 && limit < len(items) {
		meta.Continue = base64.RawURLEncoding.EncodeToString([]byte(items[limit].String()))
		meta.RemainingItemCount = new(int64(len(items) - limit))
		items = items[:limit]
	}
	return items, meta, nil
}

// resource is what all resources of the group have in common.
type resource struct{}

// NamespaceScoped implements rest.Scoper.
func (resource) NamespaceScoped() bool { return true }

// Destroy implements rest.Storage.
func (resource) Destroy() {}

// table makes a table of the rows; meta is the list's, if it is one.
func table(options runtime.Object, meta metav1.ListMeta, columns []metav1.TableColumnDefinition, rows []metav1.TableRow) (*metav1.Table, error) {
	t := &metav1.Table{ListMeta: meta, Rows: rows}
	switch o := options.(type) {
	case nil:
		t.ColumnDefinitions = columns
	case *metav1.TableOptions:
		if o == nil || !o.NoHeaders {
			t.ColumnDefinitions = columns
		}
	default:
		return nil, fmt.Errorf("table options of type %T", options)
	}
	return t, nil
}

func row(o runtime.Object, cells ...any) metav1.TableRow {
	return metav1.TableRow{Cells: cells, Object: runtime.RawExtension{Object: o}}
}
