package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/clientcmd"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/stability"
)

var hpas = asked{"hpa", "hpa (HorizontalPodAutoscaler)",
	[]string{"horizontalpodautoscaler", "horizontalpodautoscalers", "horizontalpodautoscalers.autoscaling"}}

func (p plugin) metricsCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "metrics", Short: "Show what is collected for autoscalers, and what the metrics APIs answer them",
		Long: `Show what is collected for autoscalers, and what the metrics APIs answer them. What is collected is read from samples.tide.kubetide.io,
for which the role view is enough.`,
	})
	cmd.AddCommand(p.listMetricsCommand(config), p.queryMetricsCommand(config), p.watchMetricsCommand(config))
	return cmd
}

func (p plugin) listMetricsCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [hpa/NAME]", Short: "List the metrics that are collected, of one autoscaler or of the namespace",
		Long: `List the metrics that are collected: the value, how old it is, who is asked, and why there is none. With the name of an HPA or an IHPA
only what it asks for, and what it asks for that Kubetide does not collect.`,
		Example: `  kubectl tide metrics list -n shop
  kubectl tide metrics list hpa/cart -n shop
  kubectl tide metrics list -o json | jq '.items[] | select(.state != "Fresh")'`,
	}
	return p.asks(completes(cmd, config, hpas, ihpas), config, func(args []string) (question, error) {
		of, err := oneMeteredOrAll(cmd, args)
		return func(ctx context.Context, r *reader, as format) error {
			samples, missing, err := r.samples(ctx, of)
			if err != nil {
				return err
			}
			for _, m := range missing {
				p.say(m)
			}
			return show(p, as, samples, printer.samples)
		}, err
	})
}

func (p plugin) watchMetricsCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch [hpa/NAME]", Short: "List the metrics that are collected, again and again",
		Long: `List the metrics that are collected, as list does, again and again until Ctrl-C. A terminal shows the last list only. What fails in between
is said, and asked for again.`,
		Example: `  kubectl tide metrics watch hpa/cart -n shop --interval 1s`,
	}
	interval := cmd.Flags().Duration("interval", 2*time.Second, "Time between two lists, 100ms at least")
	return p.asks(completes(cmd, config, hpas, ihpas), config, func(args []string) (question, error) {
		of, err := oneMeteredOrAll(cmd, args)
		if err == nil && *interval < 100*time.Millisecond {
			err = usageError{fmt.Errorf("--interval must be 100ms at least, not %s", *interval)}
		}
		return func(ctx context.Context, r *reader, as format) error {
			again := time.NewTicker(*interval)
			defer again.Stop()
			for first := true; ; first = false {
				samples, missing, err := r.samples(ctx, of)
				switch {
				case ctx.Err() != nil:
					return nil
				case err != nil && first:
					return err
				case err != nil:
					p.say(err.Error() + "; trying again")
				default:
					p.separate(as, first)
					if err := show(p, as, samples, printer.samples); err != nil {
						return err
					}
					for _, m := range missing {
						p.say(m)
					}
				}
				select {
				case <-ctx.Done():
					return nil
				case <-again.C:
				}
			}
		}, err
	})
}

func (p plugin) queryMetricsCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "query hpa/NAME", Short: "Ask the metrics APIs for the metrics of an HPA, as its controller does",
		Long: `Ask the metrics APIs for the metrics of an HPA, as its controller asks, and show each answer beside the target, or why there is none. It needs
the right to list the metrics in the groups custom.metrics.k8s.io and external.metrics.k8s.io, and for metrics of type Pods the target's scale.
Metrics of type Resource are metrics-server's; kubectl top pods shows those. What an IHPA asks for does not go through these APIs; "kubectl tide
metrics list ihpa/NAME" shows it.`,
		Example: `  kubectl tide metrics query hpa/cart -n shop`,
	}
	return p.asks(completes(cmd, config, hpas), config, func(args []string) (question, error) {
		n, err := name(cmd, args, hpas)
		if ihpa, notOne := name(cmd, args, ihpas); notOne == nil {
			err = usageError{fmt.Errorf("what an IHPA asks for does not go through the metrics APIs: kubectl tide metrics list ihpa/%s shows it", ihpa)}
		}
		return func(ctx context.Context, r *reader, as format) error {
			a, err := r.ask(ctx, metered{hpas, n})
			if err != nil {
				return err
			}
			if err := show(p, as, a, printer.answers); err != nil {
				return err
			}
			if failed := a.failed(); failed > 0 {
				return fmt.Errorf("%d of %d metrics have no answer", failed, len(a.Metrics))
			}
			return nil
		}, err
	})
}

