package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/workloads/stackset/traffic"
)

// fieldManager is under which the plugin writes.
const fieldManager = "kubectl-tide"

func (p plugin) trafficCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "traffic NAME [STACK WEIGHT]", Short: "Show or change how a StackSet's traffic is shared out",
		Long: `Show how a StackSet's traffic is shared out, or change it: STACK, by its name or its version, gets WEIGHT percent, and the other Stacks
share the rest in the proportion that they have. It writes spec.traffic. The traffic itself moves when all Stacks that get more of it are
ready; "kubectl tide get stackset NAME --watch" shows it.`,
		Example: `  kubectl tide traffic cart -n shop
  kubectl tide traffic cart v2 25 -n shop`,
	}
	return p.asks(completesName(cmd, config, stackSets), config, func(args []string) (question, error) {
		weight, err := trafficArguments(cmd, args)
		return func(ctx context.Context, r *reader, as format) error {
			var s *sharing
			var err error
			if len(args) == 1 {
				s, err = r.sharing(ctx, args[0])
			} else {
				s, err = r.share(ctx, args[0], args[1], weight)
			}
			if err != nil {
				return err
			}
			return show(p, as, s, printer.sharing)
		}, err
	})
}

func trafficArguments(cmd *cobra.Command, args []string) (weight int, err error) {
	if len(args) != 1 && len(args) != 3 || slices.ContainsFunc(args[:min(len(args), 2)], func(name string) bool { return !named(name) }) {
		return 0, usageError{fmt.Errorf("name a StackSet, and to change its traffic a Stack and a weight; see %s --help", cmd.CommandPath())}
	}
	if len(args) == 1 {
		return 0, nil
	}
	weight, err = strconv.Atoi(strings.TrimSuffix(args[2], "%"))
	if err != nil || weight < 0 || weight > 100 {
		return 0, usageError{fmt.Errorf("the weight is a whole number from 0 to 100, in percent, not %q", args[2])}
	}
	return weight, nil
}

// sharing is how the traffic of a StackSet is shared out, in percent.
type sharing struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Changed tells that it was written just now.
	Changed bool `json:"changed"`
	// Stacks are in the order of their creation.
	Stacks []part `json:"stacks"`

	set *zalando.StackSet
}

// part is a Stack's: what the spec asks for and, where that was changed, asked for before; what was decided; what routers have.
type part struct {
	Name    string   `json:"name"`
	Before  *float64 `json:"before,omitempty"`
	Weight  float64  `json:"weight"`
	Desired float64  `json:"desired"`
	Actual  float64  `json:"actual"`
}

func (r *reader) sharing(ctx context.Context, name string) (*sharing, error) {
	set, err := r.stackSet(ctx, name)
	if err != nil {
		return nil, err
	}
	list := &zalando.StackList{}
	if err := r.stackSets.Get().Namespace(r.namespace).Resource("stacks").VersionedParams(&metav1.ListOptions{LabelSelector: stackSetSelector(set)}, metav1.ParameterCodec).Do(ctx).Into(list); err != nil {
		return nil, fmt.Errorf("stacks can't be listed: %w", err)
	}
	var around []runtime.Object
	for i := range list.Items {
		around = append(around, &list.Items[i])
	}
	s := &sharing{Kind: zalando.StackSetKind, Namespace: set.Namespace, Name: set.Name, Stacks: []part{}, set: set}
	for _, stack := range stacksOf(set, around) {
		p := part{Name: stack.Name, Desired: stack.Status.DesiredTrafficWeight, Actual: stack.Status.ActualTrafficWeight}
		for _, w := range set.Spec.Traffic {
			if w != nil && w.StackName == stack.Name {
				p.Weight = w.Weight
			}
		}
		s.Stacks = append(s.Stacks, p)
	}
	return s, nil
}

