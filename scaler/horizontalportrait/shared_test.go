package horizontalportrait

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

// of makes a pod of this owner that has the workload's labels.
func of(name, apiVersion, kind, owner string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := pod(name, nil)
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: owner, UID: types.UID(kind + "-" + owner), Controller: ptr.To(true)}}
	for _, c := range change {
		c(p)
	}
	return p
}

func replicaSet(name, deployment string) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: enginetest.Namespace, Name: name, UID: types.UID("ReplicaSet-" + name)}}
	if deployment != "" {
		rs.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: deployment, UID: types.UID(deployment), Controller: ptr.To(true)}}
	}
	return rs
}

func TestWorkloadsThatShareASelectorAreNamed(t *testing.T) {
	done := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	for name, c := range map[string]struct {
		others    []client.Object
		selection kapacity.PodSelection
		want      string
	}{
		"nobody":                        {},
		"a pod without an owner":        {others: []client.Object{pod("bare", nil)}},
		"a Job":                         {others: []client.Object{of("load-1", "batch/v1", "Job", "load")}, want: "pods of Job load as well"},
		"a Job that is done":            {others: []client.Object{of("load-1", "batch/v1", "Job", "load", done)}},
		"a Deployment, by its sets":     {others: []client.Object{replicaSet("other-1", "other"), replicaSet("other-2", "other"), of("a", "apps/v1", "ReplicaSet", "other-1"), of("b", "apps/v1", "ReplicaSet", "other-2")}, want: "pods of Deployment other as well"},
		"a ReplicaSet of its own":       {others: []client.Object{replicaSet("other-1", ""), of("a", "apps/v1", "ReplicaSet", "other-1")}, want: "pods of ReplicaSet other-1 as well"},
		"a ReplicaSet not yet seen":     {others: []client.Object{of("a", "apps/v1", "ReplicaSet", "other-1")}},
		"several, in order":             {others: []client.Object{of("z", "batch/v1", "Job", "z"), of("a", "batch/v1", "Job", "a"), of("c", "x/v1", "Job", "c"), of("d", "batch/v1", "Job", "d")}, want: "pods of Job a, Job c, Job d, and others as well"},
		"pods by owner are nobody else": {others: []client.Object{of("load-1", "batch/v1", "Job", "load")}, selection: kapacity.OwnerPodSelection},
	} {
		t.Run(name, func(t *testing.T) {
			hp := portrait(rps("10"))
			hp.Spec.Algorithm.KubeHPA = &kapacity.KubeHPAPortraitAlgorithm{PodSelection: c.selection}
			g := newRig(t, hp, append(workload(2, 2), c.others...)...)
			g.says("rps", 10_000, 10_000)
			g.sync()
			g.Events.Take()
			g.sync()
			if events := g.Events.Take(); len(events) > 0 {
				t.Errorf("told again: %q", events)
			}
			cond := meta.FindStatusCondition(g.hp().Status.Conditions, kapacity.ConditionSelectorShared)
			if c.want == "" {
				if cond != nil {
					t.Errorf("%+v", cond)
				}
				return
			}
			if cond == nil || cond.Status != metav1.ConditionTrue || !strings.Contains(cond.Message, "the selector of StatefulSet shop/nginx matches "+c.want) {
				t.Fatalf("%+v", cond)
			}
			g.edit(func(hp *kapacity.HorizontalPortrait) {
				hp.Spec.Algorithm.KubeHPA.PodSelection = kapacity.OwnerPodSelection
			})
			g.sync()
			if cond := meta.FindStatusCondition(g.hp().Status.Conditions, kapacity.ConditionSelectorShared); cond != nil {
				t.Errorf("it stays: %+v", cond)
			}
		})
	}
}

func TestASharedSelectorIsAnEvent(t *testing.T) {
	g := newRig(t, portrait(rps("10")), append(workload(2, 2), of("load-1", "batch/v1", "Job", "load"))...)
	g.says("rps", 10_000, 10_000)
	g.sync()
	if events := strings.Join(g.Events.Take(), "\n"); strings.Count(events, kapacity.ReasonPodsOfOthers) != 1 {
		t.Errorf("events %q", events)
	}
}
