package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/pager"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/cmd/kubectl-tide/doctor"
)

func (p plugin) doctorCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Find what makes scaling go wrong",
		Long: `Find what makes scaling go wrong: autoscalers that fail, that share a target or its pods, that follow a percentage of requests which the pods
do not have or which their limits keep out of reach, or whose replicas somebody else writes; windows that never open, and schedules that
are over; disruption budgets that block drains, and quotas that are too small; metrics APIs that do not answer. It reads with the caller's
own rights, and says what it could not read and so did not look at. ClusterScalingSchedules are looked at with --all-namespaces.

Exit codes: 0 if nothing that was found is an error, 1 if something is or nothing could be read, 2 if the command line is wrong.`,
		Example: `  kubectl tide doctor -n shop
  kubectl tide doctor -A -o json | jq '.findings[] | select(.severity == "error")'`,
	}
	all := cmd.Flags().BoolP("all-namespaces", "A", false, "Look at all namespaces")
	return p.asks(cmd, config, func(args []string) (question, error) {
		if len(args) > 0 {
			return nil, usageError{fmt.Errorf("%s takes no arguments, only -n and -A; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
		}
		return func(ctx context.Context, r *reader, as format) error {
			namespace := r.namespace
			if *all {
				namespace = metav1.NamespaceAll
			}
			d, err := r.diagnose(ctx, namespace, p.clock.Now())
			if err != nil {
				return err
			}
			if err := show(p, as, d, printer.diagnosis); err != nil {
				return err
			}
			if !d.read {
				return errors.New("nothing could be read")
			}
			if n := d.errors(); n > 0 {
				return fmt.Errorf("findings that are errors: %d", n)
			}
			return nil
		}, nil
	})
}

// diagnosis is what was found in a namespace, or in all.
type diagnosis struct {
	Kind      string           `json:"kind"`
	Namespace string           `json:"namespace,omitempty"`
	Findings  []doctor.Finding `json:"findings"`
	Unseen    []unseen         `json:"unseen"`

	read bool // something could be
}

// unseen is what could not be read.
type unseen struct {
	Verb      string `json:"verb"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace,omitempty"`
	Message   string `json:"message"`
}

func (d *diagnosis) errors() (n int) {
	for _, f := range d.Findings {
		if f.Severity == doctor.Error {
			n++
		}
	}
	return n
}

func (r *reader) diagnose(ctx context.Context, namespace string, now time.Time) (*diagnosis, error) {
	config := rest.CopyConfig(r.config)
	config.QPS, config.Burst = 50, 300 // as kubectl
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	l := &looker{client: client, namespace: namespace, unseen: []unseen{}}
	facts := l.facts(ctx)
	if err := cmp.Or(l.unreachable, ctx.Err()); err != nil {
		return nil, err
	}
	slices.SortFunc(l.unseen, func(a, b unseen) int { return cmp.Compare(a.Message, b.Message) })
	return &diagnosis{Kind: "Diagnosis", Namespace: namespace, Findings: doctor.Examine(facts, now), Unseen: l.unseen, read: l.read}, nil
}

// looker reads what it may, and remembers what it may not.
type looker struct {
	client    dynamic.Interface
	namespace string
	unseen    []unseen
	read      bool
	// unreachable is why no API server answers, and none is asked any more.
	unreachable error
}

func (l *looker) facts(ctx context.Context) (f doctor.Facts) {
	f.HPAs = list[autoscalingv2.HorizontalPodAutoscaler](ctx, l, autoscalingv2.SchemeGroupVersion.WithResource("horizontalpodautoscalers"))
	f.IHPAs = list[kapacity.IntelligentHorizontalPodAutoscaler](ctx, l, kapacity.SchemeGroupVersion.WithResource("intelligenthorizontalpodautoscalers"))
	for _, resource := range []string{"deployments", "statefulsets", "replicasets"} {
		f.Workloads = append(f.Workloads, list[doctor.Workload](ctx, l, appsv1.SchemeGroupVersion.WithResource(resource))...)
	}
	f.Workloads = slices.DeleteFunc(f.Workloads, func(w doctor.Workload) bool { // these are parts of Deployments
		return w.Kind == "ReplicaSet" && metav1.GetControllerOfNoCopy(&w) != nil
	})
	f.Budgets = list[policyv1.PodDisruptionBudget](ctx, l, policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"))
	f.Quotas = list[corev1.ResourceQuota](ctx, l, corev1.SchemeGroupVersion.WithResource("resourcequotas"))
	f.LimitRanges = list[corev1.LimitRange](ctx, l, corev1.SchemeGroupVersion.WithResource("limitranges"))
	f.Schedules = list[zalando.ScalingSchedule](ctx, l, zalando.SchemeGroupVersion.WithResource("scalingschedules"))
	if l.namespace == metav1.NamespaceAll {
		f.ClusterSchedules = list[zalando.ClusterScalingSchedule](ctx, l, zalando.SchemeGroupVersion.WithResource("clusterscalingschedules"))
	}
	f.APIServices = l.apiServices(ctx)
	return f
}

// list returns what there is of a resource in the namespace; nil if it could not be read. Where our CRDs are not installed there is nothing.
func list[T any](ctx context.Context, l *looker, resource schema.GroupVersionResource) []T {
	if l.unreachable != nil {
		return nil
	}
	out := []T{}
	err := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return l.client.Resource(resource).Namespace(l.namespace).List(ctx, o)
	}).EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		item, err := typed[T](o.(*unstructured.Unstructured))
		out = append(out, item)
		return err
	})
	if apierrors.IsNotFound(err) && (resource.Group == kapacity.SchemeGroupVersion.Group || resource.Group == zalando.SchemeGroupVersion.Group) {
		return out
	}
	if !l.saw("list", resource.GroupResource(), l.namespace, err) {
		return nil
	}
	return out
}

