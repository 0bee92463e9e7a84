package main

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/podstate"
)

func TestCleanupLeavesNothingThatWaitsForKubetide(t *testing.T) {
	ours := metav1.ObjectMeta{Namespace: "shop", Name: "cart", Finalizers: []string{kapacity.Finalizer, "example.com/other"}}
	pod := func(name string, gated bool, labels, annotations map[string]string, conditions ...corev1.PodCondition) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels, Annotations: annotations}, Status: corev1.PodStatus{Conditions: conditions}}
		if gated {
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: kapacity.OnlineConditionType}}
		}
		return p
	}
	cost := strconv.Itoa(int(podstate.DeletionCost))
	off := corev1.PodCondition{Type: kapacity.OnlineConditionType, Status: corev1.ConditionFalse}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	api := fake.NewClientBuilder().WithScheme(newScheme()).WithObjects(
		&kapacity.IntelligentHorizontalPodAutoscaler{ObjectMeta: *ours.DeepCopy()},
		&kapacity.ReplicaProfile{ObjectMeta: *ours.DeepCopy()},
		&kapacity.HorizontalPortrait{ObjectMeta: *ours.DeepCopy()},
	).WithStatusSubresource(&corev1.Pod{}).WithObjects(
		pod("cut", true, map[string]string{"app": "cart", kapacity.PodStateLabel: "Cutoff"}, map[string]string{corev1.PodDeletionCost: cost}, ready, off),
		pod("new", true, nil, nil),
		pod("somebodys", false, map[string]string{"app": "cart"}, map[string]string{corev1.PodDeletionCost: "5"}),
	).Build()
	var out bytes.Buffer
	if err := cleanup(t.Context(), api, &out); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{&kapacity.IntelligentHorizontalPodAutoscaler{}, &kapacity.ReplicaProfile{}, &kapacity.HorizontalPortrait{}} {
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(&kapacity.ReplicaProfile{ObjectMeta: ours}), o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"example.com/other"}, o.GetFinalizers()); diff != "" {
			t.Errorf("%T: finalizers (-want +got):\n%s", o, diff)
		}
	}
	type state struct {
		Labels, Annotations map[string]string
		Online              corev1.ConditionStatus
		Conditions          int
	}
	got := map[string]state{}
	var pods corev1.PodList
	if err := api.List(t.Context(), &pods); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		s := state{Labels: p.Labels, Annotations: p.Annotations, Conditions: len(p.Status.Conditions)}
		for _, c := range p.Status.Conditions {
			if c.Type == kapacity.OnlineConditionType {
				s.Online = c.Status
			}
		}
		got[p.Name] = s
	}
	want := map[string]state{
		"cut":       {Labels: map[string]string{"app": "cart"}, Online: corev1.ConditionTrue, Conditions: 2},
		"new":       {Online: corev1.ConditionTrue, Conditions: 1},
		"somebodys": {Labels: map[string]string{"app": "cart"}, Annotations: map[string]string{corev1.PodDeletionCost: "5"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s\n%s", diff, out.String())
	}
}
