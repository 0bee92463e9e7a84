package job

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/horizontalportrait"
)

const jobNamespace = "cron-job-test"

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func portrait(namespace, name string) *kapacity.HorizontalPortrait {
	return &kapacity.HorizontalPortrait{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-of-" + namespace + "." + name), Generation: 1},
		Spec: kapacity.HorizontalPortraitSpec{PortraitSpec: kapacity.PortraitSpec{PortraitType: kapacity.PredictivePortrait,
			Algorithm: kapacity.PortraitAlgorithm{Type: kapacity.ExternalJobAlgorithm, ExternalJob: &kapacity.ExternalJobPortraitAlgorithm{
				ResultSource: kapacity.PortraitAlgorithmResultSource{Type: kapacity.ConfigMapPortraitAlgorithmResultSource},
				Job: kapacity.PortraitAlgorithmJob{Type: kapacity.CronJobPortraitAlgorithmJob, CronJob: &kapacity.CronJobPortraitAlgorithmConfig{
					Template: kapacity.CronJobTemplateSpec{Spec: batchv1.CronJobSpec{Schedule: "*/10 * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
						Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyOnFailure, Containers: []corev1.Container{
							{Name: "algorithm", Args: []string{"--hp=$(HP_NAME)"},
								Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000m")}},
								Ports:     []corev1.ContainerPort{{ContainerPort: 80}}, ReadinessProbe: &corev1.Probe{}},
							{Name: "sidecar", Image: "sidecar"}}}}}}}}}}}}}}}
}

func template(hp *kapacity.HorizontalPortrait) *kapacity.CronJobTemplateSpec {
	return &hp.Spec.Algorithm.ExternalJob.Job.CronJob.Template
}

func algorithm(c *batchv1.CronJob) *corev1.Container {
	return &c.Spec.JobTemplate.Spec.Template.Spec.Containers[0]
}

// cluster is an API server in memory that fills in defaults as the real one does, and counts writes.
type cluster struct {
	client.WithWatch
	writes []string
	refuse func(verb string, o runtime.Object) error
}

func newCluster(objects ...client.Object) *cluster {
	c := &cluster{refuse: func(string, runtime.Object) error { return nil }}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	write := func(verb string, o client.Object) error {
		if err := c.refuse(verb, o); err != nil {
			return err
		}
		c.writes = append(c.writes, strings.ToLower(fmt.Sprintf("%s %T %s/%s", verb, o, o.GetNamespace(), o.GetName())))
		return nil
	}
	settle := func(ctx context.Context, cl client.WithWatch, o client.Object) error {
		if job, ok := o.(*batchv1.CronJob); ok {
			fillIn(job)
			return cl.Update(ctx, job)
		}
		return nil
	}
	c.WithWatch = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&kapacity.HorizontalPortrait{}).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, cl client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if err := c.refuse("get", o); err != nil {
				return err
			}
			return cl.Get(ctx, key, o, opts...)
		},
		Create: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := write("create", o); err != nil {
				return err
			}
			o.SetUID(types.UID("uid-" + o.GetName()))
			if err := cl.Create(ctx, o, opts...); err != nil {
				return err
			}
			return settle(ctx, cl, o)
		},
		Patch: func(ctx context.Context, cl client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := write("patch", o); err != nil {
				return err
			}
			if err := cl.Patch(ctx, o, p, opts...); err != nil {
				return err
			}
			return settle(ctx, cl, o)
		},
		Delete: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if err := write("delete", o); err != nil {
				return err
			}
			return cl.Delete(ctx, o, opts...)
		},
	}).Build()
	return c
}

