package step

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// world is an API server without defaults or validation, with what a test adds of them.
type world struct {
	client.WithWatch
	// writes are those of the controllers, status aside.
	writes []string
	// admit changes or refuses what is written.
	admit func(client.Object) error
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kai.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{admit: func(client.Object) error { return nil }}
	store := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&kai.Step{}, &kai.Pipeline{}).Build()
	w.WithWatch = interceptor.NewClient(store, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			w.writes = append(w.writes, "create "+kindOf(o)+" "+o.GetName())
			if err := w.admit(o); err != nil {
				return err
			}
			o.SetUID(types.UID(kindOf(o) + "/" + o.GetName()))
			return c.Create(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			w.writes = append(w.writes, "patch "+kindOf(o)+" "+o.GetName())
			if err := c.Patch(ctx, o, patch, opts...); err != nil {
				return err
			}
			if err := w.admit(o); err != nil {
				return err
			}
			return c.Update(ctx, o)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			w.writes = append(w.writes, "delete "+kindOf(o)+" "+o.GetName())
			return c.Delete(ctx, o, opts...)
		},
	})
	return w
}

// cached sees of children what carries the label of a Step, as the controllers' cache does.
func (w *world) cached() client.Client {
	return interceptor.NewClient(w, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if err := c.Get(ctx, key, o, opts...); err != nil {
			return err
		}
		if _, labelled := o.GetLabels()[kai.StepLabel]; !labelled && !strings.HasPrefix(kindOf(o), "Step") && kindOf(o) != "Pipeline" {
			return apierrors.NewNotFound(schema.GroupResource{Resource: kindOf(o)}, key.Name)
		}
		return nil
	}})
}

func (w *world) steps() *steps {
	return &steps{children: children{client: w.cached(), direct: w, recorder: record.NewFakeRecorder(100), owners: stepOwners}}
}

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "default", Name: name}}
}

// reconcile returns what was written of the Step's objects.
func (w *world) reconcile(t *testing.T, r reconcile.Reconciler, name string) []string {
	t.Helper()
	w.writes = nil
	if _, err := r.Reconcile(t.Context(), request(name)); err != nil {
		t.Fatal(err)
	}
	slices.Sort(w.writes)
	return w.writes
}

func (w *world) get(t *testing.T, name string, o client.Object) {
	t.Helper()
	if err := w.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, o); err != nil {
		t.Fatal(err)
	}
}

func wantWrites(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func (w *world) condition(t *testing.T, name, kind string) metav1.Condition {
	t.Helper()
	s := &kai.Step{}
	w.get(t, name, s)
	c := apimeta.FindStatusCondition(s.Status.Conditions, kind)
	if c == nil {
		t.Fatalf("no condition %s in %v", kind, s.Status.Conditions)
	}
	return *c
}

func TestAStepIsMadeAndThenLeftAlone(t *testing.T) {
	w := newWorld(t, newStep(t, ""))
	r := w.steps()
	wantWrites(t, w.reconcile(t, r, "http-echo"), "create Deployment http-echo-deployment", "create HorizontalPodAutoscaler http-echo-hpa", "create Service http-echo-service")
	wantWrites(t, w.reconcile(t, r, "http-echo"))
}

// What Kai made has its labels and owner, the defaults of the API server, and annotations that it copied.
func TestWhatKaiMadeIsAdoptedWithoutAWrite(t *testing.T) {
	step := newStep(t, "maxReplicas: 4")
	step.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "new"}
	made := served(t, generate(t, step))
	for _, o := range []client.Object{made.Deployment, made.Service, made.HPA} {
		o.SetAnnotations(map[string]string{corev1.LastAppliedConfigAnnotation: "old"})
	}
	made.Deployment.Spec.Template.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "old", "kubectl.kubernetes.io/restartedAt": "now"}
	made.Deployment.Spec.Replicas = ptr.To[int32](3)
	w := newWorld(t, step, made.Deployment, made.Service, made.HPA)
	wantWrites(t, w.reconcile(t, w.steps(), "http-echo"))
}

