package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// halves is a strategy by Cutoff in halves, in flow style.
func halves(interval, observation time.Duration) string {
	return fmt.Sprintf("grayState: Cutoff, changePercent: 50, changeIntervalSeconds: %d, observationSeconds: %d",
		int(interval.Seconds()), int(observation.Seconds()))
}

// grayRun starts a run of a new Deployment from 8 pods that serve to 2 and returns when its first step is taken: 5 serve, 3 are cut.
func grayRun(t *testing.T, ns, app, strategy string) *chronicle {
	t.Helper()
	workload(t, ns, "Deployment", app, 8, "")
	staticIHPA(t, ns, "Deployment", app, 8, strategy)
	eventually(t, 20*time.Second, conditionIs(t, ns, app, kapacity.ConditionScalingActive, metav1.ConditionTrue))
	// After outages of the API server the controller manager's watches are tried again after up to a minute (30s by client-go's back-off, doubled
	// at most by its jitter), and the endpoints follow from then on.
	reach(t, ns, app, state{online: 8, endpoints: 8}, 80*time.Second)
	c := follow(t, ns, app)
	setStatic(t, ns, app, 2)
	reach(t, ns, app, state{online: 5, cutoff: 3, endpoints: 5}, 20*time.Second)
	eventually(t, 10*time.Second, func() error {
		if g := getIHPA(t, ns, app).Status.Gray; g == nil || g.LastStepTime == nil {
			return fmt.Errorf("status.gray is %+v: no step is applied yet", g)
		}
		return nil
	})
	return c
}

// runs are Kubetide's containers, and how often each was started again.
func runs(t *testing.T) map[types.UID]int32 {
	t.Helper()
	out := map[types.UID]int32{}
	for _, p := range kubetidePods(t) {
		for _, s := range p.Status.ContainerStatuses {
			out[p.UID] = s.RestartCount
		}
	}
	return out
}

func wantSameProcesses(t *testing.T, before map[types.UID]int32) {
	t.Helper()
	if after := runs(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("Kubetide's containers and their restarts were %v, are %v", before, after)
	}
}

