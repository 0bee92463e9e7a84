package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/ptr"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/scaler/prescale"
	"github.com/kubetide/kubetide/workloads/stackset/generate"
)

// tree is a StackSet with its Stacks, as it is shown.
type tree struct {
	Kind               string             `json:"kind"`
	Namespace          string             `json:"namespace"`
	Name               string             `json:"name"`
	Version            string             `json:"version"`
	Generation         int64              `json:"generation"`
	ObservedGeneration int64              `json:"observedGeneration"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	// Stacks are in the order of their creation.
	Stacks []branch `json:"stacks"`
	// Notes say what could not be read, and what of the spec does not count.
	Notes []string `json:"notes,omitempty"`
}

// branch is a Stack. Weights are percents.
type branch struct {
	Name          string  `json:"name"`
	DesiredWeight float64 `json:"desiredWeight"`
	ActualWeight  float64 `json:"actualWeight"`
	// Pods are those of the Deployment; nil if it is not there or could not be read.
	Pods           *pods              `json:"pods,omitempty"`
	Forwarded      bool               `json:"forwarded,omitempty"`
	Prescaling     *prescaling        `json:"prescaling,omitempty"`
	Autoscaler     *autoscaler        `json:"autoscaler,omitempty"`
	NoTrafficSince *metav1.Time       `json:"noTrafficSince,omitempty"`
	Conditions     []metav1.Condition `json:"conditions,omitempty"`
}

type pods struct {
	Ready  int32 `json:"ready"`
	Wanted int32 `json:"wanted"`
}

// prescaling is what is held for traffic to come. It is held until Until, or while traffic waits, since PendingSince, at most until
// Deadline.
type prescaling struct {
	Floor        int32        `json:"floor"`
	Weight       float64      `json:"weight"`
	Until        *metav1.Time `json:"until,omitempty"`
	PendingSince *metav1.Time `json:"pendingSince,omitempty"`
	Deadline     *metav1.Time `json:"deadline,omitempty"`
	Failed       bool         `json:"failed,omitempty"`
}

// autoscaler is an HPA or an IHPA. Current and Desired are replicas as its status has them.
type autoscaler struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Min     int32  `json:"min"`
	Max     int32  `json:"max"`
	Current *int32 `json:"current,omitempty"`
	Desired *int32 `json:"desired,omitempty"`
	// Trouble is why it does not scale.
	Trouble string `json:"trouble,omitempty"`
}

// grow makes the tree of a StackSet of whatever was read of its kinds. What is not of its Stacks is left out.
func grow(set *zalando.StackSet, around []runtime.Object) *tree {
	t := &tree{Kind: zalando.StackSetKind, Namespace: set.Namespace, Name: set.Name, Version: set.Spec.StackTemplate.Spec.Version,
		Generation: set.Generation, ObservedGeneration: set.Status.ObservedGeneration, Conditions: slices.Clone(set.Status.Conditions), Stacks: []branch{}}
	settings, _ := prescale.FromAnnotations(set.Annotations)
	for _, stack := range stacksOf(set, around) {
		b := branch{Name: stack.Name, DesiredWeight: stack.Status.DesiredTrafficWeight, ActualWeight: stack.Status.ActualTrafficWeight,
			Forwarded: generate.Source{Stack: stack}.Forwarded(), NoTrafficSince: stack.Status.NoTrafficSince, Conditions: stack.Status.Conditions}
		b.hold(stack.Status.Prescaling, settings)
		for _, o := range around {
			switch o := o.(type) {
			case *appsv1.Deployment:
				if o.Name == stack.Name && owned(o, stack.UID) {
					b.Pods = &pods{Ready: o.Status.ReadyReplicas, Wanted: ptr.Deref(o.Spec.Replicas, 1)}
				}
			case *autoscalingv2.HorizontalPodAutoscaler:
				if scales(o.Spec.ScaleTargetRef, stack.Name) && owned(o, stack.UID) {
					b.Autoscaler = &autoscaler{Kind: "HPA", Name: o.Name, Min: ptr.Deref(o.Spec.MinReplicas, 1), Max: o.Spec.MaxReplicas,
						Current: &o.Status.CurrentReplicas, Desired: &o.Status.DesiredReplicas, Trouble: trouble(o)}
				}
			case *kapacity.IntelligentHorizontalPodAutoscaler:
				if scales(o.Spec.ScaleTargetRef, stack.Name) && owned(o, stack.UID) {
					b.Autoscaler = &autoscaler{Kind: "IHPA", Name: o.Name, Min: o.Spec.MinReplicas, Max: o.Spec.MaxReplicas,
						Current: o.Status.OnlineReplicas, Desired: o.Status.DesiredReplicas}
				}
			}
		}
		t.Stacks = append(t.Stacks, b)
	}
	for _, w := range set.Spec.Traffic {
		if w != nil && !slices.ContainsFunc(t.Stacks, func(b branch) bool { return b.Name == w.StackName }) {
			t.Notes = append(t.Notes, fmt.Sprintf("spec.traffic names %s, which is none of the Stacks: its weight does not count", w.StackName))
		}
	}
	return t
}

// stacksOf are the StackSet's, the oldest first.
func stacksOf(set *zalando.StackSet, around []runtime.Object) (stacks []*zalando.Stack) {
	for _, o := range around {
		if stack, ok := o.(*zalando.Stack); ok && owned(stack, set.UID) {
			stacks = append(stacks, stack)
		}
	}
	slices.SortFunc(stacks, func(a, b *zalando.Stack) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return stacks
}

// owned looks at all owners: these objects have no controller among them.
func owned(o metav1.Object, uid types.UID) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == uid })
}

func scales(ref autoscalingv2.CrossVersionObjectReference, deployment string) bool {
	return ref.Kind == "Deployment" && ref.Name == deployment
}

// trouble is the first condition that keeps an HPA from scaling.
func trouble(o *autoscalingv2.HorizontalPodAutoscaler) string {
	for _, c := range o.Status.Conditions {
		if c.Status == corev1.ConditionFalse && (c.Type == autoscalingv2.AbleToScale || c.Type == autoscalingv2.ScalingActive) {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

func (b *branch) hold(s zalando.PrescalingStatus, settings prescale.Settings) {
	if !s.Active && !s.DeadlineExceeded {
		return
	}
	b.Prescaling = &prescaling{Floor: s.Replicas, Weight: s.DesiredTrafficWeight, PendingSince: s.PendingSince, Failed: s.DeadlineExceeded}
	switch {
	case s.PendingSince != nil:
		b.Prescaling.Deadline = ptr.To(metav1.NewTime(s.PendingSince.Add(settings.Deadline)))
	case s.LastTrafficIncrease != nil:
		b.Prescaling.Until = ptr.To(metav1.NewTime(s.LastTrafficIncrease.Add(settings.ResetDelay)))
	}
}

// tree prints one screen.
func (p printer) tree(t *tree) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s, version %s\n\n", t.Kind, printable(t.Namespace), printable(t.Name), printable(t.Version))
	if t.ObservedGeneration < t.Generation {
		fmt.Fprintf(&b, "  The controller has not yet seen generation %d, only %d.\n", t.Generation, t.ObservedGeneration)
	}
	var head [][]string
	for _, c := range t.Conditions {
		head = append(head, []string{"  " + c.Type, string(c.Status), "for " + duration.HumanDuration(p.now.Sub(c.LastTransitionTime.Time)), because(c)})
	}
	table(&b, head)
	if len(t.Conditions) == 0 {
		b.WriteString("  No conditions: Kubetide has not looked at it yet, or another controller has it.\n")
	}

	b.WriteString("\n")
	if len(t.Stacks) == 0 {
		b.WriteString("There are no Stacks.\n")
	} else {
		p.branches(&b, t.Stacks)
	}
	if len(t.Notes) > 0 {
		b.WriteString("\n")
	}
	for _, n := range t.Notes {
		fmt.Fprintf(&b, "! %s\n", printable(n))
	}
	_, err := io.WriteString(p.out, trim(b.String()))
	return err
}

// branches prints the table of the Stacks, and below each what is wrong with it.
func (p printer) branches(to io.Writer, stacks []branch) {
	rows := [][]string{{"STACK", "DESIRED", "ACTUAL", "PODS", "AUTOSCALER", "PRESCALING", "NO TRAFFIC SINCE"}}
	for i, s := range stacks {
		twig := "├─ "
		if i == len(stacks)-1 {
			twig = "└─ "
		}
		since := "-"
		if s.NoTrafficSince != nil {
			since = p.at(&metav1.MicroTime{Time: s.NoTrafficSince.Time})
		}
		rows = append(rows, []string{twig + s.Name, percent(s.DesiredWeight), percent(s.ActualWeight), s.ready(), s.Autoscaler.text(), p.floor(s.Prescaling), since})
	}
	var b strings.Builder
	table(&b, rows)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	fmt.Fprintln(to, lines[0])
	for i, s := range stacks {
		fmt.Fprintln(to, lines[i+1])
		bar := "│"
		if i == len(stacks)-1 {
			bar = " "
		}
		for _, w := range s.wrong() {
			fmt.Fprintf(to, "%s    ! %s\n", bar, printable(w))
		}
	}
}

// wrong are the Stack's conditions that say so, and why its autoscaler does not scale.
func (b *branch) wrong() (out []string) {
	for _, kind := range []string{"Degraded", "Ready"} {
		c := apimeta.FindStatusCondition(b.Conditions, kind)
		if c != nil && (c.Status == metav1.ConditionTrue) == (kind == "Degraded") {
			out = append(out, fmt.Sprintf("%s %s: %s", c.Type, c.Status, because(*c)))
		}
	}
	if b.Autoscaler != nil && b.Autoscaler.Trouble != "" {
		out = append(out, b.Autoscaler.Kind+": "+b.Autoscaler.Trouble)
	}
	return out
}

func because(c metav1.Condition) string { return note(c.Reason, c.Message) }

func (b *branch) ready() string {
	switch {
	case b.Forwarded:
		return "forwarded"
	case b.Pods == nil:
		return "-"
	}
	return fmt.Sprintf("%d/%d ready", b.Pods.Ready, b.Pods.Wanted)
}

func (a *autoscaler) text() string {
	if a == nil {
		return "-"
	}
	text := fmt.Sprintf("%s %d..%d, has %s", a.Kind, a.Min, a.Max, count(a.Current))
	if a.Desired != nil && (a.Current == nil || *a.Desired != *a.Current) {
		text += ", wants " + count(a.Desired)
	}
	return text
}

func (p printer) floor(h *prescaling) string {
	at := func(t *metav1.Time) string { return p.at(&metav1.MicroTime{Time: t.Time}) }
	switch {
	case h == nil:
		return "-"
	case h.Failed:
		return fmt.Sprintf("not ready in time for %s", percent(h.Weight))
	case h.Deadline != nil:
		return fmt.Sprintf("at least %d, traffic waits until %s", h.Floor, at(h.Deadline))
	case h.Until != nil:
		return fmt.Sprintf("at least %d until %s", h.Floor, at(h.Until))
	}
	return fmt.Sprintf("at least %d", h.Floor)
}

func percent(weight float64) string { return fmt.Sprintf("%.4g %%", weight) }
