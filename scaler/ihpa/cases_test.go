package ihpa

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/replicaprofile"
)

// The cases of docs/cases-of-kapacity.md that no other test shows with both controllers at work.

// open is one rule of a cron provider.
func open(name, start, end string, replicas int32) kapacity.ReplicaCron {
	return kapacity.ReplicaCron{Name: name, Start: kapacity.CronExpression(start), End: kapacity.CronExpression(end), Replicas: replicas}
}

func crons(priority int32, rules ...kapacity.ReplicaCron) kapacity.HorizontalPortraitProvider {
	return kapacity.HorizontalPortraitProvider{Type: kapacity.CronProvider, Priority: priority, Cron: &kapacity.CronHorizontalPortraitProvider{Crons: rules}}
}

// Row 4: Kapacity keeps a task for each list of windows, and removes it when the provider goes. Here nothing is kept that could stay
// behind: what the spec says now decides when to look again.
func TestRow4WindowsThatChangeAreFollowedAndThoseThatGoWakeNobody(t *testing.T) {
	w := world(t, enginetest.Deployment(1), enginetest.IHPAOf("Deployment", nil, enginetest.Static(0, 1), crons(1, open("a", "10 12 * * *", "20 12 * * *", 3))))
	wakes := func(minute int) {
		t.Helper()
		if want := enginetest.Start.Add(time.Duration(minute) * time.Minute); !w.Settle().Equal(want) {
			t.Errorf("looked at again at %s, want %s", w.Settle(), want)
		}
	}
	wakes(10)
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders[1] = crons(1, open("a", "5 12 * * *", "7 12 * * *", 4))
	})
	wakes(5)
	if got, want := timeline(w, 15*60), "0:1/0 300:4/0 420:1/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.PortraitProviders = o.Spec.PortraitProviders[:1]
	})
	if next := w.Settle(); !next.IsZero() {
		t.Errorf("nothing changes with time any more, but it is looked at again at %s", next)
	}
}

// Rows 3, 5 and 7 to 9: what each kind of portrait says, and in whose name.
func TestRowsOfPortraitValues(t *testing.T) {
	always := open("", "0 0 * * ?", "* * * * ?", 1)
	minuteAgo := enginetest.Start.Add(-time.Minute).Unix()
	said := func(d kapacity.PortraitData) (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
		return reactive(1), &d
	}
	for name, c := range map[string]struct {
		of      func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData)
		as      string
		expires time.Duration // after the start of the world; 0 for never
	}{
		"row 3: a cron provider": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) { return crons(1, always), nil }, "Cron", time.Minute},
		"row 5: a static provider": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
			return enginetest.Static(1, 1), nil
		}, "Static", 0},
		"row 7: a portrait with static data": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
			return said(kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: 1}})
		}, "Dynamic-Reactive", 0},
		"row 8: a portrait with cron data": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
			return said(kapacity.PortraitData{Type: kapacity.CronPortraitData, Cron: &kapacity.CronPortrait{Crons: []kapacity.ReplicaCron{always}}})
		}, "Dynamic-Reactive", time.Minute},
		"row 9: a portrait with a time series": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
			return said(kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData,
				TimeSeries: &kapacity.TimeSeriesPortrait{TimeSeries: []kapacity.ReplicaTimeSeriesPoint{{Timestamp: minuteAgo, Replicas: 1}}}})
		}, "Dynamic-Reactive", 0},
		"expiry: that of the data before the next point": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
			return said(kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, ExpireTime: ptr.To(metav1.NewTime(enginetest.Start.Add(30 * time.Second))),
				TimeSeries: &kapacity.TimeSeriesPortrait{TimeSeries: []kapacity.ReplicaTimeSeriesPoint{{Timestamp: minuteAgo, Replicas: 1}, {Timestamp: minuteAgo + 120, Replicas: 2}}}})
		}, "Dynamic-Reactive", 30 * time.Second},
		"expiry: the next point before that of the data": {func() (kapacity.HorizontalPortraitProvider, *kapacity.PortraitData) {
			return said(kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, ExpireTime: ptr.To(metav1.NewTime(enginetest.Start.Add(time.Hour))),
				TimeSeries: &kapacity.TimeSeriesPortrait{TimeSeries: []kapacity.ReplicaTimeSeriesPoint{{Timestamp: minuteAgo, Replicas: 1}, {Timestamp: minuteAgo + 120, Replicas: 2}}}})
		}, "Dynamic-Reactive", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			provider, data := c.of()
			w := world(t, enginetest.Deployment(3), enginetest.IHPAOf("Deployment", nil, provider))
			if data != nil {
				w.Settle()
				tell(w, *data)
			}
			w.Settle()
			want := &kapacity.PortraitValue{Provider: c.as, Replicas: 1}
			if c.expires > 0 {
				want.ExpireTime = ptr.To(metav1.NewTime(enginetest.Start.Add(c.expires)))
			}
			if got := w.IHPA().Status.CurrentPortraitValue; !cmp.Equal(want, got) || numbers(w) != "1/0" {
				t.Errorf("%s, value (-want +got):\n%s", numbers(w), cmp.Diff(want, got))
			}
		})
	}
}

