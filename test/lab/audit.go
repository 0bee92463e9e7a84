package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Request is one request as kube-apiserver recorded it when it was answered.
type Request struct {
	Time        time.Time
	User        string // for example system:serviceaccount:kubetide-system:kubetide
	Pod, PodUID string // whose token the user showed; empty if that is of no pod
	UserAgent   string
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection
	Group       string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	URI         string
	Code        int
	// Denied says that the user has no right to it, as opposed to a refusal for another reason.
	Denied bool
}

// Writes tells whether the request asks for a change of an object.
func (r Request) Writes() bool {
	switch r.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

func (l *Lab) auditLog() string { return filepath.Join(l.logDir(), "audit.jsonl") }

// Audit yields every request answered at since or later, in the order of the answers. It ends at the end of the log, where a
// request may appear a moment after its caller has the answer; a watch appears when it ends.
func (l *Lab) Audit(since time.Time) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		f, err := os.Open(l.auditLog())
		if err != nil {
			yield(Request{}, fmt.Errorf("read the audit log: %w", err))
			return
		}
		defer f.Close()
		scanner := bufio.NewScanner(f)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			var event struct {
				StageTimestamp time.Time
				User           struct {
					Username string
					Extra    map[string][]string
				}
				ImpersonatedUser            *struct{ Username string }
				UserAgent, Verb, RequestURI string
				ObjectRef                   struct{ APIGroup, Resource, Subresource, Namespace, Name string }
				ResponseStatus              struct{ Code int }
				Annotations                 map[string]string
			}
			if err := json.Unmarshal(scanner.Bytes(), &event); err != nil {
				continue // the last line may still be half written
			}
			if event.StageTimestamp.Before(since) {
				continue
			}
			request := Request{
				Time: event.StageTimestamp, User: event.User.Username, UserAgent: event.UserAgent, Verb: event.Verb,
				Group: event.ObjectRef.APIGroup, Resource: event.ObjectRef.Resource, Subresource: event.ObjectRef.Subresource,
				Namespace: event.ObjectRef.Namespace, Name: event.ObjectRef.Name, URI: event.RequestURI, Code: event.ResponseStatus.Code,
				Denied: event.Annotations["authorization.k8s.io/decision"] == "forbid",
				Pod:    strings.Join(event.User.Extra["authentication.kubernetes.io/pod-name"], ""),
				PodUID: strings.Join(event.User.Extra["authentication.kubernetes.io/pod-uid"], ""),
			}
			if event.ImpersonatedUser != nil {
				request.User = event.ImpersonatedUser.Username
			}
			if !yield(request, nil) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			yield(Request{}, fmt.Errorf("read the audit log: %w", err))
		}
	}
}