func (l *looker) apiServices(ctx context.Context) map[string]*doctor.APIService {
	resource := schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	out := map[string]*doctor.APIService{}
	for _, name := range doctor.APIServices() {
		if l.unreachable != nil {
			break
		}
		o, err := l.client.Resource(resource).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			out[name] = nil
			continue
		}
		var service doctor.APIService
		if err == nil {
			service, err = typed[doctor.APIService](o)
		}
		if !l.saw("get", resource.GroupResource(), "", err) {
			break
		}
		out[name] = &service
	}
	return out
}

func typed[T any](o *unstructured.Unstructured) (out T, err error) {
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &out)
	return out, err
}

// saw notes the outcome of reading.
func (l *looker) saw(verb string, resource schema.GroupResource, namespace string, err error) bool {
	if err == nil {
		l.read = true
		return true
	}
	if failed := (*url.Error)(nil); !l.read && errors.As(err, &failed) {
		l.unreachable = err
		return false
	}
	where := ""
	switch {
	case namespace != "":
		where = " in namespace " + namespace
	case verb == "list":
		where = " in all namespaces"
	}
	message := fmt.Sprintf("%s%s can't be read: %v", resource, where, err)
	if apierrors.IsForbidden(err) {
		message = fmt.Sprintf("you may not %s %s%s", verb, resource, where)
	}
	l.unseen = append(l.unseen, unseen{verb, resource.String(), namespace, message})
	return false
}

func (p printer) diagnosis(d *diagnosis) error {
	var b strings.Builder
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%-8s %s: %s\n%-8s %s\n", strings.ToUpper(string(f.Severity)), printable(f.Object.String()), printable(f.Problem), "", printable(f.Remedy))
	}
	if len(d.Findings) == 0 && d.read {
		b.WriteString("Nothing was found.\n")
	}
	if len(d.Unseen) > 0 && b.Len() > 0 {
		b.WriteString("\n")
	}
	if len(d.Unseen) > 0 {
		b.WriteString("Not looked at:\n")
	}
	for _, u := range d.Unseen {
		fmt.Fprintf(&b, "! %s\n", printable(u.Message))
	}
	_, err := io.WriteString(p.out, trim(b.String()))
	return err
}