// tell writes the status of the reactive portrait, as its generator does.
func tell(w *enginetest.World, d kapacity.PortraitData) {
	w.T.Helper()
	w.Simulate(func() {
		hp := portraitOf(w)
		hp.Status.PortraitData = &d
		w.Must(w.Client.Status().Update(w.Context(), hp))
	})
}

func tellStatic(w *enginetest.World, replicas int32) {
	w.T.Helper()
	tell(w, kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: replicas}})
}

// Rows 18 and 22: the label and the readiness gate of a pod in each state.
func TestRow18And22LabelsAndGates(t *testing.T) {
	for state, hold := range map[kapacity.PodState]string{kapacity.PodStateCutoff: "Cutoff", kapacity.PodStateStandby: "Standby"} {
		t.Run(hold, func(t *testing.T) {
			w := world(t, enginetest.StatefulSet(2, appsv1.ParallelPodManagement), enginetest.IHPAOf("StatefulSet",
				&kapacity.GrayStrategy{GrayState: state, ChangePercent: 100, ChangeIntervalSeconds: 30, ObservationSeconds: 60}, enginetest.Static(1, 2)))
			w.Advance(0)
			pod := func(when, label string, gate corev1.ConditionStatus) {
				t.Helper()
				p := w.Pods()[1]
				got, there := p.Labels[kapacity.PodStateLabel]
				if got != label || there != (label != "") {
					t.Errorf("%s: label %q, there %t, want %q", when, got, there, label)
				}
				for _, c := range p.Status.Conditions {
					if c.Type == kapacity.OnlineConditionType && c.Status != gate {
						t.Errorf("%s: condition %s=%s, want %s", when, c.Type, c.Status, gate)
					}
				}
			}
			pod("online", "", corev1.ConditionTrue)
			to(w, 1)
			w.Advance(time.Second)
			pod("held", hold, corev1.ConditionFalse)
			to(w, 2)
			w.Advance(time.Second)
			pod("online again", "", corev1.ConditionTrue)
		})
	}
}

// Row 33: the documented windows, of which none covers the last ten minutes of an hour.
func TestRow33WindowsThatLeaveAHole(t *testing.T) {
	var rules []kapacity.ReplicaCron
	for i := range int32(5) {
		rules = append(rules, open(fmt.Sprint("cron-", i+1), fmt.Sprint(i*10, " * * * *"), fmt.Sprint(i*10+10, " * * * *"), i+1))
	}
	w := world(t, enginetest.Deployment(1), enginetest.IHPAOf("Deployment", nil, crons(1, rules...)))
	if got, want := timeline(w, 50*60-1), "0:1/0 600:2/0 1200:3/0 1800:4/0 2400:5/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.Events.Take()
	w.Advance(time.Second)
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonNoValidPortraitValue, kapacity.MessageNoValidPortraitValue)
	if diff := cmp.Diff([]string{"ihpa_controller Warning NoValidPortraitValue no valid portrait value for now"}, w.Events.Take()); diff != "" {
		t.Errorf("minute 50: events (-want +got):\n%s", diff)
	}
	if got, want := timeline(w, 10*60), "0:5/0 600:1/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionTrue, kapacity.ReasonSucceededAutoscaling, "")
}