// share gives the Stack the weight. Where somebody else wrote meanwhile, it begins anew.
func (r *reader) share(ctx context.Context, name, stack string, weight int) (s *sharing, err error) {
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if s, err = r.sharing(ctx, name); err != nil {
			return err
		}
		if err := s.give(stack, weight); err != nil {
			return err
		}
		if !s.Changed {
			return nil
		}
		var weights []map[string]any
		for _, p := range s.Stacks {
			if p.Weight > 0 {
				weights = append(weights, map[string]any{"stackName": p.Name, "weight": p.Weight})
			}
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": s.set.ResourceVersion, "uid": s.set.UID}, "spec": map[string]any{"traffic": weights}})
		if err != nil {
			return err
		}
		return r.stackSets.Patch(types.MergePatchType).Namespace(r.namespace).Resource(resourceStackSet).Name(name).
			Param("fieldManager", fieldManager).Body(patch).Do(ctx).Error()
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// give lets the Stack have the weight, and the others the rest in the proportion that they have.
func (s *sharing) give(stack string, weight int) error {
	chosen := slices.IndexFunc(s.Stacks, func(p part) bool { return p.Name == stack })
	if chosen < 0 {
		chosen = slices.IndexFunc(s.Stacks, func(p part) bool { return p.Name == s.Name+"-"+stack })
	}
	if chosen < 0 {
		return fmt.Errorf("StackSet %s/%s has no Stack %s; there is %s", s.Namespace, s.Name, stack, s.names())
	}
	before := s.weights()
	others := maps.Clone(before)
	delete(others, s.Stacks[chosen].Name)
	if weight < 100 && !slices.ContainsFunc(slices.Collect(maps.Values(others)), func(w float64) bool { return w > 0 }) {
		return fmt.Errorf("only %s gets traffic, so nobody could have the other %d %%: give another Stack its weight instead; there is %s",
			s.Stacks[chosen].Name, 100-weight, s.names())
	}
	after := map[string]int{}
	if weight < 100 {
		after = traffic.Share(100-weight, others, "")
	}
	after[s.Stacks[chosen].Name] = weight
	for i := range s.Stacks {
		p := &s.Stacks[i]
		asked := p.Weight
		p.Before, p.Weight = &asked, float64(after[p.Name])
		s.Changed = s.Changed || p.Weight != asked
	}
	return nil
}

// weights are what the spec asks for; where it asks for nothing, what was decided, or else what routers have.
func (s *sharing) weights() map[string]float64 {
	for _, of := range []func(part) float64{func(p part) float64 { return p.Weight }, func(p part) float64 { return p.Desired }, func(p part) float64 { return p.Actual }} {
		out, sum := map[string]float64{}, 0.0
		for _, p := range s.Stacks {
			out[p.Name] = max(of(p), 0)
			sum += out[p.Name]
		}
		if sum > 0 {
			return out
		}
	}
	return map[string]float64{}
}

func (s *sharing) names() string {
	var names []string
	for _, p := range s.Stacks {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (p printer) sharing(s *sharing) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s\n\n", s.Kind, printable(s.Namespace), printable(s.Name))
	rows := [][]string{{"STACK", "SPEC", "DESIRED", "ACTUAL"}}
	if s.Changed {
		rows[0] = slices.Insert(rows[0], 1, "WAS")
	}
	for _, part := range s.Stacks {
		row := []string{part.Name, percent(part.Weight), percent(part.Desired), percent(part.Actual)}
		if s.Changed {
			row = slices.Insert(row, 1, percent(*part.Before))
		}
		rows = append(rows, row)
	}
	table(&b, rows)
	switch {
	case len(s.Stacks) == 0:
		b.WriteString("There are no Stacks.\n")
	case s.Changed:
		fmt.Fprintf(&b, "\nspec.traffic was changed. The traffic moves when all Stacks that get more of it are ready:\n  kubectl tide get stackset %s -n %s --watch\n", s.Name, s.Namespace)
	case s.Stacks[0].Before != nil:
		b.WriteString("\nNothing was changed: spec.traffic asks for that already.\n")
	}
	_, err := p.out.Write([]byte(trim(b.String())))
	return err
}
