package decision

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tide "github.com/kubetide/kubetide/api/tide/v1alpha1"
)

func TestAnExplanationHasWhatThePortraitsKnow(t *testing.T) {
	three, at := int32(3), noon.Add(-time.Minute)
	var portraits Portraits
	portraits.Set("shop", "cart-reactive", Portrait{Name: "cart-reactive", Time: noon, Replicas: &three, Note: "two metrics", Details: []Detail{
		{Metric: "rps", Value: "412", Age: 4 * time.Second, Replicas: &three}, {Metric: "cpu", Value: "50%", Age: 9 * time.Second, Replicas: &three},
		{Metric: "queue", State: "Missing", Age: time.Hour}}})
	portraits.Set("bank", "cart-predictive", Portrait{Name: "another namespace's"})
	r := sample()
	r.Object.Name = "Cart" // portraits' names are in lower case
	r.Candidates = []Candidate{{Provider: "Static"}, {Provider: "Dynamic-Reactive", Replicas: &three, Chosen: true}, {Provider: "Dynamic-Predictive"},
		{Provider: "Dynamic-Reactive", Replicas: &three, Source: "said before", Measured: &at}, {Provider: "Dynamic-Reactive", Failed: true}}
	got := Explain(r, &portraits)
	const source = "HorizontalPortrait cart-reactive"
	measured := metav1.NewMicroTime(noon.Add(-9 * time.Second))
	want := []tide.Candidate{{Provider: "Static"}, {Provider: "Dynamic-Reactive", Replicas: &three, Chosen: true, Source: source, Measured: &measured},
		{Provider: "Dynamic-Predictive"}, {Provider: "Dynamic-Reactive", Replicas: &three, Source: "said before", Measured: new(metav1.NewMicroTime(at))},
		{Provider: "Dynamic-Reactive", Failed: true, Source: source}}
	if diff := cmp.Diff(want, got.Decision.Candidates); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	age := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	portrait := tide.Portrait{Name: "cart-reactive", Time: metav1.NewMicroTime(noon), Replicas: &three, Note: "two metrics", Metrics: []tide.PortraitMetric{
		{Metric: "rps", Value: "412", Age: age(4 * time.Second), Replicas: &three}, {Metric: "cpu", Value: "50%", Age: age(9 * time.Second), Replicas: &three},
		{Metric: "queue", State: "Missing"}}}
	if diff := cmp.Diff([]tide.Portrait{portrait}, got.Portraits); diff != "" {
		t.Errorf("portraits (-want +got):\n%s", diff)
	}
	if got := Explain(r, nil); got.Portraits != nil || got.Name != "Cart" || got.Namespace != "shop" || got.ObjectKind != r.Object.Kind || !got.CreationTimestamp.Time.Equal(noon) {
		t.Errorf("without portraits: %+v", got)
	}
}