// updates are the numbers of online pods that the events tell of since they were last taken.
func updates(w *enginetest.World) (out []string) {
	for _, e := range w.Events.Take() {
		var from, to int
		_, text, found := strings.Cut(e, "update ReplicaProfile with onlineReplcas: ")
		if _, err := fmt.Sscanf(text, "%d -> %d,", &from, &to); found && err == nil {
			out = append(out, fmt.Sprintf("%d->%d", from, to))
		}
	}
	return out
}

// Rows 34 and 35: the documented reactive and predictive portraits, each followed at once without a gray strategy.
func TestRows34And35ReactiveAndPredictiveScaling(t *testing.T) {
	w := world(t, enginetest.Deployment(1), enginetest.IHPAOf("Deployment", nil, reactive(1)))
	w.Settle()
	tellStatic(w, 1)
	w.Settle()
	w.Events.Take()
	for _, replicas := range []int32{6, 4, 1} {
		tellStatic(w, replicas)
		w.Advance(30 * time.Second)
		if got, want := numbers(w), fmt.Sprint(replicas, "/0"); got != want {
			t.Errorf("row 34: got %s, want %s", got, want)
		}
	}
	if diff := cmp.Diff([]string{"1->6", "6->4", "4->1"}, updates(w)); diff != "" {
		t.Errorf("row 34 (-want +got):\n%s", diff)
	}
	now := w.Clock.Now().Unix()
	tell(w, kapacity.PortraitData{Type: kapacity.TimeSeriesPortraitData, ExpireTime: ptr.To(metav1.Unix(now+1800, 0)), TimeSeries: &kapacity.TimeSeriesPortrait{
		TimeSeries: []kapacity.ReplicaTimeSeriesPoint{{Timestamp: now, Replicas: 4}, {Timestamp: now + 600, Replicas: 3}, {Timestamp: now + 1200, Replicas: 2}}}})
	if got, want := timeline(w, 1900), "0:4/0 600:3/0 1200:2/0"; got != want {
		t.Errorf("row 35: got %s, want %s", got, want)
	}
	if diff := cmp.Diff([]string{"1->4", "4->3", "3->2"}, updates(w)); diff != "" {
		t.Errorf("row 35 (-want +got):\n%s", diff)
	}
	expect(w, kapacity.ConditionScalingActive, metav1.ConditionFalse, kapacity.ReasonNoValidPortraitValue, "")
}

// Case F: the bound is gone to by the steps of a target that lies within.
func TestCaseFATargetAboveMaxKeepsTheSteps(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 1))
	o.Spec.MaxReplicas = 10
	o.Spec.Behavior.ScaleUp.GrayStrategy = &kapacity.GrayStrategy{GrayState: kapacity.PodStateOnline, ChangePercent: 25, ChangeIntervalSeconds: 10}
	w := world(t, enginetest.Deployment(1), o)
	w.Advance(0)
	to(w, 20)
	if got, want := timeline(w, 31), "0:3/0 10:5/0 20:7/0 30:10/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionTrue, kapacity.ReasonTooManyReplicas, kapacity.MessageTooManyReplicas)
	if s := w.IHPA().Status; s.CurrentPortraitValue.Replicas != 20 || *s.DesiredReplicas != 10 {
		t.Errorf("the portrait's number and the bound are two things: %+v, desired %d", s.CurrentPortraitValue, *s.DesiredReplicas)
	}
}

