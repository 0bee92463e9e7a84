package target

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestAPatchPassesBySomebodyWhoWritesSomethingElse(t *testing.T) {
	ctx := context.Background()
	same := func(before, is *corev1.ConfigMap) bool { return before.Data["count"] == is.Data["count"] }
	cases := map[string]struct {
		others func(attempt int, o *corev1.ConfigMap) bool // what somebody writes before each attempt; false for nothing
		live   bool
		want   string // of count; empty for a conflict
		tries  int
	}{
		"nobody else writes":          {others: func(int, *corev1.ConfigMap) bool { return false }, live: true, want: "2", tries: 1},
		"something else, three times": {others: func(n int, o *corev1.ConfigMap) bool { o.Data["note"] += "x"; return n <= 3 }, live: true, want: "2", tries: 4},
		"something else, for ever":    {others: func(_ int, o *corev1.ConfigMap) bool { o.Data["note"] += "x"; return true }, live: true, tries: attempts},
		"what matters":                {others: func(n int, o *corev1.ConfigMap) bool { o.Data["count"] = "7"; return n == 1 }, live: true, tries: 1},
		"no live reader":              {others: func(n int, o *corev1.ConfigMap) bool { o.Data["note"] += "x"; return n == 1 }, tries: 1},
		"deleted meanwhile":           {others: func(n int, o *corev1.ConfigMap) bool { o.Data["note"] = "deleted"; return n == 1 }, live: true, tries: 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", Finalizers: []string{"a.b/c"}}, Data: map[string]string{"count": "1"}}
			store := fake.NewClientBuilder().WithObjects(o).Build()
			if err := store.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			before := o.DeepCopy()
			o.Data["count"] = "2"
			var live client.Reader
			if c.live {
				live = store
			}
			tries := 0
			err := Patch(ctx, live, before, o, func(o client.Object, p client.Patch) error {
				tries++
				other := &corev1.ConfigMap{}
				if err := store.Get(ctx, client.ObjectKeyFromObject(o), other); err != nil {
					t.Fatal(err)
				}
				if c.others(tries, other) {
					if err := store.Update(ctx, other); err != nil {
						t.Fatal(err)
					}
					if other.Data["note"] == "deleted" {
						if err := store.Delete(ctx, other); err != nil {
							t.Fatal(err)
						}
					}
				}
				return store.Patch(ctx, o, p)
			}, same)
			if tries != c.tries || (c.want == "") != apierrors.IsConflict(err) || c.want != "" && (err != nil || o.Data["count"] != c.want) {
				t.Errorf("%d attempts, want %d; count %s, want %q; %v", tries, c.tries, o.Data["count"], c.want, err)
			}
			is := &corev1.ConfigMap{}
			if err := store.Get(ctx, client.ObjectKeyFromObject(o), is); err != nil {
				t.Fatal(err)
			}
			if c.want != "" && name != "nobody else writes" && is.Data["note"] != "xxx" {
				t.Errorf("what somebody else wrote is now %q", is.Data["note"])
			}
		})
	}
}
