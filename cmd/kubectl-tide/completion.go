package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// completer is the program that kubectl asks about the plugin's arguments.
const completer = "kubectl_complete-tide"

func (p plugin) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion", Short: "Print the program by which the shell completes the plugin's arguments",
		Long: `Print the program by which the shell completes the plugin's arguments. kubectl's own completion, which has to be set up, runs it under the
name ` + completer + ` from any folder of PATH.`,
		Example: `  kubectl tide completion > ~/.local/bin/` + completer + ` && chmod +x ~/.local/bin/` + completer,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(p.out, "#!/bin/sh\nexec kubectl tide __complete \"$@\"\n")
			return err
		},
	}
}

const (
	// completeWithin is how long a shell waits for names.
	completeWithin = 2 * time.Second
	// maxCompleted is how many names it is given.
	maxCompleted = 500
)

// completes has the shell complete TYPE/NAME, or TYPE NAME, with the objects that are there.
func completes(cmd *cobra.Command, config clientcmd.ClientConfig, of ...asked) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		kind, _, slash := strings.Cut(begun, "/")
		if len(args) > 1 || len(args) == 1 && slash {
			return nil, nothing
		}
		if len(args) == 0 && !slash {
			var kinds []cobra.Completion
			for _, o := range of {
				kinds = append(kinds, o.short+"/")
			}
			return kinds, nothing | cobra.ShellCompDirectiveNoSpace
		}
		prefix := kind + "/"
		if len(args) == 1 {
			kind, prefix = args[0], ""
		}
		for _, o := range of {
			if o.is(kind) {
				return complete(cmd.Context(), config, o, prefix)
			}
		}
		return nil, nothing
	}
	return cmd
}

// completesName has the shell complete the first argument with the names of objects.
func completesName(cmd *cobra.Command, config clientcmd.ClientConfig, of asked) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd.Context(), config, of, "")
	}
	return cmd
}

func complete(ctx context.Context, config clientcmd.ClientConfig, of asked, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	names, err := listNames(ctx, config, of)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
	}
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func listNames(ctx context.Context, config clientcmd.ClientConfig, of asked) (names []cobra.Completion, err error) {
	r, err := newReader(config)
	if err != nil {
		return nil, err
	}
	client, resource := r.stackSets, resourceStackSet
	switch of.short {
	case ihpas.short:
		client, resource = r.ihpas, "intelligenthorizontalpodautoscalers"
	case hpas.short:
		client, resource = r.autoscaling, "horizontalpodautoscalers"
	}
	raw, err := client.Get().Namespace(r.namespace).Resource(resource).Param("limit", fmt.Sprint(maxCompleted)).
		SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json").Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	list := &metav1.PartialObjectMetadataList{}
	if err := json.Unmarshal(raw, list); err != nil {
		return nil, err
	}
	for _, o := range list.Items {
		names = append(names, o.Name)
	}
	return names, nil
}