// Case Q.
func TestCaseQBeyondTheBoundsWithoutGray(t *testing.T) {
	o := enginetest.IHPAOf("Deployment", nil, enginetest.Static(1, 5))
	o.Spec.MinReplicas, o.Spec.MaxReplicas = 1, 10
	w := world(t, enginetest.Deployment(5), o)
	w.Advance(0)
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionFalse, kapacity.ReasonDesiredWithinRange, kapacity.MessageDesiredWithinRange)
	to(w, 0)
	w.Advance(0)
	if got := numbers(w); got != "1/0" {
		t.Errorf("want 0, min 1: %s", got)
	}
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionTrue, kapacity.ReasonTooFewReplicas, kapacity.MessageTooFewReplicas)
	to(w, 99)
	w.Advance(0)
	if got := numbers(w); got != "10/0" {
		t.Errorf("want 99, max 10: %s", got)
	}
	expect(w, kapacity.ConditionScalingLimited, metav1.ConditionTrue, kapacity.ReasonTooManyReplicas, kapacity.MessageTooManyReplicas)
}

// Case S: a reactive portrait says the same again every few seconds, with an expiry that is nil, zero, or a moving one.
func TestCaseSAReactivePortraitThatIsRefreshedDoesNotDisturbTheRun(t *testing.T) {
	for name, expiry := range map[string]func(now time.Time) *metav1.Time{
		"no expiry":     func(time.Time) *metav1.Time { return nil },
		"a zero expiry": func(time.Time) *metav1.Time { return &metav1.Time{} },
		"a moving one":  func(now time.Time) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(time.Minute))) },
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, enginetest.Deployment(10), enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), reactive(1)))
			w.Settle()
			say := func(replicas int32) {
				tell(w, kapacity.PortraitData{Type: kapacity.StaticPortraitData, Static: &kapacity.StaticPortrait{Replicas: replicas}, ExpireTime: expiry(w.Clock.Now())})
			}
			say(10)
			w.Advance(10 * time.Second)
			var got []string
			last := numbers(w)
			for second := 10; second <= 110; second++ {
				if second%3 == 1 {
					say(4)
				}
				w.Settle()
				if n := numbers(w); n != last {
					got = append(got, fmt.Sprint(second, ": ", n))
					last = n
				}
				w.Advance(time.Second - time.Nanosecond)
				w.Clock.SetTime(w.Clock.Now().Add(time.Nanosecond))
			}
			if diff := cmp.Diff([]string{"10: 7/3", "40: 4/6", "100: 4/0"}, got); diff != "" {
				t.Errorf("online/cutoff (-want +got):\n%s", diff)
			}
		})
	}
}

