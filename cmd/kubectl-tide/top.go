package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/pager"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// patience is how long an API server may take to answer while it is watched.
const patience = 10 * time.Second

func (p plugin) topCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "top [ihpa/NAME | hpa/NAME]", Short: "Show how near to their maximum workloads are",
		Long: `Show how near to their maximum the workloads are that HPAs and IHPAs scale, the nearest first. It reads their status with the caller's rights;
what may not be listed is left out, and said so.

DEMAND is the replicas that are asked for before anything limits them: of an IHPA what its portraits come to, of an HPA the most that one of
its metrics asks for, without tolerance and rounding. MIN and MAX are the bounds that hold now, HEADROOM is what is left of MAX. TO MAX, with
--watch, is when the demand reaches MAX if it rises on as it did in the last 60 tables, which are two minutes by default; it says nothing
of what is more than a day off.

On a terminal, red is at the maximum and yellow has less than 20 % left; NO_COLOR turns that off as well as --no-color.`,
		Example: `  kubectl tide top -n shop
  kubectl tide top -A --watch
  kubectl tide top ihpa/cart -n shop -w --interval 5s
  kubectl tide top -A -o json | jq '.items[] | select(.headroomPercent < 20)'`,
	}
	everywhere := cmd.Flags().BoolP("all-namespaces", "A", false, "Show those of all namespaces")
	follow := cmd.Flags().BoolP("watch", "w", false, "Show it again and again, until Ctrl-C")
	interval := cmd.Flags().Duration("interval", 2*time.Second, "With --watch, the time from one table to the next, at least 1s")
	noColour := cmd.Flags().Bool("no-color", false, "Use no colours")
	return p.asks(completes(cmd, config, ihpas, hpas), config, func(args []string) (question, error) {
		of, err := oneMeteredOrAll(cmd, args)
		switch {
		case err != nil:
		case of.name != "" && *everywhere:
			err = usageError{errors.New("one object is in one namespace: name it with --namespace, without --all-namespaces")}
		case *interval < time.Second:
			err = usageError{fmt.Errorf("--interval is at least 1s, not %v", *interval)}
		}
		return func(ctx context.Context, r *reader, as format) error {
			if *follow && as != asText {
				return usageError{fmt.Errorf("--watch shows text, not %s", as)}
			}
			if *everywhere {
				r.namespace = ""
			}
			s := r.scoreboard(of)
			s.look = look{namespaces: *everywhere, trends: *follow, colour: p.screen && !*noColour && os.Getenv("NO_COLOR") == ""}
			if *follow {
				ticker := time.NewTicker(*interval)
				defer ticker.Stop()
				return p.followTop(ctx, s, ticker.C)
			}
			if err := s.read(ctx, p.clock.Now()); err != nil {
				return err
			}
			return show(p, as, s.standings(p.clock.Now()), printer.standings)
		}, err
	})
}

// followTop shows the standings, and again at each tick, until the context ends.
func (p plugin) followTop(ctx context.Context, s *scoreboard, ticks <-chan time.Time) error {
	for first := true; ; first = false {
		within, cancel := context.WithTimeout(ctx, patience)
		err := s.read(within, p.clock.Now())
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C is how it ends
		case err != nil:
			return err
		}
		if p.screen {
			s.look.width, s.look.height = p.size()
		}
		p.separate(asText, first)
		if err := p.printer().standings(s.standings(p.clock.Now())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
	}
}