// metered is an object that asks for metrics.
type metered struct {
	of   asked
	name string
}

func oneMeteredOrAll(cmd *cobra.Command, args []string) (metered, error) {
	if len(args) == 0 {
		return metered{}, nil
	}
	of, n, err := oneOf(cmd, args, hpas, ihpas)
	return metered{of, n}, err
}

// specs are the metrics that the object asks for, and what it scales.
func (r *reader) specs(ctx context.Context, of metered) (metrics []autoscalingv2.MetricSpec, target autoscalingv2.CrossVersionObjectReference, err error) {
	if of.of.short == hpas.short {
		o := &autoscalingv2.HorizontalPodAutoscaler{}
		err = r.autoscaling.Get().Namespace(r.namespace).Resource("horizontalpodautoscalers").Name(of.name).Do(ctx).Into(o)
		return o.Spec.Metrics, o.Spec.ScaleTargetRef, err
	}
	o := &kapacity.IntelligentHorizontalPodAutoscaler{}
	err = r.ihpas.Get().Namespace(r.namespace).Resource("intelligenthorizontalpodautoscalers").Name(of.name).Do(ctx).Into(o)
	for _, provider := range o.Spec.PortraitProviders {
		if provider.Dynamic != nil {
			for _, m := range provider.Dynamic.Metrics {
				metrics = append(metrics, m.MetricSpec)
			}
		}
	}
	metrics = append(metrics, stability.Metrics(o.Spec.StabilityCheckers)...)
	ref := o.Spec.ScaleTargetRef
	return metrics, autoscalingv2.CrossVersionObjectReference{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name}, err
}

// samples lists what is collected for the object, or in the namespace if it is none, and says what it asks for that is not collected.
func (r *reader) samples(ctx context.Context, of metered) (*tide.SampleList, []string, error) {
	list := &tide.SampleList{}
	for from := ""; ; {
		page := &tide.SampleList{}
		err := r.decisions.Get().Namespace(r.namespace).Resource(resourceSamples).Param("limit", "500").Param("continue", from).MaxRetries(retries).Do(ctx).Into(page)
		if err != nil {
			return nil, nil, r.advise(err, resourceSamples)
		}
		list.Items = append(list.Items, page.Items...)
		if from = page.Continue; from == "" {
			break
		}
	}
	list.TypeMeta = metav1.TypeMeta{APIVersion: tide.SchemeGroupVersion.String(), Kind: "SampleList"}
	if of.name == "" {
		return list, nil, nil
	}
	specs, target, err := r.specs(ctx, of)
	if err != nil {
		return nil, nil, err
	}
	var missing []string
	all := list.Items
	list.Items = []tide.Sample{}
	listed := map[metric]bool{}
	for _, spec := range specs {
		m := identify(spec)
		m.target = ""
		if listed[m] { // stability checkers often watch what providers follow
			continue
		}
		listed[m] = true
		found := false
		for _, s := range all {
			if m.collects(s.Query, target) {
				list.Items, found = append(list.Items, s), true
			}
		}
		if !found {
			missing = append(missing, m.uncollected(of.of.short))
		}
	}
	return list, missing, nil
}

// metric is what one metric of an autoscaler asks for.
type metric struct {
	kind           sample.Kind
	name, selector string
	object         autoscalingv2.CrossVersionObjectReference // of Object metrics
	target         string
}

// identify reads a spec as the adapter does. What is no spec of its type has no name.
func identify(spec autoscalingv2.MetricSpec) metric {
	m := metric{kind: sample.Kind(spec.Type)}
	identifier := autoscalingv2.MetricIdentifier{}
	var target autoscalingv2.MetricTarget
	switch {
	case spec.External != nil:
		identifier, target = spec.External.Metric, spec.External.Target
	case spec.Pods != nil:
		identifier, target = spec.Pods.Metric, spec.Pods.Target
	case spec.Object != nil:
		identifier, target, m.object = spec.Object.Metric, spec.Object.Target, spec.Object.DescribedObject
	case spec.Resource != nil:
		identifier.Name, target = string(spec.Resource.Name), spec.Resource.Target
	case spec.ContainerResource != nil:
		m.kind = sample.Resource
		identifier.Name, target = string(spec.ContainerResource.Name), spec.ContainerResource.Target
	}
	m.name, m.target = identifier.Name, targetText(target)
	if selector, err := metav1.LabelSelectorAsSelector(identifier.Selector); err == nil && !selector.Empty() && identifier.Selector != nil {
		m.selector = selector.String()
	}
	return m
}