// The conditions and events of an IHPA whose writes fail, and of a run on its way.
func TestRowsOfConditions(t *testing.T) {
	failing := func(what string) func(*enginetest.World) {
		return func(w *enginetest.World) {
			w.Fail = func(write string) error {
				if strings.HasPrefix(write, what) {
					return errors.New("etcd is full")
				}
				return nil
			}
		}
	}
	taken := &kapacity.ReplicaProfile{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Oracle", Name: "delphi", UID: "1", Controller: ptr.To(true)}}}}
	for name, c := range map[string]struct {
		beforehand []client.Object
		kind       string
		do         func(w *enginetest.World)
		status     metav1.ConditionStatus
		reason     string
		message    string
		warned     bool
	}{
		"ScalingActive FailedGetReplicaProfile": {beforehand: []client.Object{taken}, kind: kapacity.ConditionScalingActive, do: func(w *enginetest.World) { w.Fail = func(string) error { return nil } },
			reason: "FailedGetReplicaProfile", message: "failed to get ReplicaProfile: ReplicaProfile shop/nginx is controlled by Oracle delphi (uid 1)", warned: true},
		"ScalingActive FailedUpdateReplicaProfile": {kind: kapacity.ConditionScalingActive, do: func(w *enginetest.World) { failing("patch ReplicaProfile nginx")(w); to(w, 2) },
			reason: "FailedUpdateReplicaProfile", message: "failed to patch ReplicaProfile: etcd is full", warned: true},
		"ScalingActive FailedDeleteReplicaProfile": {kind: kapacity.ConditionScalingActive, do: func(w *enginetest.World) {
			failing("delete ReplicaProfile")(w)
			w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) { o.Spec.ScaleMode = kapacity.ScaleModePreview })
		}, reason: "FailedDeleteReplicaProfile", message: "failed to delete ReplicaProfile: delete ReplicaProfile: etcd is full", warned: true},
		"GrayProgressing ReplicasNotMatchPortrait": {kind: kapacity.ConditionGrayProgressing, do: func(w *enginetest.World) { to(w, 2) },
			status: metav1.ConditionTrue, reason: "ReplicasNotMatchPortrait", message: "online replica count does not match replica count of current portrait value"},
		"GrayProgressing ReplicasMatchPortrait": {kind: kapacity.ConditionGrayProgressing, do: func(*enginetest.World) {},
			reason: "ReplicasMatchPortrait", message: "online replica count matches replica count of current portrait value"},
		"GrayProgressing ReplicasMatchPortrait under observation": {kind: kapacity.ConditionGrayProgressing, do: func(w *enginetest.World) {
			to(w, 2)
			w.Advance(40 * time.Second)
			if got := numbers(w); got != "2/4" {
				t.Errorf("not under observation: %s", got)
			}
		}, reason: "ReplicasMatchPortrait", message: "online replica count matches replica count of current portrait value"},
		"GrayStalled GrayRunning": {kind: kapacity.ConditionGrayStalled, do: func(w *enginetest.World) { to(w, 2) }, reason: kapacity.ReasonGrayRunning, message: "the gray run goes on"},
		"GrayStalled GrayNotRunning": {kind: kapacity.ConditionGrayStalled, do: func(*enginetest.World) {}, reason: kapacity.ReasonGrayNotRunning,
			message: "no gray run is going on"},
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, append(c.beforehand, enginetest.Deployment(6))...)
			w.Simulate(func() {
				w.Must(w.Client.Create(w.Context(), enginetest.IHPAOf("Deployment", enginetest.Cutoff(50, 30, 60), enginetest.Static(1, 6))))
			})
			if c.beforehand == nil {
				w.Advance(0)
				w.Events.Take()
			}
			c.do(w)
			w.Settle()
			if c.status == "" {
				c.status = metav1.ConditionFalse
			}
			expect(w, c.kind, c.status, c.reason, c.message)
			told := 0
			for _, e := range w.Events.Take() {
				if strings.HasPrefix(e, "ihpa_controller Warning "+c.reason+" "+c.message) {
					told++
				}
			}
			if told > 1 || c.warned != (told == 1) {
				t.Errorf("told %d times", told)
			}
		})
	}
}

