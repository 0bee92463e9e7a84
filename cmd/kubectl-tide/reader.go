package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// retries is how often a replica is asked again that says when to come back.
const retries = 2

const (
	// tries is how often is asked while replicas answer that do not lead: the API server chooses one anew each time. Of three replicas,
	// all of the tries miss the leader in one of 3,000 cases.
	tries = 20
	pause = 50 * time.Millisecond
)

// viewer is the role that lets people read decisions.
const viewer = "kubetide-decisions-viewer"

// reader asks the API server in one namespace.
type reader struct {
	decisions, ihpas, stackSets, apps, autoscaling rest.Interface
	namespace                                      string
	config                                         *rest.Config // of the caller
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	builder := runtime.NewSchemeBuilder(tide.AddToScheme, kapacity.AddToScheme, zalando.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme)
	return scheme, builder.AddToScheme(scheme)
}

func newReader(kubeconfig clientcmd.ClientConfig) (*reader, error) {
	namespace, _, err := kubeconfig.Namespace()
	if err != nil {
		return nil, err
	}
	config, err := kubeconfig.ClientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kubectl-tide/" + version()
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	r := &reader{namespace: namespace, config: config}
	for gv, to := range map[schema.GroupVersion]*rest.Interface{tide.SchemeGroupVersion: &r.decisions, kapacity.SchemeGroupVersion: &r.ihpas,
		zalando.SchemeGroupVersion: &r.stackSets, appsv1.SchemeGroupVersion: &r.apps, autoscalingv2.SchemeGroupVersion: &r.autoscaling} {
		config := rest.CopyConfig(config)
		config.APIPath, config.GroupVersion, config.NegotiatedSerializer = "/apis", &gv, codecs
		client, err := rest.RESTClientFor(config)
		if err != nil {
			return nil, err
		}
		*to = client
	}
	return r, nil
}

// explain returns the explanation, and a note where it is not the whole one.
func (r *reader) explain(ctx context.Context, name string) (d *tide.Decision, note string, err error) {
	d = &tide.Decision{}
	err = fromLeader(ctx, r.decisions.Get().Namespace(r.namespace).Resource("decisions").Name(name), d)
	if err == nil {
		d.TypeMeta = metav1.TypeMeta{APIVersion: tide.SchemeGroupVersion.String(), Kind: "Decision"}
		return d, "", nil
	}
	cause := r.advise(err, resourceDecisions)
	o := &kapacity.IntelligentHorizontalPodAutoscaler{}
	switch err := r.ihpas.Get().Namespace(r.namespace).Resource("intelligenthorizontalpodautoscalers").Name(name).Do(ctx).Into(o); {
	case apierrors.IsNotFound(err):
		return nil, "", fmt.Errorf("there is no %s %s/%s", kapacity.IHPAKind, r.namespace, name)
	case err != nil:
		return nil, "", fmt.Errorf("%w; and its status can't be read: %w", cause, err)
	case o.Status.LastDecision == nil:
		return nil, "", fmt.Errorf("%w; and its status has no decision yet", cause)
	}
	return fromStatus(o), fmt.Sprintf("%v; this is the last decision that the object's status has, without the metrics", cause), nil
}

func (r *reader) history(ctx context.Context, name string, limit uint32) (*tide.DecisionHistory, error) {
	h := &tide.DecisionHistory{}
	err := fromLeader(ctx, r.decisions.Get().Namespace(r.namespace).Resource("decisions").Name(name).SubResource("history").
		Param("limit", strconv.FormatUint(uint64(limit), 10)), h)
	if err != nil {
		return nil, r.advise(err, resourceDecisions)
	}
	h.TypeMeta = metav1.TypeMeta{APIVersion: tide.SchemeGroupVersion.String(), Kind: "DecisionHistory"}
	return h, nil
}

// fromLeader asks until the replica answers that takes the decisions.
func fromLeader(ctx context.Context, request *rest.Request, into runtime.Object) (err error) {
	for try := range tries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return err
			case <-time.After(pause):
			}
		}
		if err = request.MaxRetries(0).Do(ctx).Into(into); !notLeading(err) {
			return err
		}
	}
	return err
}

// notLeading says whether a replica without decisions has answered.
func notLeading(err error) bool {
	return apierrors.IsServiceUnavailable(err) && strings.Contains(err.Error(), "replica")
}

// The resources of the group.
const resourceDecisions, resourceSamples = "decisions", "samples"

// advise says what to do about an error of the group.
func (r *reader) advise(err error, resource string) error {
	const service = "v1alpha1.tide.kubetide.io"
	status := apierrors.APIStatus(nil)
	errors.As(err, &status)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not read %s in namespace %s: somebody has to bind the ClusterRole %s, or view, to you there (%w)", resource, r.namespace, viewer, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not know you: log in, or look at your kubeconfig (%w)", err)
	case apierrors.IsNotFound(err) && ours(status, resource):
		return err
	case apierrors.IsNotFound(err):
		return fmt.Errorf("the cluster does not serve %s: Kubetide is not installed there, or without what answers this, or is an older one", tide.SchemeGroupVersion)
	case notLeading(err):
		return err
	case apierrors.IsServiceUnavailable(err):
		return fmt.Errorf("the service behind %s does not answer; `kubectl get apiservice %s` says why (%w)", tide.SchemeGroupVersion.Group, service, err)
	}
	return err
}

// ours says whether the error is Kubetide's and not the API server's, which does not know the group.
func ours(status apierrors.APIStatus, resource string) bool {
	return status != nil && status.Status().Details != nil && status.Status().Details.Kind == resource && len(status.Status().Details.Causes) == 0
}

// fromStatus is the explanation as far as the object's status has it.
func fromStatus(o *kapacity.IntelligentHorizontalPodAutoscaler) *tide.Decision {
	last := o.Status.LastDecision
	d := &tide.Decision{TypeMeta: metav1.TypeMeta{APIVersion: tide.SchemeGroupVersion.String(), Kind: "Decision"}, ObjectKind: kapacity.IHPAKind}
	d.Namespace, d.Name, d.CreationTimestamp = o.Namespace, o.Name, metav1.NewTime(last.Time.Time)
	d.Decision = tide.Record{Time: last.Time, Trigger: last.Trigger, Result: last.Result, Next: last.Next, NextCause: last.NextCause, Counterfactuals: last.Counterfactuals, Truncated: last.Truncated}
	for _, c := range last.Candidates {
		d.Decision.Candidates = append(d.Decision.Candidates, tide.Candidate{Provider: c.Provider, Priority: c.Priority, Replicas: c.Replicas,
			Expires: c.Expires, Chosen: c.Chosen, Failed: c.Failed, Reason: c.Reason})
	}
	for _, s := range last.Steps {
		d.Decision.Steps = append(d.Decision.Steps, tide.Step{Stage: s.Stage, Replicas: s.Replicas, Reason: s.Reason})
	}
	return d
}