// fillIn is what kube-apiserver's defaulting does to such a CronJob.
func fillIn(c *batchv1.CronJob) {
	c.Spec.ConcurrencyPolicy, c.Spec.SuccessfulJobsHistoryLimit, c.Spec.FailedJobsHistoryLimit = batchv1.AllowConcurrent, ptr.To(int32(3)), ptr.To(int32(1))
	if c.Spec.Suspend == nil {
		c.Spec.Suspend = ptr.To(false)
	}
	pod := &c.Spec.JobTemplate.Spec.Template.Spec
	pod.DNSPolicy, pod.SchedulerName, pod.TerminationGracePeriodSeconds, pod.SecurityContext = corev1.DNSClusterFirst, "default-scheduler", ptr.To(int64(30)), &corev1.PodSecurityContext{}
	pod.DeprecatedServiceAccount = pod.ServiceAccountName
	for i := range pod.Containers {
		container := &pod.Containers[i]
		container.TerminationMessagePath, container.TerminationMessagePolicy, container.ImagePullPolicy = "/dev/termination-log", corev1.TerminationMessageReadFile, corev1.PullAlways
		for j := range container.Ports {
			container.Ports[j].Protocol = corev1.ProtocolTCP
		}
		if p := container.ReadinessProbe; p != nil {
			p.TimeoutSeconds, p.PeriodSeconds, p.SuccessThreshold, p.FailureThreshold = 1, 10, 1, 3
		}
	}
}

func (c *cluster) jobs() *Jobs { // nothing is remembered
	return &Jobs{options: Options{Namespace: jobNamespace, ServiceAccount: "algorithms", Image: "forecast:1", MetricsServerAddr: "metrics:9090"},
		client: c, clock: clocktesting.NewFakePassiveClock(start), watches: &watches{}}
}

func (c *cluster) job(t *testing.T, name string) *batchv1.CronJob {
	t.Helper()
	job := &batchv1.CronJob{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: jobNamespace, Name: name}, job); err != nil {
		if !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return nil
	}
	return job
}

func (c *cluster) keep(t *testing.T, hp *kapacity.HorizontalPortrait) {
	t.Helper()
	if err := c.jobs().keep(t.Context(), hp); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) expectWrites(t *testing.T, when string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, c.writes); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
	c.writes = nil
}

func TestRow12ACronJobIsMadeAndRemoved(t *testing.T) {
	c, hp := newCluster(), portrait("test", "test-predictive")
	c.keep(t, hp)
	job := c.job(t, "test-test-predictive")
	if job == nil {
		t.Fatal(c.writes)
	}
	env := []corev1.EnvVar{{Name: "HP_NAMESPACE", Value: "test"}, {Name: "HP_NAME", Value: "test-predictive"}, {Name: "METRICS_SERVER_ADDR", Value: "metrics:9090"}}
	if diff := cmp.Diff(env, algorithm(job).Env); diff != "" {
		t.Error(diff)
	}
	pod := job.Spec.JobTemplate.Spec.Template.Spec
	if pod.Containers[0].Image != "forecast:1" || pod.Containers[1].Image != "sidecar" || len(pod.Containers[1].Env) != 0 || pod.ServiceAccountName != "algorithms" || job.Spec.Schedule != "*/10 * * * *" {
		t.Errorf("%+v", job.Spec)
	}
	if job.Labels[Label] != string(hp.UID) || job.Annotations[Label] != "test/test-predictive" {
		t.Errorf("marks %v %v", job.Labels, job.Annotations)
	}
	if reason, err := c.jobs().Cleanup(t.Context(), hp); err != nil {
		t.Fatal(reason, err)
	}
	if c.job(t, "test-test-predictive") != nil {
		t.Error("it is still there")
	}
	if _, err := c.jobs().Cleanup(t.Context(), hp); err != nil {
		t.Errorf("nothing to remove is no error: %v", err)
	}
}

func TestRow13TheTemplatesLabelsAreMergedIntoAnExistingCronJob(t *testing.T) {
	hp := portrait("test", "test-predictive")
	template(hp).Labels, template(hp).Annotations = map[string]string{"a": "b"}, map[string]string{"a": "b"}
	c := newCluster(&batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: jobNamespace, Name: "test-test-predictive", Annotations: map[string]string{"c": "d"}}})
	c.keep(t, hp)
	job := c.job(t, "test-test-predictive")
	delete(job.Annotations, HashAnnotation)
	if diff := cmp.Diff(map[string]string{"a": "b", Label: string(hp.UID)}, job.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "b", "c": "d", Label: "test/test-predictive"}, job.Annotations); diff != "" {
		t.Error(diff)
	}
	if job.Spec.Schedule != "*/10 * * * *" {
		t.Errorf("%+v", job.Spec)
	}
	c.expectWrites(t, "one patch", "patch *v1.cronjob cron-job-test/test-test-predictive")
}