// size is the screen's; 0 if it is not known.
func (p plugin) size() (width, height int) {
	f, ok := p.out.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// scoreboard keeps what was last seen of the autoscalers.
type scoreboard struct {
	kinds []*autoscalers
	// name is that of the one that is asked for, empty for all, and namespace is empty for all.
	name, namespace string
	look            look
}

// autoscalers are those of one kind.
type autoscalers struct {
	client          rest.Interface
	of              asked
	resource, group string
	rowOf           func(o runtime.Object, now time.Time) (row, bool)

	rows   []row
	trends map[[2]string]trend // by namespace and name
	seen   time.Time           // zero: never
	err    error               // why they can't be seen now
}

// scoreboard is that of one object, or of all.
func (r *reader) scoreboard(of metered) *scoreboard {
	s := &scoreboard{name: of.name, namespace: r.namespace}
	for _, k := range []*autoscalers{
		{client: r.ihpas, of: ihpas, resource: "intelligenthorizontalpodautoscalers", group: kapacity.SchemeGroupVersion.Group,
			rowOf: func(o runtime.Object, now time.Time) (row, bool) {
				ihpa, ok := o.(*kapacity.IntelligentHorizontalPodAutoscaler)
				if !ok {
					return row{}, false
				}
				return rowOfIHPA(ihpa, now), true
			}},
		{client: r.autoscaling, of: hpas, resource: "horizontalpodautoscalers", group: autoscalingv2.GroupName,
			rowOf: func(o runtime.Object, _ time.Time) (row, bool) {
				hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
				if !ok {
					return row{}, false
				}
				return rowOfHPA(hpa), true
			}},
	} {
		if of.name == "" || of.of.short == k.of.short {
			s.kinds = append(s.kinds, k)
		}
	}
	return s
}

func (s *scoreboard) where() string {
	if s.namespace == "" {
		return "all namespaces"
	}
	return "namespace " + s.namespace
}

// read looks at all kinds anew. Once something was seen it fails only where the one that is asked for is gone.
func (s *scoreboard) read(ctx context.Context, now time.Time) error {
	begun := slices.ContainsFunc(s.kinds, func(k *autoscalers) bool { return !k.seen.IsZero() })
	var unseen []string
	for _, k := range s.kinds {
		k.read(ctx, s, now)
		switch {
		case k.err == nil && s.name != "" && len(k.rows) == 0:
			return fmt.Errorf("there is no %s %s in namespace %s", k.of.short, s.name, s.namespace)
		case k.err == nil || begun:
		case apierrors.IsNotFound(k.err), apierrors.IsForbidden(k.err):
			unseen = append(unseen, s.note(k, now))
		default:
			return errors.New(s.note(k, now))
		}
	}
	if len(unseen) == len(s.kinds) {
		return errors.New(strings.Join(unseen, "; "))
	}
	return nil
}

func (k *autoscalers) read(ctx context.Context, s *scoreboard, now time.Time) {
	var rows []row
	k.err = pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		if s.name != "" {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, s.name).String()
		}
		return k.client.Get().Namespace(s.namespace).Resource(k.resource).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Get()
	}).EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		if r, ok := k.rowOf(o, now); ok {
			rows = append(rows, r)
		}
		return nil
	})
	if k.err == nil {
		k.rows, k.seen = rows, now
		k.learn(now)
	}
}

// learn adds what was seen now to the trends, and forgets those of objects that are gone.
func (k *autoscalers) learn(now time.Time) {
	trends := map[[2]string]trend{}
	for i := range k.rows {
		r := &k.rows[i]
		key := [2]string{r.Namespace, r.Name}
		t := k.trends[key]
		if r.Demand != nil {
			t = t.with(point{now, *r.Demand})
			r.toMax = t.toMax(r.Max)
		}
		trends[key] = t
	}
	k.trends = trends
}

// standings are as far as they could be seen.
func (s *scoreboard) standings(now time.Time) *standings {
	out := &standings{Items: []row{}, where: s.where(), look: s.look}
	for _, k := range s.kinds {
		out.Items = append(out.Items, k.rows...)
		if k.err != nil && (!apierrors.IsNotFound(k.err) || !k.seen.IsZero()) { // not every cluster has every kind
			out.Notes = append(out.Notes, s.note(k, now))
		}
	}
	out.sort()
	return out
}

// note says why a kind cannot be seen, and how old is what is shown of it.
func (s *scoreboard) note(k *autoscalers, now time.Time) string {
	why := fmt.Sprintf("%s.%s can't be listed in %s: %v", k.resource, k.group, s.where(), k.err)
	switch {
	case apierrors.IsForbidden(k.err):
		why = fmt.Sprintf("you may not list %s.%s in %s", k.resource, k.group, s.where())
	case apierrors.IsNotFound(k.err):
		why = fmt.Sprintf("the cluster does not serve %s.%s", k.resource, k.group)
	}
	if k.seen.IsZero() {
		return why
	}
	return fmt.Sprintf("%s; what is shown of them is %s old", why, duration.HumanDuration(now.Sub(k.seen)))
}