func TestAServiceThatIsRefusedKeepsNothingElseFromBeingMade(t *testing.T) {
	w := newWorld(t, newStep(t, ""))
	w.admit = func(o client.Object) error {
		if _, ok := o.(*corev1.Service); ok {
			return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, o.GetName(), field.ErrorList{field.Invalid(field.NewPath("spec", "ports"), 1, "no")})
		}
		return nil
	}
	w.reconcile(t, w.steps(), "http-echo")
	if len(w.writes) != 3 {
		t.Errorf("writes %v", w.writes)
	}
	if c := w.condition(t, "http-echo", kai.ConditionInvalid); c.Status != metav1.ConditionTrue || c.Reason != ReasonRefused || !strings.Contains(c.Message, "spec.ports") {
		t.Errorf("condition %+v", c)
	}
}

// A webhook that adds to Deployments what no Step asks for is no drift for ever.
func TestWhatAWebhookAddsIsWrittenOnce(t *testing.T) {
	w := newWorld(t, newStep(t, ""))
	w.admit = func(o client.Object) error {
		if d, ok := o.(*appsv1.Deployment); ok && len(d.Spec.Template.Spec.Containers) == 1 {
			d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, corev1.Container{Name: "sidecar"})
		}
		return nil
	}
	r := w.steps()
	w.reconcile(t, r, "http-echo")
	wantWrites(t, w.reconcile(t, r, "http-echo"))
	// A new process does not know; one write tells it.
	r = w.steps()
	wantWrites(t, w.reconcile(t, r, "http-echo"), "patch Deployment http-echo-deployment")
	wantWrites(t, w.reconcile(t, r, "http-echo"))
	// Drift beside it is still seen.
	d := &appsv1.Deployment{}
	w.get(t, "http-echo-deployment", d)
	d.Spec.Template.Spec.Containers[0].Image = "other"
	if err := w.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	wantWrites(t, w.reconcile(t, r, "http-echo"), "patch Deployment http-echo-deployment")
	w.get(t, "http-echo-deployment", d)
	if image := d.Spec.Template.Spec.Containers[0].Image; image != "hashicorp/http-echo" {
		t.Errorf("the image is %s", image)
	}
}

func TestADeploymentThatLostItsLabelKeepsItsReplicas(t *testing.T) {
	w := newWorld(t, newStep(t, ""))
	r := w.steps()
	w.reconcile(t, r, "http-echo")
	d := &appsv1.Deployment{}
	w.get(t, "http-echo-deployment", d)
	d.Spec.Replicas = ptr.To[int32](7)
	delete(d.Labels, kai.StepLabel)
	if err := w.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	wantWrites(t, w.reconcile(t, r, "http-echo"), "create Deployment http-echo-deployment", "patch Deployment http-echo-deployment")
	w.get(t, "http-echo-deployment", d)
	if *d.Spec.Replicas != 7 || d.Labels[kai.StepLabel] != "http-echo" {
		t.Errorf("%d replicas, labels %v", *d.Spec.Replicas, d.Labels)
	}
}

func TestWhatBelongsToOthersIsLeftAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		labels map[string]string
		owner  *metav1.OwnerReference
		reason string
	}{
		"nobody's, without the label": {nil, nil, ReasonNameTaken},
		"another controller's":        {map[string]string{kai.StepLabel: "http-echo"}, &metav1.OwnerReference{APIVersion: "a/v1", Kind: "Other", Name: "x", UID: "x", Controller: ptr.To(true)}, ReasonNameTaken},
		"an earlier Step's": {map[string]string{kai.StepLabel: "http-echo"}, &metav1.OwnerReference{APIVersion: "core.kai.io/v1alpha1", Kind: "Step", Name: "http-echo", UID: "old", Controller: ptr.To(true)},
			ReasonWaiting},
	} {
		t.Run(name, func(t *testing.T) {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "http-echo-deployment", Labels: tc.labels}}
			if tc.owner != nil {
				d.OwnerReferences = []metav1.OwnerReference{*tc.owner}
			}
			w := newWorld(t, newStep(t, ""), d)
			for _, write := range w.reconcile(t, w.steps(), "http-echo") {
				if strings.HasPrefix(write, "patch") {
					t.Error(write)
				}
			}
			if c := w.condition(t, "http-echo", kai.ConditionReady); c.Status != metav1.ConditionFalse || c.Reason != tc.reason {
				t.Errorf("condition %+v", c)
			}
		})
	}
}