// The same of the ReplicaProfile's writes: each failure has the reason of Kapacity's, is told once, and what failed is done once it can be.
func TestRowsOfProfileConditions(t *testing.T) {
	for name, c := range map[string]struct {
		fail, reason string
		state        kapacity.PodState
		// The count goes from 4 to 2, and back up to 4 for those that fail on the way.
		back bool
		end  string
	}{
		"FailedCutoffPods":         {fail: "patch Pod/status", reason: "FailedCutoffPods", end: "2/0"},
		"FailedSetPodState":        {fail: "patch Pod", reason: "FailedSetPodState", state: kapacity.PodStateStandby, end: "2/0"},
		"FailedOnlinePods":         {fail: "patch Pod/status", reason: "FailedOnlinePods", back: true, end: "4/0"},
		"FailedSelectPodsToDelete": {fail: "patch Pod nginx", reason: "FailedSelectPodsToDelete", end: "2/0"},
		"FailedUpdateScale":        {fail: "update Deployment/scale", reason: "FailedUpdateScale", end: "2/0"},
	} {
		t.Run(name, func(t *testing.T) {
			strategy := enginetest.Cutoff(100, 30, 60)
			if c.state != "" {
				strategy.GrayState = c.state
			}
			w := world(t, enginetest.Deployment(4), enginetest.IHPAOf("Deployment", strategy, enginetest.Static(1, 4)))
			w.Advance(0)
			refuse := func(write string) error {
				if strings.HasPrefix(write, c.fail) {
					return errors.New("refused")
				}
				return nil
			}
			later := c.reason == "FailedSelectPodsToDelete" || c.reason == "FailedUpdateScale" // what comes after the observation
			if !c.back && !later {
				w.Fail = refuse
			}
			to(w, 2)
			w.Settle()
			if c.back || later {
				w.Advance(50 * time.Second)
				w.Fail = refuse
			}
			if c.back {
				to(w, 4)
				w.Settle()
			}
			if later {
				w.Advance(20 * time.Second)
			}
			for range 3 {
				w.Settle()
			}
			applied := meta.FindStatusCondition(w.Profile().Status.Conditions, kapacity.ConditionApplied)
			if applied == nil || applied.Status != metav1.ConditionFalse || applied.Reason != c.reason || !strings.Contains(applied.Message, "refused") {
				t.Errorf("applied: %+v", applied)
			}
			told := 0
			for _, e := range w.Events.Take() {
				if strings.HasPrefix(e, "replica_profile_controller Warning "+c.reason) {
					told++
				}
			}
			if told != 1 {
				t.Errorf("told %d times", told)
			}
			w.Fail = nil
			w.Advance(3 * time.Minute)
			if got := numbers(w); got != c.end {
				t.Errorf("ends at %s, want %s: %s", got, c.end, w.States())
			}
			if applied := meta.FindStatusCondition(w.Profile().Status.Conditions, kapacity.ConditionApplied); applied.Status != metav1.ConditionTrue {
				t.Errorf("applied: %+v", applied)
			}
		})
	}
}

// What cannot be read is the reason, whoever wanted to read it.
func TestRowsOfReadsThatFail(t *testing.T) {
	refused := errors.New("the server is on fire")
	for name, c := range map[string]struct {
		funcs interceptor.Funcs
		kind  string
	}{
		"FailedListPods": {interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, pods := list.(*corev1.PodList); pods {
				return refused
			}
			return c.List(ctx, list, opts...)
		}}, "Deployment"},
		"FailedGetScale": {interceptor.Funcs{SubResourceGet: func(context.Context, client.Client, string, client.Object, client.Object, ...client.SubResourceGetOption) error {
			return refused
		}}, "ReplicationController"},
	} {
		t.Run(name, func(t *testing.T) {
			o := enginetest.IHPAOf(c.kind, nil, enginetest.Static(1, 3))
			rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name}}
			if c.kind == "ReplicationController" {
				o.Spec.ScaleTargetRef.APIVersion = "v1"
			}
			rp := &kapacity.ReplicaProfile{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: enginetest.Name, Finalizers: []string{kapacity.Finalizer}},
				Spec: kapacity.ReplicaProfileSpec{ScaleTargetRef: o.Spec.ScaleTargetRef, OnlineReplicas: 3}}
			w := world(t, enginetest.Deployment(3), rc, rp)
			w.Advance(0)
			broken := &replicaprofile.Reconciler{Client: interceptor.NewClient(w.Client, c.funcs), Clock: w.Clock,
				Recorder: w.Events.Recorder(kapacity.ReplicaProfileEventComponent), Live: w.Client}
			w.Events.Take()
			for range 3 {
				if _, err := broken.Reconcile(w.Context(), enginetest.Request); err == nil {
					t.Error("no error for the back-off")
				}
			}
			for _, kind := range []string{kapacity.ConditionApplied, kapacity.ConditionEnsured} {
				if got := meta.FindStatusCondition(w.Profile().Status.Conditions, kind); got == nil || got.Status != metav1.ConditionFalse || got.Reason != name || !strings.Contains(got.Message, refused.Error()) {
					t.Errorf("%s: %+v", kind, got)
				}
			}
			if events := w.Events.Take(); len(events) != 1 || !strings.HasPrefix(events[0], "replica_profile_controller Warning "+name) {
				t.Errorf("events %v", events)
			}
		})
	}
}
