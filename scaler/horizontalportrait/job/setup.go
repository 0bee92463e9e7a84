package job

import (
	"context"
	"fmt"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubetide/kubetide/scaler/horizontalportrait"
)

// Setup puts the jobs into the options of the controller of HorizontalPortraits. Without a namespace there are none.
func Setup(mgr ctrl.Manager, opts Options, into *horizontalportrait.Options) error {
	if opts.Namespace == "" {
		return nil
	}
	direct, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("client of the external algorithms' jobs: %w", err)
	}
	watching, err := metadata.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("watches of the external algorithms' jobs: %w", err)
	}
	j := &Jobs{options: opts, client: direct, clock: clock.RealClock{}, watches: &watches{client: watching, namespace: opts.Namespace}}
	if into.Clock != nil {
		j.clock = into.Clock
	}
	into.Jobs = j
	into.Watch = func(b *builder.Builder) {
		b.WatchesRawSource(source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			j.watches.run(ctx, queue.Add)
			return nil
		}))
	}
	return nil
}