// Ready follows the Deployment: first nothing, then pods that cannot be pulled, then pods that serve.
func TestReadySaysHowItStands(t *testing.T) {
	w := newWorld(t, newStep(t, ""))
	r := w.steps()
	for _, stage := range []struct {
		conditions []appsv1.DeploymentCondition
		status     metav1.ConditionStatus
		reason     string
	}{
		{nil, "False", ReasonDeploymentUnavailable},
		{[]appsv1.DeploymentCondition{{Type: "Available", Status: "False", Reason: "MinimumReplicasUnavailable"}, {Type: "Progressing", Status: "True"}}, "False", ReasonDeploymentUnavailable},
		{[]appsv1.DeploymentCondition{{Type: "Available", Status: "False"}, {Type: "Progressing", Status: "False", Reason: "ProgressDeadlineExceeded"}}, "False", ReasonRolloutStuck},
		{[]appsv1.DeploymentCondition{{Type: "Available", Status: "True"}, {Type: "Progressing", Status: "True"}}, "True", ReasonReady},
	} {
		w.reconcile(t, r, "http-echo")
		d := &appsv1.Deployment{}
		w.get(t, "http-echo-deployment", d)
		d.Status.Conditions = stage.conditions
		if err := w.Status().Update(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		w.reconcile(t, r, "http-echo")
		if c := w.condition(t, "http-echo", kai.ConditionReady); c.Status != stage.status || c.Reason != stage.reason {
			t.Errorf("condition %+v, want %s %s", c, stage.status, stage.reason)
		}
	}
	var events []string
	for recorder := r.recorder.(*record.FakeRecorder); len(recorder.Events) > 0; {
		if e := <-recorder.Events; !strings.Contains(e, "Created") && !strings.Contains(e, "Updated") {
			events = append(events, strings.Join(strings.Fields(e)[:2], " "))
		}
	}
	if diff := cmp.Diff([]string{"Warning ProgressDeadlineExceeded", "Normal Ready"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAPipelineDeletesOnlyItsOwnSteps(t *testing.T) {
	p := newPipeline("- -")
	foreign := &kai.Step{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "mine", Labels: map[string]string{kai.PipelineLabel: "p"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "a/v1", Kind: "Other", Name: "x", UID: "x", Controller: ptr.To(true)}}}}
	w := newWorld(t, p, foreign)
	r := &pipelines{children{client: w.cached(), direct: w, recorder: record.NewFakeRecorder(100), owners: pipelineOwners}}
	wantWrites(t, w.reconcile(t, r, "p"), "create Step p-step-0", "create Step p-step-1")
	wantWrites(t, w.reconcile(t, r, "p"))
	w.get(t, "p", p)
	p.Spec.Steps = p.Spec.Steps[:1]
	if err := w.Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	wantWrites(t, w.reconcile(t, r, "p"), "delete Step p-step-1")
	wantWrites(t, w.reconcile(t, r, "p"))
}

// After --cascade=orphan the garbage collector takes the owner from the objects before the cache has seen that the Step goes: given to it
// again, they would go with it.
func TestACacheThatIsBehindGivesNothingToAStepThatGoes(t *testing.T) {
	leaving := func(s *kai.Step) {
		s.DeletionTimestamp, s.Finalizers = &metav1.Time{Time: time.Now()}, []string{metav1.FinalizerOrphanDependents}
	}
	for name, c := range map[string]struct {
		now    func(*kai.Step)
		writes []string
	}{
		"it stays":     {func(*kai.Step) {}, []string{"patch Deployment http-echo-deployment", "patch HorizontalPodAutoscaler http-echo-hpa", "patch Service http-echo-service"}},
		"it goes":      {leaving, nil},
		"another came": {func(s *kai.Step) { s.UID = "another" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newStep(t, ""))
			r := w.steps()
			w.reconcile(t, r, "http-echo")
			for name, o := range map[string]client.Object{"http-echo-deployment": &appsv1.Deployment{}, "http-echo-service": &corev1.Service{}, "http-echo-hpa": &autoscalingv2.HorizontalPodAutoscaler{}} {
				w.get(t, name, o)
				o.SetOwnerReferences(nil)
				if err := w.Update(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			r.direct = interceptor.NewClient(w, interceptor.Funcs{Get: func(ctx context.Context, store client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				err := store.Get(ctx, key, o, opts...)
				if s, ok := o.(*kai.Step); ok && err == nil {
					c.now(s)
				}
				return err
			}})
			wantWrites(t, w.reconcile(t, r, "http-echo"), c.writes...)
		})
	}
}
