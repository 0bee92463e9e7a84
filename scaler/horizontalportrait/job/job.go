// Package job sees to the jobs of external algorithms: it makes a CronJob of a HorizontalPortrait's template, in the one namespace
// that is set aside for them, and reads the ConfigMap that its last run left beside the portrait. It writes CronJobs in that namespace and
// nothing else; the portrait and its status are scaler/horizontalportrait's.
package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/target"
)

// The ClusterRoles that ship unbound, since not everybody has external algorithms.
const (
	// JobsRole is for a RoleBinding in the namespace of the jobs, ResultsRole for one in each namespace with portraits.
	JobsRole    = "kubetide-algorithm-jobs"
	ResultsRole = "kubetide-algorithm-results"
)

// recheck is when to look again at what somebody has to mend. Watches tell sooner.
const recheck = 10 * time.Minute

// Options of the jobs. All but the namespace may be empty.
type Options struct {
	// Namespace of all jobs.
	Namespace string
	// ServiceAccount and Image are for templates that name none.
	ServiceAccount, Image string
	// MetricsServerAddr is what the algorithm finds in METRICS_SERVER_ADDR, unless its template says another.
	MetricsServerAddr string
}

// Jobs implements horizontalportrait.Jobs.
type Jobs struct {
	options Options
	// client reads past any cache: what is read is needed seldom, and a cache would hold all ConfigMaps.
	client  client.Client
	clock   clock.PassiveClock
	watches *watches
}

// Reconcile makes the portrait's CronJob what the template says, and returns the result of its last run, or the reason of the
// condition and when to look again: zero for soon, by the error.
func (j *Jobs) Reconcile(ctx context.Context, hp *kapacity.HorizontalPortrait) (*kapacity.PortraitData, string, time.Time, error) {
	if err := j.keep(ctx, hp); err != nil {
		return nil, kapacity.ReasonFailedReconcileExternalAlgorithmJob, j.again(err), err
	}
	data, err := j.fetch(ctx, hp)
	if err != nil {
		return data, kapacity.ReasonFailedFetchExternalAlgorithmJobResult, j.again(err), err
	}
	return data, "", time.Time{}, nil
}

// mend is an error that stays until somebody changes something.
type mend struct{ error }

func (e mend) Unwrap() error { return e.error }

func (j *Jobs) again(err error) time.Time {
	if errors.As(err, &mend{}) || apierrors.IsInvalid(err) {
		return j.clock.Now().Add(recheck)
	}
	return time.Time{}
}

func (j *Jobs) keep(ctx context.Context, hp *kapacity.HorizontalPortrait) error {
	want, err := j.options.cronJob(hp)
	if err != nil {
		return mend{err}
	}
	live := &batchv1.CronJob{}
	err = j.client.Get(ctx, client.ObjectKeyFromObject(want), live)
	if apierrors.IsNotFound(err) {
		if err = j.client.Create(ctx, want, client.FieldOwner(target.FieldManager)); err == nil {
			log.FromContext(ctx).Info("made the job of an external algorithm", "cronJob", want.Namespace+"/"+want.Name)
		}
		return j.failed("create", want.Name, err)
	}
	if err != nil {
		return j.failed("read", want.Name, err)
	}
	if err := claim(live, hp); err != nil {
		return mend{err}
	}
	if !live.DeletionTimestamp.IsZero() {
		return fmt.Errorf("CronJob %s/%s is being deleted; it is made again once it is gone", live.Namespace, live.Name)
	}
	before := live.DeepCopy()
	merge(live, want)
	if equality.Semantic.DeepEqual(before, live) {
		return nil
	}
	err = j.client.Patch(ctx, live, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(target.FieldManager))
	return j.failed("patch", want.Name, err)
}

// failed says what was tried; for what is forbidden, also who can allow it.
func (j *Jobs) failed(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s CronJob %s/%s: %w", verb, j.options.Namespace, name, err)
	return allow(err, j.options.Namespace, JobsRole)
}

func allow(err error, namespace, role string) error {
	if !apierrors.IsForbidden(err) {
		return err
	}
	return fmt.Errorf("%w; a RoleBinding in namespace %s to the ClusterRole %s allows it", err, namespace, role)
}

// fetch reads the result. Its watch begins first, so that no change is missed in between.
func (j *Jobs) fetch(ctx context.Context, hp *kapacity.HorizontalPortrait) (*kapacity.PortraitData, error) {
	if source := hp.Spec.Algorithm.ExternalJob.ResultSource.Type; source != kapacity.ConfigMapPortraitAlgorithmResultSource {
		return nil, mend{fmt.Errorf("spec.algorithm.externalJob.resultSource.type: %q is no source that can be read; there is %s", source, kapacity.ConfigMapPortraitAlgorithmResultSource)}
	}
	key := client.ObjectKey{Namespace: hp.Namespace, Name: hp.Name + kapacity.ResultConfigMapSuffix}
	unwatched := j.watches.result(hp)
	result := &corev1.ConfigMap{}
	err := j.client.Get(ctx, key, result)
	switch {
	case apierrors.IsNotFound(err):
		return nil, mend{fmt.Errorf("ConfigMap %s is not there: the job has left no result yet", key)}
	case err != nil:
		return nil, allow(fmt.Errorf("read ConfigMap %s: %w", key, err), hp.Namespace, ResultsRole)
	}
	data, err := Parse(result)
	if err != nil {
		return nil, mend{fmt.Errorf("ConfigMap %s: %w", key, err)}
	}
	if unwatched != nil { // what is there now is still good
		return data, allow(fmt.Errorf("watch ConfigMap %s: %w", key, unwatched), hp.Namespace, ResultsRole)
	}
	return data, nil
}

// Cleanup deletes the portrait's CronJob, with its Jobs and their pods. It is found by its label, or, where Kapacity made it, by
// what it works for.
func (j *Jobs) Cleanup(ctx context.Context, hp *kapacity.HorizontalPortrait) (string, error) {
	j.watches.end(hp)
	found := &batchv1.CronJobList{}
	if err := j.client.List(ctx, found, client.InNamespace(j.options.Namespace), client.MatchingLabels{Label: string(hp.UID)}); err != nil {
		return kapacity.ReasonFailedCleanupExternalAlgorithmJob, j.failed("find", Name(hp.Namespace, hp.Name), err)
	}
	if len(found.Items) == 0 {
		unlabeled := batchv1.CronJob{}
		err := j.client.Get(ctx, client.ObjectKey{Namespace: j.options.Namespace, Name: Name(hp.Namespace, hp.Name)}, &unlabeled)
		if client.IgnoreNotFound(err) != nil {
			return kapacity.ReasonFailedCleanupExternalAlgorithmJob, j.failed("find", Name(hp.Namespace, hp.Name), err)
		}
		namespace, name := worksFor(&unlabeled)
		if _, labeled := unlabeled.Labels[Label]; err == nil && !labeled && namespace == hp.Namespace && name == hp.Name {
			found.Items = append(found.Items, unlabeled)
		}
	}
	for i := range found.Items {
		c := &found.Items[i]
		err := j.client.Delete(ctx, c, client.Preconditions{UID: &c.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			return kapacity.ReasonFailedCleanupExternalAlgorithmJob, j.failed("delete", c.Name, err)
		}
	}
	return "", nil
}