// The API server is away in the middle of a gray run, and for longer than a Lease lasts: the process stays, no pod flaps, and the
// run goes on where it stood. What was at rest stays so.
func TestTheAPIServerIsAwayInAGrayRun(t *testing.T) {
	ns := newNamespace(t)
	load := &shared{}
	load.raise(30, 3)
	load.pods.Store(3)
	workload(t, ns, "Deployment", "steady", 3, "")
	reactiveIHPA(t, ns, "steady", podSettings(load.answering(t)), "{}", loadOfTen)
	eventually(t, 20*time.Second, conditionIs(t, ns, "steady", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	run := grayRun(t, ns, "shop", halves(20*time.Second, 5*time.Second))
	steady := follow(t, ns, "steady")
	processes := runs(t)

	cluster.StopAPIServer()
	gone := time.Now()
	run.mark("API server away")
	<-time.After(30 * time.Second) // the fault's length, not a wait for something
	must(t, cluster.StartAPIServer(t.Context()))
	back := time.Now()
	run.mark("API server back")

	eventually(t, 60*time.Second, func() error {
		if n := len(cutPods(t, ns, "shop")); n != 6 {
			return fmt.Errorf("%d pods are cut", n)
		}
		return nil
	})
	t.Logf("the API server was away for %v; the next step came %v after it answered again", back.Sub(gone).Round(100*time.Millisecond), time.Since(back).Round(100*time.Millisecond))
	if after := time.Since(back); after > 40*time.Second {
		t.Errorf("the next step came %v after the API server answered again", after)
	}
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 60*time.Second)
	t.Logf("the run had ended %v after the API server answered again", time.Since(back).Round(100*time.Millisecond))
	run.wantAsked(t, 8, 2)
	run.wantNoFlap(t)
	steady.wantAsked(t, 3)
	steady.wantNoFlap(t)
	if writes := scaleWrites(t, ns, gone); len(writes) != 1 {
		t.Errorf("/scale was written %d times, want once: %+v", len(writes), writes)
	}
	waitForKubetide(t)
	wantSameProcesses(t, processes)
}

// All watches break, as the API server is killed and starts at once; what is changed right afterwards is acted on.
func TestBrokenWatchesComeBack(t *testing.T) {
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "shop", 2, "")
	staticIHPA(t, ns, "Deployment", "shop", 2, halves(time.Second, 0))
	eventually(t, 10*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	c := follow(t, ns, "shop")
	processes := runs(t)
	began := time.Now()
	cluster.StopAPIServer()
	must(t, cluster.StartAPIServer(t.Context()))
	c.mark("API server restarted")
	t.Logf("the API server was away for %v", time.Since(began).Round(100*time.Millisecond))
	changed := time.Now()
	setStatic(t, ns, "shop", 5)
	eventually(t, 40*time.Second, wantReplicas(t, ns, "Deployment", "shop", 5))
	t.Logf("a change right after all watches broke was acted on after %v", time.Since(changed).Round(100*time.Millisecond))
	eventually(t, 60*time.Second, func() error {
		if n := len(readyPods(t, ns, "shop")); n != 5 {
			return fmt.Errorf("%d pods are ready", n)
		}
		return nil
	})
	c.wantAsked(t, 2, 5)
	c.wantNoFlap(t)
	waitForKubetide(t)
	wantSameProcesses(t, processes)
}

// The API server has one place for Kubetide and others take it: most requests are answered by 429, the Lease's as well.
func TestARunEndsAmongRefusalsForLoad(t *testing.T) {
	ns := newNamespace(t)
	run := grayRun(t, ns, "shop", halves(4*time.Second, 2*time.Second))
	workload(t, ns, "Deployment", "cart", 2, "")
	staticIHPA(t, ns, "Deployment", "cart", 2, halves(time.Second, 0))
	eventually(t, 10*time.Second, conditionIs(t, ns, "cart", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	cart := follow(t, ns, "cart")
	processes := runs(t)
	began := time.Now()
	lift := squeeze(t)
	run.mark("429s")
	setStatic(t, ns, "cart", 6)
	<-time.After(15 * time.Second) // the fault's length
	ended := time.Now()
	run.mark("429s end")
	lift()
	lifted := time.Now()
	eventually(t, 40*time.Second, wantReplicas(t, ns, "Deployment", "cart", 6))
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 60*time.Second)
	t.Logf("both were where they should %v after the last 429", time.Since(lifted).Round(100*time.Millisecond))
	refused, others := map[string]int{}, 0
	for r, err := range cluster.Audit(began) {
		must(t, err)
		switch {
		case r.User != kubetideUser || r.UserAgent == loadAgent || r.Time.After(ended):
		case r.Code == http.StatusTooManyRequests:
			refused[r.Verb+" "+r.Resource]++
		default:
			others++
		}
	}
	t.Logf("of Kubetide's requests %d were answered, 429 was said to %v", others, refused)
	if len(refused) == 0 {
		t.Error("no request of Kubetide was refused: this was no test")
	}
	run.wantAsked(t, 8, 2)
	run.wantNoFlap(t)
	cart.wantAsked(t, 2, 6)
	cart.wantNoFlap(t)
	waitForKubetide(t)
	wantSameProcesses(t, processes)
}

// Somebody keeps writing annotations to an IHPA, its profile and its workload, faster than a conflict is tried again: objects are
// taken on, a run ends as it should, and they are let go.
func TestARunEndsAmongConflicts(t *testing.T) {
	ns := newNamespace(t)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	began := time.Now()
	var written atomic.Int64
	for _, o := range []client.Object{&kapacity.IntelligentHorizontalPodAutoscaler{}, &kapacity.ReplicaProfile{}, &appsv1.Deployment{}} {
		o.SetNamespace(ns)
		o.SetName("shop")
		writers.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"example.org/written":"%d"}}}`, n))
				if api.Patch(ctx, o, patch) == nil { // it may not be there
					written.Add(1)
				}
			}
		})
	}
	workload(t, ns, "Deployment", "shop", 8, "")
	staticIHPA(t, ns, "Deployment", "shop", 8, halves(2*time.Second, time.Second))
	eventually(t, 20*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	reach(t, ns, "shop", state{online: 8, endpoints: 8}, 20*time.Second)
	c := follow(t, ns, "shop")
	setStatic(t, ns, "shop", 2)
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 40*time.Second)
	eventually(t, 5*time.Second, wantReplicas(t, ns, "Deployment", "shop", 2))
	c.wantAsked(t, 8, 2)
	c.wantNoFlap(t)
	must(t, client.IgnoreNotFound(api.Delete(t.Context(), getIHPA(t, ns, "shop"))))
	eventually(t, 20*time.Second, func() error {
		for _, o := range []client.Object{&kapacity.IntelligentHorizontalPodAutoscaler{}, &kapacity.ReplicaProfile{}} {
			switch err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "shop"}, o); {
			case err == nil:
				return fmt.Errorf("%T is there, with finalizers %v", o, o.GetFinalizers())
			case !apierrors.IsNotFound(err):
				return err
			}
		}
		return nil
	})
	conflicts := map[string]int{}
	for r, err := range cluster.Audit(began) {
		must(t, err)
		if r.User == kubetideUser && r.Namespace == ns && r.Code == http.StatusConflict {
			conflicts[strings.TrimSuffix(r.Verb+" "+r.Resource+"/"+r.Subresource, "/")]++
		}
	}
	t.Logf("%d writes by somebody else; of Kubetide's own these were refused with 409: %v", written.Load(), conflicts)
	if len(conflicts) == 0 {
		t.Error("nothing that Kubetide wrote was refused: this was no test")
	}
}

const loadAgent = "load"

// squeeze gives Kubetide's user the least that API Priority and Fairness can give, and takes it by the user's own requests, until lift.
func squeeze(t *testing.T) (lift func()) {
	t.Helper()
	const objects = `
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: squeezed}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 1, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: squeezed}
spec:
  matchingPrecedence: 2
  priorityLevelConfiguration: {name: squeezed}
  rules:
  - subjects: [{kind: ServiceAccount, serviceAccount: {namespace: kubetide-system, name: kubetide}}]
    resourceRules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: ["*"], clusterScope: true}]