func targetText(t autoscalingv2.MetricTarget) string {
	switch {
	case t.AverageUtilization != nil:
		return fmt.Sprintf("%d%%", *t.AverageUtilization)
	case t.AverageValue != nil:
		return t.AverageValue.String() + " a pod"
	case t.Value != nil:
		return t.Value.String()
	}
	return ""
}

// collects tells whether the query is this metric's, of an autoscaler of the target.
func (m metric) collects(q tide.SampleQuery, target autoscalingv2.CrossVersionObjectReference) bool {
	return m.name != "" && q.Type == string(m.kind) && q.Metric == m.name && q.Selector == m.selector && q.Object == reference(m.object) &&
		(q.Target == "" || q.Target == reference(target))
}

// reference names an object as samples do.
func reference(o autoscalingv2.CrossVersionObjectReference) string {
	if o.Name == "" {
		return ""
	}
	gv, _ := schema.ParseGroupVersion(o.APIVersion)
	return sample.ObjectRef{Group: gv.Group, Kind: o.Kind, Name: o.Name}.String()
}

func (m metric) uncollected(by string) string {
	if m.kind == sample.Resource && by == hpas.short {
		return fmt.Sprintf("metric %s is not collected: metrics-server answers it for HPAs", m.name)
	}
	return fmt.Sprintf("metric %s of type %s is not collected; kubectl describe shows the Events that say why", m.name, m.kind)
}

func (p printer) samples(list *tide.SampleList) error {
	if len(list.Items) == 0 {
		_, err := fmt.Fprintln(p.out, "Nothing is collected.")
		return err
	}
	rows := [][]string{{"METRIC", "TYPE", "COLLECTOR", "VALUE", "PODS", "STATE", "AGE", "MAX AGE", "CAUSE"}}
	for _, s := range list.Items {
		age, state := "-", s.State
		if s.Age != nil {
			age = duration.HumanDuration(s.Age.Duration)
		}
		if s.Fallback != "" {
			state += " (fallback: " + s.Fallback + ")"
		}
		rows = append(rows, []string{s.Query.Metric, s.Query.Type, s.Query.Collector, dash(s.Value), count(s.Pods), state, age,
			duration.HumanDuration(s.MaxAge.Duration), dash(s.Cause)})
	}
	var b strings.Builder
	table(&b, rows)
	_, err := io.WriteString(p.out, trim(b.String()))
	return err
}

// answers are what the metrics APIs say to an autoscaler.
type answers struct {
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Metrics   []served `json:"metrics"`
}

// served is the answer to one metric.
type served struct {
	Metric string `json:"metric"`
	Type   string `json:"type"`
	Target string `json:"target,omitempty"`
	// Path is what was asked for. Empty: it is another's to answer.
	Path   string  `json:"path,omitempty"`
	Values []value `json:"values,omitempty"`
	// Error says why there is no answer.
	Error string `json:"error,omitempty"`
}

type value struct {
	Object string      `json:"object,omitempty"` // of custom metrics
	Value  string      `json:"value"`
	Time   metav1.Time `json:"time"`
}

func (a *answers) failed() (n int) {
	for _, m := range a.Metrics {
		if m.Error != "" {
			n++
		}
	}
	return n
}

// ask asks the metrics APIs for all metrics of the object.
func (r *reader) ask(ctx context.Context, of metered) (*answers, error) {
	specs, target, err := r.specs(ctx, of)
	if err != nil {
		return nil, err
	}
	a := &answers{Kind: "MetricAnswers", Namespace: r.namespace, Name: of.of.short + "/" + of.name, Metrics: []served{}}
	for _, spec := range specs {
		m := identify(spec)
		s := served{Metric: m.name, Type: string(spec.Type), Target: m.target}
		if m.kind != sample.Resource {
			if s.Path, err = r.path(ctx, m, target); err == nil {
				s.Values, err = r.values(ctx, s.Path)
			}
			if err != nil {
				s.Error = err.Error()
			}
		}
		a.Metrics = append(a.Metrics, s)
	}
	return a, nil
}

