package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/config"
	"github.com/kubetide/kubetide/scaler/podstate"
)

func cleanupCommand() *cobra.Command {
	c := config.Default()
	cmd := &cobra.Command{
		Use: "cleanup", Short: "Undo what only a running Kubetide would undo", Args: cobra.NoArgs,
		Long: `After an uninstall: give pods that were cut off their traffic back, and take Kubetide's finalizers off its objects, so that they can be
deleted. While an engine runs, it does both itself, and would put the finalizers on again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			restConfig, err := clientConfig(c)
			if err != nil {
				return err
			}
			api, err := client.New(restConfig, client.Options{Scheme: newScheme()})
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return cleanup(ctx, api, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&c.General.Kubeconfig, "kubeconfig", "", "The kubeconfig `file` to use outside a cluster. Empty: the pod's service account.")
	return cmd
}

// cleanup goes on after an error: what one object refuses must not keep the others.
func cleanup(ctx context.Context, api client.Client, out io.Writer) error {
	errs := []error{each(ctx, api, &corev1.PodList{}, func(o client.Object) error { return release(ctx, api, o.(*corev1.Pod), out) })}
	for _, list := range []client.ObjectList{&kapacity.IntelligentHorizontalPodAutoscalerList{}, &kapacity.ReplicaProfileList{}, &kapacity.HorizontalPortraitList{}} {
		errs = append(errs, each(ctx, api, list, func(o client.Object) error {
			before := o.DeepCopyObject().(client.Object)
			if !controllerutil.RemoveFinalizer(o, kapacity.Finalizer) {
				return nil
			}
			fmt.Fprintf(out, "%T %s/%s: the finalizer goes\n", o, o.GetNamespace(), o.GetName())
			return api.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		}))
	}
	return errors.Join(errs...)
}

// each calls do for every object of the list's kind, a page at a time. A kind that is not there has none.
func each(ctx context.Context, api client.Client, list client.ObjectList, do func(client.Object) error) error {
	var errs []error
	for next := ""; ; {
		err := api.List(ctx, list, client.Limit(500), client.Continue(next))
		if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		_ = apimeta.EachListItem(list, func(o runtime.Object) error {
			if err := do(o.(client.Object)); client.IgnoreNotFound(err) != nil {
				errs = append(errs, err)
			}
			return nil
		})
		if next = list.GetContinue(); next == "" {
			return errors.Join(errs...)
		}
	}
}

// release gives a pod that waits at Kubetide's gate its traffic, and takes Kubetide's marks off it.
func release(ctx context.Context, api client.Client, pod *corev1.Pod, out io.Writer) error {
	if gate := podstate.FromPod(pod).Gate; gate == podstate.GateOff || gate == podstate.GateUnset {
		fmt.Fprintf(out, "pod %s/%s: gets its traffic back\n", pod.Namespace, pod.Name)
		before := pod.DeepCopy()
		setCondition(pod, corev1.PodCondition{Type: kapacity.OnlineConditionType, Status: corev1.ConditionTrue, Reason: "Online",
			Message: "Kubetide was uninstalled", LastTransitionTime: metav1.Now()})
		if err := api.Status().Patch(ctx, pod, client.StrategicMergeFrom(before)); err != nil {
			return err
		}
	}
	before := pod.DeepCopy()
	delete(pod.Labels, kapacity.PodStateLabel)
	if pod.Annotations[corev1.PodDeletionCost] == strconv.Itoa(int(podstate.DeletionCost)) {
		delete(pod.Annotations, corev1.PodDeletionCost)
	}
	if len(before.Labels) == len(pod.Labels) && len(before.Annotations) == len(pod.Annotations) {
		return nil
	}
	return api.Patch(ctx, pod, client.MergeFrom(before))
}

func setCondition(pod *corev1.Pod, is corev1.PodCondition) {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == is.Type {
			pod.Status.Conditions[i] = is
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, is)
}