func TestB17ACronJobIsPatchedOnRealDifferencesOnly(t *testing.T) {
	c, hp := newCluster(), portrait("shop", "cart-predictive")
	const name = "shop-cart-predictive"
	template(hp).Spec.StartingDeadlineSeconds = ptr.To(int64(60))
	c.keep(t, hp)
	c.expectWrites(t, "at first", "create *v1.cronjob cron-job-test/"+name)
	c.keep(t, hp)
	c.expectWrites(t, "what the API server fills in is no difference")

	edit := func(change func(*batchv1.CronJob)) {
		job := c.job(t, name)
		change(job)
		if err := c.Update(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(job *batchv1.CronJob) {
		job.Spec.Suspend, job.Labels["team"] = ptr.To(true), "cart"
		pod := &job.Spec.JobTemplate.Spec.Template.Spec
		pod.Containers = append(pod.Containers, corev1.Container{Name: "injected", Image: "mesh"})
		algorithm(job).Env = append(algorithm(job).Env, corev1.EnvVar{Name: "INJECTED", Value: "1"})
	})
	c.keep(t, hp)
	c.expectWrites(t, "what others add is no difference")

	edit(func(job *batchv1.CronJob) { job.Spec.Schedule = "0 0 * * *" })
	c.keep(t, hp)
	c.expectWrites(t, "a schedule that somebody changed", "patch *v1.cronjob cron-job-test/"+name)
	if job := c.job(t, name); job.Spec.Schedule != "*/10 * * * *" || job.Labels["team"] != "cart" {
		t.Errorf("%+v", job)
	}

	template(hp).Spec.StartingDeadlineSeconds = nil
	c.keep(t, hp)
	c.expectWrites(t, "a field that the template no longer has", "patch *v1.cronjob cron-job-test/"+name)
	if job := c.job(t, name); job.Spec.StartingDeadlineSeconds != nil {
		t.Errorf("it is still there: %+v", job.Spec)
	}
	c.keep(t, hp)
	c.expectWrites(t, "at rest")

	edit(func(job *batchv1.CronJob) {
		job.Spec.JobTemplate.Spec.Template.Spec.Containers = job.Spec.JobTemplate.Spec.Template.Spec.Containers[:1]
	})
	c.keep(t, hp)
	c.expectWrites(t, "a container that somebody removed", "patch *v1.cronjob cron-job-test/"+name)
}

func TestB17ACronJobIsFoundAfterARestart(t *testing.T) {
	c, hp, neighbor := newCluster(), portrait("shop", "cart-predictive"), portrait("shop", "other")
	c.keep(t, hp)
	c.keep(t, neighbor)
	c.writes = nil
	if _, err := c.jobs().Cleanup(t.Context(), hp); err != nil { // by somebody who made nothing
		t.Fatal(err)
	}
	c.expectWrites(t, "clean-up", "delete *v1.cronjob cron-job-test/shop-cart-predictive")
}

func TestTwoPortraitsMayHaveOneName(t *testing.T) {
	c, first, second := newCluster(), portrait("a-b", "c"), portrait("a", "b-c")
	c.keep(t, first)
	c.writes = nil
	const want = "CronJob cron-job-test/a-b-c belongs to HorizontalPortrait a-b/c: namespace and name, joined by a dash, are the same; rename one of the two"
	_, reason, next, err := c.jobs().Reconcile(t.Context(), second)
	if err == nil || err.Error() != want || reason != kapacity.ReasonFailedReconcileExternalAlgorithmJob || !next.Equal(start.Add(recheck)) {
		t.Errorf("%s at %s: %v", reason, next, err)
	}
	if _, err := c.jobs().Cleanup(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	c.expectWrites(t, "the second one touches nothing")
	if _, err := c.jobs().Cleanup(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	c.keep(t, second)
}

func TestWhoseAnExistingCronJobIs(t *testing.T) {
	hp := portrait("a", "b-c")
	made := func(change func(*batchv1.CronJob)) *batchv1.CronJob {
		job, err := newCluster().jobs().options.cronJob(hp)
		if err != nil {
			t.Fatal(err)
		}
		change(job)
		return job
	}
	works := func(namespace, name string) func(*batchv1.CronJob) {
		return func(job *batchv1.CronJob) { // as Kapacity makes them
			job.Labels, job.Annotations = nil, nil
			algorithm(job).Env = []corev1.EnvVar{{Name: "HP_NAMESPACE", Value: namespace}, {Name: "HP_NAME", Value: name}}
		}
	}
	for name, c := range map[string]struct {
		job     *batchv1.CronJob
		taken   bool
		cleaned bool
	}{
		"ours":                                      {made(func(*batchv1.CronJob) {}), true, true},
		"Kapacity's":                                {made(works("a", "b-c")), true, true},
		"Kapacity's, for another portrait":          {made(works("a-b", "c")), false, false},
		"a person's, of that name":                  {made(works("", "")), true, false},
		"a predecessor's of the same name":          {made(func(job *batchv1.CronJob) { job.Labels[Label] = "uid-of-before" }), true, false},
		"another portrait's that has the same name": {made(func(job *batchv1.CronJob) { job.Labels[Label], job.Annotations[Label] = "uid-x", "a-b/c" }), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := newCluster(c.job.DeepCopy()).jobs().keep(t.Context(), hp); (err == nil) != c.taken {
				t.Errorf("taken over: %v", err)
			}
			cl := newCluster(c.job.DeepCopy())
			if _, err := cl.jobs().Cleanup(t.Context(), hp); err != nil {
				t.Fatal(err)
			}
			if gone := cl.job(t, c.job.Name) == nil; gone != c.cleaned {
				t.Errorf("cleaned up: %v", gone)
			}
		})
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("n", 40)
	for name, c := range map[string]struct{ namespace, name, want string }{
		"joined by a dash":       {"test", "test-predictive", "test-test-predictive"},
		"of the greatest length": {long, "elevenchars", long + "-elevenchars"},
		"cut":                    {long, "twelve-chars", long + "-tw-40abd880"},
		"cut at a dot":           {long, "a.b-twelvexxxx", long + "-a-22261572"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Name(c.namespace, c.name); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if a, b := Name(long, "one-of-many-names"), Name(long, "one-of-many-others"); a == b {
		t.Errorf("%s twice", a)
	}
}

func TestTheTemplateGoesBeforeTheDefaults(t *testing.T) {
	options := newCluster().jobs().options
	hp := portrait("shop", "cart")
	pod := &template(hp).Spec.JobTemplate.Spec.Template.Spec
	pod.ServiceAccountName, pod.Containers[0].Image = "own", "own:2"
	pod.Containers[0].Env = []corev1.EnvVar{{Name: "METRICS_SERVER_ADDR", Value: "own:1"}, {Name: "HP_NAME", Value: "another"}, {Name: "X", Value: "$(HP_NAME)"}}
	job, err := options.cronJob(hp)
	if err != nil {
		t.Fatal(err)
	}
	env := []corev1.EnvVar{{Name: "HP_NAMESPACE", Value: "shop"}, {Name: "HP_NAME", Value: "cart"}, {Name: "METRICS_SERVER_ADDR", Value: "own:1"}, {Name: "X", Value: "$(HP_NAME)"}}
	if diff := cmp.Diff(env, algorithm(job).Env); diff != "" {
		t.Error(diff)
	}
	if got := job.Spec.JobTemplate.Spec.Template.Spec; got.ServiceAccountName != "own" || algorithm(job).Image != "own:2" {
		t.Errorf("%+v", got)
	}
	pod.ServiceAccountName, pod.DeprecatedServiceAccount = "", "older"
	if job, err = options.cronJob(hp); err != nil || job.Spec.JobTemplate.Spec.Template.Spec.ServiceAccountName != "" {
		t.Errorf("%+v, %v", job, err)
	}
	pod.Containers[0].Image = ""
	if _, err := (Options{Namespace: jobNamespace}).cronJob(hp); err == nil || !strings.Contains(err.Error(), "--algorithm-job-default-image") {
		t.Error(err)
	}
}

func TestB14AStoredObjectWithoutItsSettingsIsAnError(t *testing.T) {
	for _, change := range []func(*kapacity.HorizontalPortrait){
		func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.ExternalJob = nil },
		func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.ExternalJob.Job.CronJob = nil },
		func(hp *kapacity.HorizontalPortrait) { hp.Spec.Algorithm.ExternalJob.ResultSource.Type = "" },
	} {
		hp := portrait("shop", "cart")
		change(hp)
		if _, reason, next, err := newCluster().jobs().Reconcile(t.Context(), hp); err == nil || !strings.Contains(err.Error(), "spec.algorithm.externalJob.") || next.IsZero() || reason == "" {
			t.Errorf("%s at %s: %v", reason, next, err)
		}
	}
}

func TestWhatIsForbiddenSaysWhoAllowsIt(t *testing.T) {
	hp := portrait("shop", "cart")
	forbid := func(what string) func(string, runtime.Object) error {
		return func(verb string, o runtime.Object) error {
			if strings.HasPrefix(fmt.Sprintf("%s %T", verb, o), what) {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "x"}, "y", errors.New("no right"))
			}
			return nil
		}
	}
	for what, want := range map[string]string{
		"get *v1.CronJob":    "read CronJob cron-job-test/shop-cart: x \"y\" is forbidden: no right; a RoleBinding in namespace cron-job-test to the ClusterRole kubetide-algorithm-jobs allows it",
		"create *v1.CronJob": "create CronJob cron-job-test/shop-cart: x \"y\" is forbidden: no right; a RoleBinding in namespace cron-job-test to the ClusterRole kubetide-algorithm-jobs allows it",
		"get *v1.ConfigMap":  "read ConfigMap shop/cart-result: x \"y\" is forbidden: no right; a RoleBinding in namespace shop to the ClusterRole kubetide-algorithm-results allows it",
	} {
		c := newCluster()
		c.refuse = forbid(what)
		if _, _, next, err := c.jobs().Reconcile(t.Context(), hp); err == nil || err.Error() != want || !next.IsZero() {
			t.Errorf("%s at %s: %v", what, next, err)
		}
	}
	c := newCluster()
	c.keep(t, hp)
	c.refuse = forbid("delete *v1.CronJob")
	if reason, err := c.jobs().Cleanup(t.Context(), hp); reason != kapacity.ReasonFailedCleanupExternalAlgorithmJob || !strings.HasSuffix(fmt.Sprint(err), "kubetide-algorithm-jobs allows it") {
		t.Error(reason, err)
	}
}

// controller runs the controller of HorizontalPortraits with these jobs.
func (c *cluster) controller(jobs *Jobs, events *record.FakeRecorder) *horizontalportrait.Reconciler {
	r := &horizontalportrait.Reconciler{Client: c, Recorder: events, Clock: clocktesting.NewFakePassiveClock(start), Jobs: jobs}
	empty(&r.Metrics)
	return r
}

func empty[T any](p **T) { *p = new(T) }

func TestAResultThatIsNotThereIsToldOnceAndReadWhenItComes(t *testing.T) {
	hp := portrait("shop", "cart")
	c, events := newCluster(hp), record.NewFakeRecorder(10)
	r := c.controller(c.jobs(), events)
	request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(hp)}
	condition := func() string {
		t.Helper()
		if err := c.Get(t.Context(), request.NamespacedName, hp); err != nil {
			t.Fatal(err)
		}
		is := meta.FindStatusCondition(hp.Status.Conditions, kapacity.ConditionPortraitGenerated)
		return string(is.Status) + " " + is.Reason + ": " + is.Message
	}
	for range 3 {
		if got, err := r.Reconcile(t.Context(), request); err != nil || got.RequeueAfter != recheck {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	const missing = "FailedFetchExternalAlgorithmJobResult: ConfigMap shop/cart-result is not there: the job has left no result yet"
	if got := condition(); got != "False "+missing || len(events.Events) != 1 || !controllerutil.ContainsFinalizer(hp, kapacity.Finalizer) {
		t.Errorf("%s, %d events", got, len(events.Events))
	}
	c.expectWrites(t, "while it is missing", "patch *v1alpha1.horizontalportrait shop/cart", "create *v1.cronjob cron-job-test/shop-cart")

	left := result(`{"1695290760.0":3}`)
	left.Namespace, left.Name = "shop", "cart-result"
	if err := c.Create(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	c.writes = nil
	for range 2 {
		if got, err := r.Reconcile(t.Context(), request); err != nil || got != (reconcile.Result{}) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if got := condition(); got != "True SucceededGeneratePortrait: "+kapacity.MessageSucceededGeneratePortrait || len(events.Events) != 1 {
		t.Errorf("%s, %d events", got, len(events.Events))
	}
	if diff := cmp.Diff(points(1695290760, 3), hp.Status.PortraitData.TimeSeries.TimeSeries); diff != "" {
		t.Error(diff)
	}

	version := hp.ResourceVersion
	left.Data["timeSeries"] = `{"soon":3}`
	if err := c.Update(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Reconcile(t.Context(), request); err != nil || got.RequeueAfter != recheck {
		t.Fatalf("%+v, %v", got, err)
	}
	if got := condition(); !strings.HasPrefix(got, `False FailedFetchExternalAlgorithmJobResult: ConfigMap shop/cart-result: key "timeSeries": the time "soon"`) || hp.Status.PortraitData == nil || version == hp.ResourceVersion {
		t.Errorf("%s, %+v", got, hp.Status)
	}

	// B16: it goes, with its job, also by a controller that remembers nothing, and though somebody else makes the portrait now.
	hp.Spec.ExternalGeneratorName = "oracle"
	if err := c.Update(t.Context(), hp); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), hp); err != nil {
		t.Fatal(err)
	}
	if _, err := c.controller(c.jobs(), events).Reconcile(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), request.NamespacedName, hp); !apierrors.IsNotFound(err) || c.job(t, "shop-cart") != nil {
		t.Errorf("still there: %v, %v", err, c.job(t, "shop-cart"))
	}
}

// awake collects who was woken.
type awake struct {
	mu  sync.Mutex
	who map[string]int
}

func (a *awake) wake(r reconcile.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.who[r.String()]++
}

func (a *awake) wait(t *testing.T, what string, who string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; goruntime.Gosched() {
		a.mu.Lock()
		n := a.who[who]
		if n > 0 {
			delete(a.who, who)
		}
		a.mu.Unlock()
		if n > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not wake %s, but %v", what, who, a.who)
		}
	}
}

func TestResultsAndJobsWakeTheirPortraits(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, ignore)
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	meta := metadatafake.NewSimpleMetadataClient(scheme)
	var mu sync.Mutex
	forbidden, watching, results := false, map[string]int{}, []*watch.RaceFreeFakeWatcher{}
	meta.PrependReactor("list", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if forbidden {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "", errors.New("no right"))
		}
		return false, nil, nil
	})
	meta.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		mu.Lock()
		defer mu.Unlock()
		o := a.(clienttesting.WatchActionImpl)
		watching[o.Resource.Resource+" "+o.Namespace+" "+o.WatchRestrictions.Fields.String()+o.WatchRestrictions.Labels.String()]++
		w, err := meta.Tracker().Watch(o.Resource, o.Namespace)
		if o.Resource.Resource == "configmaps" {
			results = append(results, w.(*watch.RaceFreeFakeWatcher))
		}
		return true, w, err
	})
	until := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; goruntime.Gosched() {
			mu.Lock()
			done := condition()
			mu.Unlock()
			if done {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain: %s; watching %v", what, watching)
			}
		}
	}
	hp := portrait("shop", "cart")
	left := result(`{"1":1}`)
	left.Namespace, left.Name = "shop", "cart-result"
	c := newCluster(left)
	jobs := c.jobs()
	jobs.watches = &watches{client: meta, namespace: jobNamespace}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	woken := &awake{who: map[string]int{}}
	jobs.watches.run(ctx, woken.wake)
	until("the CronJobs", func() bool { return watching["cronjobs cron-job-test kubetide.io/horizontal-portrait"] == 1 })
	for range 2 {
		if _, _, _, err := jobs.Reconcile(t.Context(), hp); err != nil {
			t.Fatal(err)
		}
	}
	until("the result, once and by its name", func() bool { return watching["configmaps shop metadata.name=cart-result"] == 1 })

	put := func(verb, resource, namespace, name string, generation int64) {
		t.Helper()
		o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Generation: generation, ResourceVersion: fmt.Sprint(generation),
			Labels: map[string]string{Label: "uid"}, Annotations: map[string]string{Label: "shop/cart"}}}
		gvr := schema.GroupVersionResource{Version: "v1", Resource: resource}
		if o.APIVersion, o.Kind = "v1", "ConfigMap"; resource == "cronjobs" {
			gvr.Group, o.APIVersion, o.Kind = "batch", "batch/v1", "CronJob"
		}
		var err error
		switch tracker := meta.Tracker(); verb {
		case "create":
			err = tracker.Create(gvr, o, namespace)
		case "update":
			err = tracker.Update(gvr, o, namespace)
		case "delete":
			err = tracker.Delete(gvr, namespace, name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("create", "configmaps", "shop", "cart-result", 1)
	woken.wait(t, "a result that comes", "shop/cart")
	put("update", "configmaps", "shop", "cart-result", 2)
	woken.wait(t, "a result that changes", "shop/cart")
	put("delete", "configmaps", "shop", "cart-result", 0)
	woken.wait(t, "a result that goes", "shop/cart")
	put("create", "cronjobs", jobNamespace, "shop-cart", 1)
	put("update", "cronjobs", jobNamespace, "shop-cart", 2)
	woken.wait(t, "a CronJob that somebody edits", "shop/cart")
	put("delete", "cronjobs", jobNamespace, "shop-cart", 0)
	woken.wait(t, "a CronJob that somebody deletes", "shop/cart")

	mu.Lock()
	forbidden = true
	mu.Unlock()
	other := portrait("shop", "other")
	left = left.DeepCopy()
	left.Name, left.ResourceVersion = "other-result", ""
	if err := c.Create(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	// The refusal may come before this one has ended: it says so, or the next does.
	if _, _, _, err := jobs.Reconcile(t.Context(), other); err != nil && !strings.HasPrefix(err.Error(), "watch ConfigMap shop/other-result: ") {
		t.Fatal(err)
	}
	woken.wait(t, "a watch that is refused", "shop/other")
	data, reason, next, err := jobs.Reconcile(t.Context(), other)
	if data == nil || reason != kapacity.ReasonFailedFetchExternalAlgorithmJobResult || !next.IsZero() || err == nil ||
		!strings.HasPrefix(err.Error(), "watch ConfigMap shop/other-result: ") || !strings.HasSuffix(err.Error(), "to the ClusterRole kubetide-algorithm-results allows it") {
		t.Errorf("%v, %s at %s: %v", data, reason, next, err)
	}
	mu.Lock()
	forbidden = false
	mu.Unlock()
	put("create", "configmaps", "shop", "other-result", 1)
	woken.wait(t, "a watch that is allowed again", "shop/other")
	if _, _, _, err := jobs.Reconcile(t.Context(), other); err != nil {
		t.Error(err)
	}

	for _, hp := range []*kapacity.HorizontalPortrait{hp, other} {
		if _, err := jobs.Cleanup(t.Context(), hp); err != nil {
			t.Fatal(err)
		}
	}
	until("the end of both watches", func() bool {
		return len(results) == 2 && !slices.ContainsFunc(results, func(w *watch.RaceFreeFakeWatcher) bool { return !w.IsStopped() })
	})
	if len(jobs.watches.results) != 0 {
		t.Errorf("still remembered: %v", jobs.watches.results)
	}
}