// path is where the HPA's controller asks for the metric.
func (r *reader) path(ctx context.Context, m metric, target autoscalingv2.CrossVersionObjectReference) (string, error) {
	const external, custom = "/apis/external.metrics.k8s.io/v1beta1/namespaces/", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/"
	query := url.Values{}
	if m.kind == sample.External {
		if m.selector != "" {
			query.Set("labelSelector", m.selector)
		}
		return with(external+r.namespace+"/"+url.PathEscape(m.name), query), nil
	}
	client, err := discovery.NewDiscoveryClientForConfig(r.config)
	if err != nil {
		return "", err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client))
	if m.selector != "" {
		query.Set("metricLabelSelector", m.selector)
	}
	described := target
	if m.kind == sample.Object {
		described = m.object
	}
	gv, err := schema.ParseGroupVersion(described.APIVersion)
	if err != nil {
		return "", err
	}
	mapping, err := mapper.RESTMapping(gv.WithKind(described.Kind).GroupKind())
	if err != nil {
		return "", fmt.Errorf("the cluster does not know the kind %s: %w", described.Kind, err)
	}
	if m.kind == sample.Object {
		scope := r.namespace + "/" + mapping.Resource.GroupResource().String()
		if described.Kind == "Namespace" && gv.Group == "" {
			return with(custom+url.PathEscape(described.Name)+"/metrics/"+url.PathEscape(m.name), query), nil
		}
		if mapping.Scope.Name() == meta.RESTScopeNameRoot {
			return with("/apis/custom.metrics.k8s.io/v1beta2/"+mapping.Resource.GroupResource().String()+"/"+url.PathEscape(described.Name)+"/"+url.PathEscape(m.name), query), nil
		}
		return with(custom+scope+"/"+url.PathEscape(described.Name)+"/"+url.PathEscape(m.name), query), nil
	}
	scales, err := scale.NewForConfig(r.config, mapper, dynamicPath, scale.NewDiscoveryScaleKindResolver(client))
	if err != nil {
		return "", err
	}
	current, err := scales.Scales(r.namespace).Get(ctx, mapping.Resource.GroupResource(), described.Name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("scale of %s: %w", reference(described), err)
	}
	if current.Status.Selector == "" {
		return "", fmt.Errorf("the scale of %s has no selector", reference(described))
	}
	query.Set("labelSelector", current.Status.Selector)
	return with(custom+r.namespace+"/pods/*/"+url.PathEscape(m.name), query), nil
}

func dynamicPath(kind schema.GroupVersionKind) string {
	if kind.Group == "" {
		return "/api"
	}
	return "/apis"
}

func with(path string, query url.Values) string {
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// values reads an answer of either of the metrics APIs.
func (r *reader) values(ctx context.Context, path string) ([]value, error) {
	// The fields of both APIs' lists.
	var list struct {
		Items []struct {
			DescribedObject struct{ Kind, Name string }
			Value           string
			Timestamp       metav1.Time
		}
	}
	result := r.decisions.Get().RequestURI(path).Do(ctx)
	err := result.Error() // as the API says it
	if err == nil {
		raw, _ := result.Raw()
		err = json.Unmarshal(raw, &list)
	}
	switch {
	case apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse):
		group, _, _ := strings.Cut(strings.TrimPrefix(path, "/apis/"), "/")
		return nil, fmt.Errorf("the cluster does not serve %s; `kubectl get apiservices` says who should (%w)", group, err)
	case err != nil:
		return nil, err
	case len(list.Items) == 0:
		return nil, errors.New("an empty list")
	}
	var out []value
	for _, i := range list.Items {
		v := value{Value: i.Value, Time: i.Timestamp}
		if i.DescribedObject.Name != "" {
			v.Object = i.DescribedObject.Kind + "/" + i.DescribedObject.Name
		}
		out = append(out, v)
	}
	return out, nil
}

func (p printer) answers(a *answers) error {
	rows := [][]string{{"METRIC", "TYPE", "TARGET", "OBJECT", "VALUE", "AGE", "ERROR"}}
	for _, m := range a.Metrics {
		switch {
		case m.Error != "":
			rows = append(rows, []string{m.Metric, m.Type, dash(m.Target), "-", "-", "-", m.Error})
		case m.Path == "":
			rows = append(rows, []string{m.Metric, m.Type, dash(m.Target), "-", "-", "-", "metrics-server's"})
		}
		for _, v := range m.Values {
			rows = append(rows, []string{m.Metric, m.Type, dash(m.Target), dash(v.Object), v.Value, duration.HumanDuration(p.now.Sub(v.Time.Time)), ""})
		}
	}
	var b strings.Builder
	table(&b, rows)
	_, err := io.WriteString(p.out, trim(b.String()))
	return err
}
