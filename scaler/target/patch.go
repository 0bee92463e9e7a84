package target

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// attempts bounds how often a patch is tried while somebody else writes the object, too.
const attempts = 5

// Patch has write send what differs between before and o, on condition that nobody has changed the object meanwhile. A merge patch
// replaces whole lists, hence the condition. Where somebody has, but all that matters is still the same, it is sent again for the
// object as it is: one who keeps writing annotations, say, must not keep us from our work. live reads past the cache; with nil,
// and in all other cases, the error is the API server's.
func Patch[T client.Object](ctx context.Context, live client.Reader, before, o T, write func(client.Object, client.Patch) error, same func(before, is T) bool) error {
	for attempt := 1; ; attempt++ {
		err := write(o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if !apierrors.IsConflict(err) || live == nil || attempt == attempts {
			return err
		}
		is := before.DeepCopyObject().(T)
		if live.Get(ctx, client.ObjectKeyFromObject(before), is) != nil || is.GetUID() != before.GetUID() ||
			before.GetDeletionTimestamp().IsZero() != is.GetDeletionTimestamp().IsZero() || !same(before, is) {
			return err
		}
		before = before.DeepCopyObject().(T)
		before.SetResourceVersion(is.GetResourceVersion())
		o.SetResourceVersion(is.GetResourceVersion())
	}
}
