package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// jobs is the namespace of external algorithms' jobs, and algorithm the image of one: kubectl, which applies a file.
const (
	jobs      = "forecasts"
	algorithm = "algorithm"
)

// allowJobs does what docs/external-jobs.md asks of the operator.
func allowJobs(ctx context.Context) error {
	admin := kubernetes.NewForConfigOrDie(cluster.Config())
	if _, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: jobs}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := admin.RbacV1().RoleBindings(jobs).Create(ctx, bind("kubetide-algorithm-jobs", system, "kubetide"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return cluster.RegisterImage(ctx, algorithm, cluster.KubectlPath())
}

func bind(clusterRole, namespace, account string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: clusterRole},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterRole},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
}

// An external algorithm: its CronJob is made, a Job of it runs as a process and leaves a result, replicas follow, also a second
// result; and when the IHPA goes, so do portrait, CronJob and Jobs.
func TestAnExternalAlgorithmIsRunAndFollowed(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	workload(t, ns, "Deployment", "cart", 1, "")
	_, err := kube.RbacV1().RoleBindings(ns).Create(t.Context(), bind("kubetide-algorithm-results", system, "kubetide"), metav1.CreateOptions{})
	must(t, err)
	_, err = kube.RbacV1().RoleBindings(ns).Create(t.Context(), bind("edit", jobs, "default"), metav1.CreateOptions{})
	must(t, err)
	for _, verb := range []string{"get", "list", "watch"} {
		allowed(t, kubetideUser, authorizationv1.ResourceAttributes{Namespace: ns, Verb: verb, Resource: "configmaps"})
	}
	allowed(t, "system:serviceaccount:"+jobs+":default", authorizationv1.ResourceAttributes{Namespace: ns, Verb: "patch", Resource: "configmaps"})
	forecast := func(replicas int) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: ns}, Data: map[string]string{"result.yaml": fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: cart-predictive-result}
data:
  type: TimeSeries
  expireTime: %q
  timeSeries: '{"%d.0": %d.0}'
`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), time.Now().Add(-time.Minute).Unix(), replicas)}}
	}
	_, err = kube.CoreV1().ConfigMaps(jobs).Create(t.Context(), forecast(4), metav1.CreateOptions{})
	must(t, err)
	create(t, ns, `
apiVersion: autoscaling.kapacitystack.io/v1alpha1
kind: IntelligentHorizontalPodAutoscaler
metadata: {name: cart}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}
  minReplicas: 1
  maxReplicas: 20
  portraitProviders:
  - type: Dynamic
    priority: 1
    dynamic:
      portraitType: Predictive
      algorithm:
        type: ExternalJob
        externalJob:
          job:
            type: CronJob
            cronJob:
              template:
                metadata: {labels: {team: cart}}
                spec:
                  schedule: "* * * * *"
                  jobTemplate:
                    spec:
                      template:
                        spec:
                          restartPolicy: OnFailure
                          terminationGracePeriodSeconds: 1
                          volumes: [{name: forecast, configMap: {name: %s}}]
                          containers:
                          - name: algorithm
                            image: %s
                            args: [apply, --server-side, --force-conflicts, -n, $(HP_NAMESPACE), -f, /forecast/result.yaml]
                            volumeMounts: [{name: forecast, mountPath: /forecast}]
          resultSource: {type: ConfigMap}
`, ns, algorithm)
	cronJob := ns + "-cart-predictive"
	began := time.Now()
	eventually(t, 10*time.Second, func() error {
		_, err := kube.BatchV1().CronJobs(jobs).Get(t.Context(), cronJob, metav1.GetOptions{})
		return err
	})
	t.Logf("the CronJob was made after %v", time.Since(began).Round(10*time.Millisecond))
	eventually(t, 90*time.Second, wantReplicas(t, ns, "Deployment", "cart", 4))
	t.Logf("the first result was followed %v after the IHPA was made, with a schedule of every minute", time.Since(began).Round(100*time.Millisecond))

	_, err = kube.CoreV1().ConfigMaps(jobs).Update(t.Context(), forecast(6), metav1.UpdateOptions{})
	must(t, err)
	began = time.Now()
	_, err = cluster.Kubectl(t.Context(), "-n", jobs, "create", "job", ns+"-now", "--from=cronjob/"+cronJob)
	must(t, err)
	eventually(t, 30*time.Second, wantReplicas(t, ns, "Deployment", "cart", 6))
	t.Logf("a job by hand was followed after %v", time.Since(began).Round(100*time.Millisecond))

	must(t, api.Delete(t.Context(), getIHPA(t, ns, "cart")))
	eventually(t, 30*time.Second, func() error {
		var portraits kapacity.HorizontalPortraitList
		if err := api.List(t.Context(), &portraits); err != nil {
			return err
		}
		for _, p := range portraits.Items {
			if p.Namespace == ns {
				return fmt.Errorf("HorizontalPortrait %s is still there", p.Name)
			}
		}
		if _, err := kube.BatchV1().CronJobs(jobs).Get(t.Context(), cronJob, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the CronJob is still there: %w", err)
		}
		left, err := kube.BatchV1().Jobs(jobs).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, j := range left.Items {
			for _, o := range j.OwnerReferences {
				if o.Name == cronJob {
					return fmt.Errorf("Job %s is still there", j.Name)
				}
			}
		}
		return nil
	})
	if got := replicas(t, ns, "Deployment", "cart"); got != 6 {
		t.Errorf("deleting the IHPA scaled to %d", got)
	}
}
