package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// volumes keeps the files of a pod's volumes as the API has them.
type volumes struct {
	worker *worker

	mu      sync.Mutex
	written map[string]map[string]string // what each volume holds now
	tokens  map[string]token
}

type token struct {
	value string
	renew time.Time
}

func newVolumes(w *worker) *volumes {
	return &volumes{worker: w, written: map[string]map[string]string{}, tokens: map[string]token{}}
}

func (v *volumes) dir(name string) string { return filepath.Join(v.worker.dir, "volumes", name) }

// write brings every volume up to date. A volume whose content cannot be had keeps what it holds.
func (v *volumes) write(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, volume := range v.worker.latest().Spec.Volumes {
		files, err := v.content(ctx, volume)
		if err == nil && files != nil {
			err = v.replace(volume.Name, files)
		} else if err == nil {
			err = os.MkdirAll(v.dir(volume.Name), 0o777)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", volume.Name, err))
		}
	}
	return errors.Join(errs...)
}

// content returns the files of a volume, or nil for an empty folder that belongs to the pod.
func (v *volumes) content(ctx context.Context, volume corev1.Volume) (map[string]string, error) {
	switch {
	case volume.EmptyDir != nil:
		return nil, nil
	case volume.ConfigMap != nil:
		s := volume.ConfigMap
		return v.projection(ctx, volume.Name, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: s.LocalObjectReference, Items: s.Items, Optional: s.Optional,
		}})
	case volume.Secret != nil:
		s := volume.Secret
		return v.projection(ctx, volume.Name, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: s.SecretName}, Items: s.Items, Optional: s.Optional,
		}})
	case volume.DownwardAPI != nil:
		return v.projection(ctx, volume.Name, corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: volume.DownwardAPI.Items}})
	case volume.Projected != nil:
		files := map[string]string{}
		for _, source := range volume.Projected.Sources {
			part, err := v.projection(ctx, volume.Name, source)
			if err != nil {
				return nil, err
			}
			maps.Copy(files, part)
		}
		return files, nil
	}
	return nil, errors.New("the lab does not know this kind of volume")
}

func (v *volumes) projection(ctx context.Context, volume string, p corev1.VolumeProjection) (map[string]string, error) {
	switch {
	case p.ConfigMap != nil:
		data, err := v.worker.configMap(ctx, p.ConfigMap.Name, p.ConfigMap.Optional)
		if err != nil {
			return nil, err
		}
		return pick(data, p.ConfigMap.Items, p.ConfigMap.Optional)
	case p.Secret != nil:
		data, err := v.worker.secret(ctx, p.Secret.Name, p.Secret.Optional)
		if err != nil {
			return nil, err
		}
		return pick(data, p.Secret.Items, p.Secret.Optional)
	case p.ServiceAccountToken != nil:
		value, err := v.token(ctx, volume, p.ServiceAccountToken)
		return map[string]string{p.ServiceAccountToken.Path: value}, err
	case p.DownwardAPI != nil:
		files := map[string]string{}
		for _, item := range p.DownwardAPI.Items {
			if item.FieldRef == nil {
				return nil, fmt.Errorf("%s: the lab knows fields only", item.Path)
			}
			value, err := v.worker.field(item.FieldRef.FieldPath)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", item.Path, err)
			}
			files[item.Path] = value
		}
		return files, nil
	}
	return nil, errors.New("the lab does not know this kind of projection")
}

// pick names the files as the items say; without items each key is a file.
func pick(data map[string]string, items []corev1.KeyToPath, optional *bool) (map[string]string, error) {
	files := map[string]string{}
	if len(items) == 0 {
		maps.Copy(files, data)
		return files, nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok && !ptr.Deref(optional, false) {
			return nil, fmt.Errorf("key %q is missing", item.Key)
		}
		if ok {
			files[item.Path] = value
		}
	}
	return files, nil
}

// token returns a token bound to the pod, a new one when four fifths of the old one's life are over.
func (v *volumes) token(ctx context.Context, volume string, p *corev1.ServiceAccountTokenProjection) (string, error) {
	key := volume + "/" + p.Path
	if t, ok := v.tokens[key]; ok && time.Now().Before(t.renew) {
		return t.value, nil
	}
	pod := v.worker.latest()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: p.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if p.Audience != "" {
		request.Spec.Audiences = []string{p.Audience}
	}
	answer, err := v.worker.kubelet.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}
	life := time.Until(answer.Status.ExpirationTimestamp.Time)
	v.tokens[key] = token{value: answer.Status.Token, renew: time.Now().Add(life * 4 / 5)}
	return answer.Status.Token, nil
}

// replace writes the files into a new folder and points the link ..data at it, so that readers see all of the old or all of the
// new; this is the layout that programs which watch mounted files know.
func (v *volumes) replace(name string, files map[string]string) error {
	if old, ok := v.written[name]; ok && maps.Equal(old, files) {
		return nil
	}
	dir := v.dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for path, content := range files {
		if !filepath.IsLocal(path) {
			return fmt.Errorf("file %q: leads out of the volume", path)
		}
		file := filepath.Join(fresh, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	if err := os.Symlink(filepath.Base(fresh), data+"_tmp"); err != nil {
		return err
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		return err
	}
	for path := range files {
		first, _, _ := strings.Cut(path, "/")
		if err := os.Symlink(filepath.Join("..data", first), filepath.Join(dir, first)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for path := range v.written[name] {
		first, _, _ := strings.Cut(path, "/")
		if _, err := os.Stat(filepath.Join(dir, first)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(filepath.Join(dir, first))
		}
	}
	if old != "" {
		_ = os.RemoveAll(filepath.Join(dir, old))
	}
	v.written[name] = files
	return nil
}

// source returns what is mounted for a volume mount, and whether it must be read-only.
func (v *volumes) source(m corev1.VolumeMount, env environment) (string, bool, error) {
	for _, volume := range v.worker.latest().Spec.Volumes {
		if volume.Name != m.Name {
			continue
		}
		dir := v.dir(m.Name)
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = env.expand(m.SubPathExpr)
		}
		if sub != "" {
			if !filepath.IsLocal(sub) {
				return "", false, fmt.Errorf("volume mount %s: subPath %q leads out of the volume", m.Name, sub)
			}
			if volume.EmptyDir != nil {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
					return "", false, err
				}
			}
			resolved, err := filepath.EvalSymlinks(filepath.Join(dir, sub))
			if err != nil {
				return "", false, fmt.Errorf("volume mount %s: %w", m.Name, err)
			}
			dir = resolved
		}
		return dir, volume.EmptyDir == nil, nil
	}
	return "", false, fmt.Errorf("volume mount %s: the pod has no such volume", strconv.Quote(m.Name))
}