`
	must(t, cluster.Apply(t.Context(), objects))
	config, err := cluster.ConfigFor(t.Context(), system, "kubetide")
	must(t, err)
	config.UserAgent = loadAgent
	crowd := kubernetes.NewForConfigOrDie(config)
	ctx, stop := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	for range 16 {
		waiting.Go(func() {
			for ctx.Err() == nil {
				_, _ = crowd.CoreV1().RESTClient().Get().Resource("pods").MaxRetries(0).DoRaw(ctx)
			}
		})
	}
	var once sync.Once
	lift = func() {
		once.Do(func() {
			stop()
			waiting.Wait()
			out, err := cluster.KubectlInput(context.Background(), objects, "delete", "-f", "-")
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	t.Cleanup(lift)
	return lift
}

// Pods that never become ready: the run upwards goes on to its end and no further, and nothing is taken back. Downwards they are
// the first to go.
func TestPodsThatNeverBecomeReady(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata:
      labels: {app: shop, kapacitystack.io/inject-pod-readiness-gate: "true"}
      annotations: {lab.kubetide.io/ready: "false"}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: simulated}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80}]}
`)
	mend := func() {
		t.Helper()
		_, err := cluster.Kubectl(t.Context(), "-n", ns, "annotate", "pods", "-l", "app=shop", "lab.kubetide.io/ready-", "--overwrite")
		must(t, err)
	}
	eventually(t, 30*time.Second, func() error {
		if n := len(pods(t, ns, "shop")); n != 3 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	mend()
	eventually(t, 30*time.Second, func() error {
		if n := len(readyPods(t, ns, "shop")); n != 3 {
			return fmt.Errorf("%d pods are ready", n)
		}
		return nil
	})
	good := uids(pods(t, ns, "shop"))
	staticIHPA(t, ns, "Deployment", "shop", 3, halves(2*time.Second, time.Second))
	patchIHPA(t, ns, "shop", `{"spec":{"maxReplicas":7,"behavior":{"scaleUp":{"grayStrategy":{"grayState":"Online","changePercent":50,"changeIntervalSeconds":2}}}}}`)
	eventually(t, 10*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	c := follow(t, ns, "shop")
	setStatic(t, ns, "shop", 9)
	eventually(t, 20*time.Second, wantReplicas(t, ns, "Deployment", "shop", 7))
	reach(t, ns, "shop", state{online: 7, endpoints: 3}, 20*time.Second)
	<-time.After(5 * time.Second) // two more intervals, in which nothing may happen
	c.wantAsked(t, 3, 5, 7)
	c.mark("down")
	setStatic(t, ns, "shop", 3)
	reach(t, ns, "shop", state{online: 3, endpoints: 3}, 30*time.Second)
	eventually(t, 5*time.Second, wantReplicas(t, ns, "Deployment", "shop", 3))
	if left := uids(pods(t, ns, "shop")); !slices.Equal(left, good) {
		t.Errorf("pods left are %v, want the ones that serve, %v", left, good)
	}
	c.wantAsked(t, 3, 5, 7, 3)
}

// The workload is deleted in the middle of a run and made again as its manifest says: the run ends on the new one.
func TestAWorkloadIsMadeAgainInARun(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	c := grayRun(t, ns, "shop", halves(5*time.Second, 2*time.Second))
	deployment, err := kube.AppsV1().Deployments(ns).Get(t.Context(), "shop", metav1.GetOptions{})
	must(t, err)
	must(t, kube.AppsV1().Deployments(ns).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
	eventually(t, 30*time.Second, func() error {
		if n := len(pods(t, ns, "shop")); n != 0 {
			return fmt.Errorf("%d pods are left", n)
		}
		return nil
	})
	// Longer than an interval, so that a step is due while there is nothing.
	eventually(t, 10*time.Second, func() error {
		if c := apimeta.FindStatusCondition(getIHPA(t, ns, "shop").Status.Conditions, kapacity.ConditionScalingActive); c.Status != metav1.ConditionFalse {
			return fmt.Errorf("ScalingActive is %+v although there is no workload", c)
		} else if !strings.Contains(c.Message, "not found") {
			return fmt.Errorf("the condition does not say what is missing: %s", c.Message)
		}
		return nil
	})
	deployment.ObjectMeta = metav1.ObjectMeta{Name: "shop", Namespace: ns}
	deployment.Spec.Replicas = new(int32(8))
	_, err = kube.AppsV1().Deployments(ns).Create(t.Context(), deployment, metav1.CreateOptions{})
	must(t, err)
	made := time.Now()
	c.mark("made again")
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 60*time.Second)
	eventually(t, 5*time.Second, wantReplicas(t, ns, "Deployment", "shop", 2))
	t.Logf("the run had ended %v after the workload was made again", time.Since(made).Round(100*time.Millisecond))
	c.wantAsked(t, 8, 2)
}

// A quota keeps the workload smaller than asked for: that lowers nothing; when it is lifted the workload grows, and follows again.
func TestAQuotaIsExhaustedAndLifted(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, ns, `
apiVersion: v1
kind: ResourceQuota
metadata: {name: pods}
spec: {hard: {pods: "4"}}
`)
	workload(t, ns, "Deployment", "shop", 3, "")
	staticIHPA(t, ns, "Deployment", "shop", 3, halves(2*time.Second, time.Second))
	eventually(t, 10*time.Second, conditionIs(t, ns, "shop", kapacity.ConditionScalingActive, metav1.ConditionTrue))
	c := follow(t, ns, "shop")
	setStatic(t, ns, "shop", 6)
	reach(t, ns, "shop", state{online: 4, endpoints: 4}, 20*time.Second)
	c.mark("quota exhausted")
	<-time.After(5 * time.Second) // in which nothing may be taken back
	c.wantAsked(t, 3, 6)
	setStatic(t, ns, "shop", 2)
	c.mark("2 wanted")
	<-time.After(6 * time.Second)
	must(t, kube.CoreV1().ResourceQuotas(ns).Delete(t.Context(), "pods", metav1.DeleteOptions{}))
	c.mark("quota lifted")
	lifted := time.Now()
	reach(t, ns, "shop", state{online: 2, endpoints: 2}, 60*time.Second)
	eventually(t, 5*time.Second, wantReplicas(t, ns, "Deployment", "shop", 2))
	t.Logf("at what was wanted %v after the quota was lifted", time.Since(lifted).Round(100*time.Millisecond))
	setStatic(t, ns, "shop", 6)
	reach(t, ns, "shop", state{online: 6, endpoints: 6}, 30*time.Second)
	c.wantAsked(t, 3, 6, 2, 6)
}
